"""EfficientNet-Lite0 as a judge in training: its distances, both stages, exact resume, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from stylebatch.data.images import load_picture
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.methods.pixels import to_tensor
from stylebatch.quality.imagenet_network import load_network
from stylebatch.training.denoising import DenoisingLoss, noised
from stylebatch.training.judge import Judge, map_distance, statistics_distance
from stylebatch.training.spec import TrainSpec, UnetOptions
from stylebatch.training.style_loss import StyleLoss
from stylebatch.training.trainer import train
from tests.support.restyled import restyling, write_rows

DEMO = Path(__file__).parents[2] / "manifests" / "demo"
BORROWING = {"borrow": {"share": 0.3}}


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.set_num_threads(1)
    return Judge(load_network(), 128)


@pytest.fixture(scope="module")
def macaw() -> Tensor:
    """(1, 3, 128, 128) in [-1, 1]."""
    return to_tensor([load_picture(DEMO / "contents/animal/macaw.jpg", 128).pixels])


def _coarse(images: Tensor, factor: int) -> Tensor:
    return interpolate(avg_pool2d(images, factor), images.shape[-2:], mode="bilinear")


def test_coarser_pictures_are_further_and_a_mirrored_one_keeps_its_statistics(
    judge: Judge, macaw: Tensor
) -> None:
    levels = (0, 1, 2, 3, 4)
    seen = judge.maps(macaw, levels)
    in_place, by_statistics = [], []
    for other in (macaw, _coarse(macaw, 2), _coarse(macaw, 4), _coarse(macaw, 8), macaw.flip(3)):
        maps = judge.maps(other, levels)
        in_place.append(float(map_distance(seen, maps)))
        by_statistics.append(float(statistics_distance(seen, maps)))
    for found in (in_place, by_statistics):
        assert found[0] < 1e-2 < found[1] < found[2] < found[3] < 2
    assert by_statistics[4] < by_statistics[1]
    assert in_place[4] > in_place[2]


@settings(max_examples=8, deadline=None)
@given(side=st.sampled_from((32, 48, 64, 128)), seed=st.integers(0, 99), scale=st.floats(0.1, 8.0))
def test_windows_of_any_side_and_values_out_of_range_give_finite_bounded_distances(
    judge: Judge, side: int, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, two = (scale * torch.randn((1, 3, side, side), generator=generator) for _ in range(2))
    flat = torch.zeros_like(one).requires_grad_(True)
    seen = [judge.maps(images, (0, 3)) for images in (one, two, flat)]
    for other in seen[1:]:
        assert 0 <= float(map_distance(seen[0], other).detach()) <= 4
        assert 0 <= float(statistics_distance(seen[0], other).detach()) <= 2
    (map_distance(*seen[1:]) + statistics_distance(*seen[1:])).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_a_window_is_seen_at_the_scale_of_its_picture(judge: Judge, macaw: Tensor) -> None:
    assert [m.shape[-1] for m in judge.maps(macaw, (0, 4))] == [112, 7]
    assert [m.shape[-1] for m in judge.maps(macaw[..., :64, :64], (0, 4))] == [64, 4]


def _autoencoder(folder: Path, data: Path, out: Path, vae: dict[str, Any]) -> TrainSpec:
    return TrainSpec.model_validate_json(
        json.dumps(
            {
                "stage": "vae",
                "model": {"path": str(folder)},
                "data": {"path": str(data), "size": 64},
                "steps": 4,
                "phases": [{"windows": [{"size": 32, "batch": 2}]}],
                "optimizer": {"name": "muon", "rate": 1e-3},
                "ema": 0.9,
                "vae": vae,
                "validation": {"every": 99, "count": 1},
                "checkpoints": {"every": 2},
                "tracker": None,
                "threads": 1,
                "output": str(out),
            }
        )
    )


def _weights(folder: Path, part: str = "vae") -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(str(folder / part / "diffusion_pytorch_model.safetensors"))
    return found


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("judged") / "data")


def test_judged_decoder_resumes_exactly_and_keeps_the_latents(
    eps_folder: Path, rows: Path, tmp_path: Path
) -> None:
    asked = {"only": "decoder", "perceptual": {"weight": 0.5, "levels": [3, 0]}}
    spec = _autoencoder(eps_folder, rows, tmp_path / "out", asked)
    done = train(spec)
    assert 0 < done.measures["perceptual"] < 4
    undisturbed = _weights(done.model)
    # as a crash between steps 2 and 4 leaves it
    shutil.rmtree(done.model)
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-0000004")
    assert _equal(_weights(train(spec).model), undisturbed)

    base = _weights(eps_folder)
    moved = {name.split(".")[0] for name in base if not torch.equal(base[name], undisturbed[name])}
    assert moved == {"decoder", "post_quant_conv"}
    configs = [
        json.loads((f / "vae" / "config.json").read_text()) for f in (eps_folder, done.model)
    ]
    assert configs[0].get("scaling_factor") == configs[1]["scaling_factor"]
    other = asked | {"perceptual": {"weight": 0.5, "levels": [3, 1]}}
    with pytest.raises(PlanChangedError, match=r"vae\.perceptual\.levels"):
        train(_autoencoder(eps_folder, rows, tmp_path / "out", other))
    run = tmp_path / "out" / "run.json"
    run.write_text(run.read_text().replace("efficientnet-lite0 ", "efficientnet-lite0 0."))
    with pytest.raises(PlanChangedError, match="judge: was"):
        train(spec)


def test_without_weight_it_is_the_training_without_judge_and_needs_no_package(
    eps_folder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if "lite0" in name else real(name, *a)
    )
    made = [
        _weights(train(_autoencoder(eps_folder, rows, tmp_path / str(i), vae)).model)
        for i, vae in enumerate(({}, {"perceptual": {"weight": 0.0}}))
    ]
    assert _equal(*made)
    judged = _autoencoder(eps_folder, rows, tmp_path / "2", {"perceptual": {"weight": 1}})
    with pytest.raises(ManifestError, match=r"vae\.perceptual: .*lite0.*'stylebatch\[quality\]'"):
        train(judged)
    assert not (tmp_path / "2").exists()
    style = {"style_loss": {"judge": {"content_weight": 0.1}}, **BORROWING}
    with pytest.raises(ManifestError, match=r"unet\.style_loss\.judge: "):
        train(restyling(rows, eps_folder, tmp_path / "3", **style))


def test_decoder_learns_what_the_judge_sees(judge: Judge, eps_folder: Path, macaw: Tensor) -> None:
    vae = AutoencoderKL.from_pretrained(eps_folder, subfolder="vae")
    images = macaw[..., 32:64, 32:64]
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode()
        expected = judge.maps(images, (0, 1, 2))
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=3e-3)
    distances = []
    for _ in range(8):
        optimizer.zero_grad()
        distance = map_distance(judge.maps(vae.decode(latents).sample, (0, 1, 2)), expected).mean()
        distance.backward()
        optimizer.step()
        distances.append(float(distance.detach()))
    assert distances[-1] < 0.9 * distances[0]


def _styled(
    folder: Path, judge: Judge, **options: Any
) -> tuple[DenoisingLoss, StyleLoss, DDPMScheduler]:
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    asked = BORROWING | {"style_loss": {"judge": options}}
    given = UnetOptions.model_validate(asked, strict=False)
    assert given.style_loss is not None
    style = StyleLoss(given.style_loss, lambda latents: vae.decode(latents).sample, judge)
    return DenoisingLoss(unet, schedule, given, style), style, schedule


def test_style_loss_adds_the_judge_by_its_weights(judge: Judge, eps_folder: Path) -> None:
    weights = {"style_weight": 0.7, "content_weight": 0.2}
    levels = {"style_levels": [0, 2], "content_levels": [4, 2]}
    loss, judged, _ = _styled(eps_folder, judge, **weights, **levels)
    _, plain, _ = _styled(eps_folder, judge)
    plain.judge = None
    generator = torch.Generator().manual_seed(3)
    shape = (6, int(loss.unet.config.in_channels), 8, 8)
    parts = torch.randn(shape, generator=generator).split(2)
    sigma, gamma = torch.tensor([0.5, 3.0]), torch.tensor([0.75, 0.75])
    (with_it, shown), (without, _) = (one(*parts, sigma, gamma) for one in (judged, plain))
    maps = [judge.maps(judged.decode(part), (0, 2, 4)) for part in parts]
    style = statistics_distance(maps[0][:2], maps[1][:2])
    content = map_distance(maps[0][1:], maps[2][1:])
    added = ((0.7 * style + 0.2 * content) / (1 + sigma)).mean()
    torch.testing.assert_close(with_it - without, added, rtol=1e-3, atol=1e-5)
    assert float(shown["judged_style"]) == pytest.approx(float(style.mean()), rel=1e-3)
    assert float(shown["judged_content"]) == pytest.approx(float(content.mean()), rel=1e-3)


@pytest.mark.slow
def test_unet_learns_what_the_judge_sees(judge: Judge, eps_folder: Path) -> None:
    loss, style, schedule = _styled(eps_folder, judge, style_weight=3.0)
    style.options = style.options.model_copy(
        update={"texture_weight": 0.0, "color_weight": 0.0, "structure_weight": 0.0}
    )
    generator = torch.Generator().manual_seed(5)
    shape = (6, int(loss.unet.config.in_channels), 8, 8)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    text = torch.zeros((8, 5, int(loss.unet.config.cross_attention_dim)))
    batch = noised(schedule, latents, noise, torch.tensor([100, 300] * 3), None)
    optimizer = torch.optim.AdamW(loss.unet.parameters(), lr=1e-3)
    shown = []
    for _ in range(6):
        optimizer.zero_grad()
        loss(batch, text, 2, torch.tensor([0.75, 0.75]))[0].backward()
        optimizer.step()
        shown.append(float(loss.shown["judged_style"]))
    assert shown[-1] < 0.95 * shown[0]


def test_a_run_of_the_unet_logs_and_resumes(eps_folder: Path, rows: Path, tmp_path: Path) -> None:
    judge = {"style_weight": 0.5, "content_weight": 0.1, "style_levels": [1]}
    unet = {"borrow": {"share": 0.25}, "style_loss": {"share": 0.5, "judge": judge}}
    spec = restyling(rows, eps_folder, tmp_path / "out", **unet)
    spec = spec.model_copy(update={"checkpoints": spec.checkpoints.model_copy(update={"every": 1})})
    done = train(spec)
    assert {"judged_style", "judged_content", "texture"} <= done.measures.keys()
    undisturbed = _weights(done.model, "unet")
    shutil.rmtree(done.model)
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-0000002")
    assert _equal(_weights(train(spec).model, "unet"), undisturbed)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"perceptual": {"weight": 1, "levels": [5]}}, r"perceptual.levels.*\n.*less than"),
        ({"perceptual": {"weight": 1, "levels": []}}, r"perceptual.levels"),
        ({"perceptual": {"weight": 1, "levels": [2, 2]}}, r"each level once; found \[2, 2\]"),
        ({"perceptual": {"weight": -1}}, r"perceptual.weight"),
        ({"perceptual": {"levels": [1]}}, r"perceptual.weight"),
        ({"perceptual": {"weight": 1, "level": [1]}}, r"perceptual.level\b"),
        ({"only": "encoder"}, r"only"),
        ({"only": "decoder", "noise": 0.1}, r"noise changes the latents"),
    ],
)
def test_mistakes_are_named(section: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        _autoencoder(tmp_path, tmp_path, tmp_path, section)
