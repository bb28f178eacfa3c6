"""Stylised rows: statistics of a look, attention as StyleID injects it, and a network that learns to bring the look."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from stylebatch.diffusion.attention import adain
from stylebatch.models.unet.edits import installed
from stylebatch.training.denoising import DenoisingLoss, noised
from stylebatch.training.spec import UnetOptions
from stylebatch.training.style_loss import (
    StyleLoss,
    color_distance,
    edge_correlation,
    look,
    texture_distances,
)
from tests.support.restyled import restyling, write_rows

PAIRS, STYLISED = 2, 2


def _waves(wavelength: float, angle: float, phase: float = 0.0, height: float = 0.5) -> Tensor:
    """A grey grating (1, 3, 64, 64)."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    return (height * torch.sin(2 * math.pi * along / wavelength + phase)).expand(1, 3, 64, 64)


def _apart(first: Tensor, second: Tensor) -> float:
    return float(texture_distances(look(first).texture, look(second).texture))


def test_texture_is_direction_and_scale_but_not_place_or_contrast() -> None:
    here = _waves(8.0, 0.3)
    assert _apart(here, _waves(8.0, 0.3, phase=1.0, height=0.1)) < 0.1
    assert _apart(here, _waves(8.0, 0.3 + math.pi / 2)) > 1.0
    assert _apart(here, _waves(4.0, 0.3)) > 1.0
    assert _apart(here, here) < 0.01


def test_color_is_what_values_occur_and_structure_where_edges_are() -> None:
    picture = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(2)) * 2 - 1
    shuffled = picture.flatten(2)[:, :, torch.randperm(1024)].view_as(picture)
    looks = [look(images) for images in (picture, shuffled, picture + 0.1, -picture)]
    assert color_distance(looks[0].color, looks[1].color).max() < 1e-6
    grey = color_distance(looks[0].color, looks[2].color)  # of three channels only luma moves
    torch.testing.assert_close(grey, torch.full((2,), 0.1 / 3), rtol=1e-3, atol=1e-4)
    assert edge_correlation(looks[0].edges, looks[1].edges).abs().max() < 0.2
    assert edge_correlation(looks[0].edges, looks[3].edges).min() > 0.999


def _made(
    folder: Path, kind: str = "epsilon", **options: Any
) -> tuple[DenoisingLoss, DDPMScheduler, AutoencoderKL]:
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").requires_grad_(False)
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", prediction_type=kind)
    given = UnetOptions.model_validate(
        {"borrow": {"share": 0.3, "tau": 1.25}, "style_loss": options}, strict=False
    )
    assert given.style_loss is not None
    style = StyleLoss(given.style_loss, lambda latents: vae.decode(latents).sample)
    return DenoisingLoss(unet, schedule, given, style), schedule, vae


def _inputs(loss: DenoisingLoss, times: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six clean rows (two that borrow, two styles, two contents), noise, timesteps, text of the stylised rows too."""
    generator = torch.Generator().manual_seed(5)
    config = loss.unet.config
    shape = (6, int(config.in_channels), 16, 16)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    text = torch.randn((8, 5, int(config.cross_attention_dim)), generator=generator)
    text[4:] = text[4]
    return latents, noise, torch.tensor(times * 3), text


class Reference:
    """A network edited by the method's own means, tau 1.7 and `share` of the content's queries kept."""

    def __init__(
        self, folder: Path, unet: UNet2DConditionModel, share: Tensor, text: Tensor
    ) -> None:
        """`text` (3, 2, tokens, width): of styles, contents and stylised rows."""
        processors = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").attn_processors
        unet.set_attn_processor(processors)
        self.unet, self.share, self.text = unet, share[:, None, None, None], text
        self.features: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def record(self, site: int, hidden: Tensor, layer: Any) -> Tensor:
        q, k, v = layer.query(hidden), layer.key(hidden), layer.value(hidden)
        self.features[site] = (q, k, v)
        return layer.output(torch.nn.functional.scaled_dot_product_attention(q, k, v))

    def inject(self, site: int, hidden: Tensor, layer: Any) -> Tensor:
        kept, k, v = self.features[site]
        query = self.share * kept[2:] + (1 - self.share) * layer.query(hidden)
        return layer.output((1.7 * layer.scale * query @ k[:2].transpose(2, 3)).softmax(-1) @ v[:2])

    @torch.no_grad()
    def outputs(self, noisy: Tensor, start: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs for the contents and for the stylised rows; noisy (4, C, h, w): two styles, two contents."""
        sites, both = (6, 7, 8, 9, 10, 11), torch.cat([times, times])
        with installed(self.unet, self.record, sites):
            plain = self.unet(noisy, both, encoder_hidden_states=self.text[:2].flatten(0, 1)).sample
        with installed(self.unet, self.inject, sites):
            output = self.unet(start, times, encoder_hidden_states=self.text[2]).sample
        return plain[2:], output


def _parts(kind: str, level: Tensor, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Clean latents and noise that an output for x leads to."""
    a = level[:, None, None, None]
    noise = a.sqrt() * out + (1 - a).sqrt() * x if kind == "v_prediction" else out
    return (x - (1 - a).sqrt() * noise) / a.sqrt(), noise


@pytest.mark.parametrize("further", [None, torch.tensor([80, 500])], ids=["content", "further"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_stylised_rows_are_injected_as_styleid_injects(
    eps_folder: Path, kind: str, further: Tensor | None
) -> None:
    """The clean latents that are judged; `further`: after a step that was stylised too, from at most timestep 999."""
    loss, schedule, _ = _made(eps_folder, kind, tau=1.7)
    latents, noise, times, text = _inputs(loss, [300, 600])
    batch = noised(schedule, latents, noise, times, None)
    seen: list[tuple[Tensor, ...]] = []
    assert loss.style is not None
    real = loss.style.__class__.__call__

    class Watched(StyleLoss):
        def __call__(self, *given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(given)
            return real(self, *given)

    loss.style = Watched(loss.style.options, loss.style.decode)
    share, levels = torch.tensor([0.6, 0.2]), schedule.alphas_cumprod
    with torch.no_grad():
        loss(batch, text, PAIRS, share, further)
    predicted, styles, contents, sigma, _ = seen[0]
    torch.testing.assert_close(styles, latents[2:4], rtol=1e-4, atol=1e-4)
    level = levels[times[:2]]
    torch.testing.assert_close(sigma, ((1 - level) / level).sqrt())

    reference = Reference(eps_folder, loss.unet, share, text[2:].unflatten(0, (3, 2)))
    start = adain(batch.latents[4:], batch.latents[2:4])
    if further is not None:
        above = torch.tensor([380, 999])
        noisy = schedule.add_noise(latents[2:], noise[2:], above.repeat(2))
        start = adain(noisy[2:], noisy[:2])
        _, output = reference.outputs(noisy, start, above)
        clean, left = _parts(kind, levels[above], start, output)
        start = schedule.add_noise(clean, left, times[:2])
    plain, output = reference.outputs(batch.latents[2:], start, times[:2])
    made, kept = (
        _parts(kind, level, x, out)[0] for x, out in ((start, output), (batch.latents[4:], plain))
    )
    torch.testing.assert_close(predicted, made, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(contents, kept, rtol=1e-3, atol=1e-3)


def test_loss_is_the_weighted_sum_of_its_parts(eps_folder: Path) -> None:
    weights = {
        "texture_weight": 0.7,
        "color_weight": 0.3,
        "structure_weight": 0.2,
        "structure": (0.3, 0.9),
        "gamma": (0.2, 1.0),
    }
    loss, _, vae = _made(eps_folder, **weights, contrast_weight=0.4)
    latents = torch.randn((6, int(loss.unet.config.in_channels), 16, 16))
    predicted, styles, contents = latents.split(2)
    sigma = torch.tensor([0.5, 3.0])
    assert loss.style is not None
    given, parts = loss.style(predicted, styles, contents, sigma, torch.tensor([0.2, 0.6]))
    looks = [look(vae.decode(part).sample) for part in (predicted, styles, contents)]
    distances = texture_distances(looks[0].texture, looks[1].texture)
    color = color_distance(looks[0].color, looks[1].color)
    edges = edge_correlation(looks[0].edges, looks[2].edges)
    asked = torch.tensor([0.3, 0.6])
    told = torch.softmax(-distances / 0.15, dim=1).diagonal().log()
    each = (
        0.7 * distances.diagonal() + 0.3 * color + 0.2 * (asked - edges).clamp_min(0) - 0.4 * told
    )
    torch.testing.assert_close(given, (each / (1 + sigma)).mean())
    assert float(parts["edges"]) == pytest.approx(float(edges.mean()), abs=1e-5)


@pytest.mark.slow
def test_training_on_it_brings_texture_and_color(eps_folder: Path) -> None:
    loss, schedule, _ = _made(
        eps_folder, texture_weight=1.0, color_weight=1.0, structure_weight=0.0
    )
    latents, noise, times, text = _inputs(loss, [200, 500])
    batch = noised(schedule, latents, noise, times, None)
    optimizer = torch.optim.AdamW(loss.unet.parameters(), lr=1e-3)
    shown = []
    for _ in range(10):
        optimizer.zero_grad()
        loss(batch, text, PAIRS, torch.tensor([0.75, 0.75]))[0].backward()
        optimizer.step()
        shown.append({name: float(part) for name, part in loss.shown.items()})
    assert shown[-1]["texture"] < 0.95 * shown[0]["texture"]
    assert shown[-1]["color"] < 0.95 * shown[0]["color"]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.slow
def test_run_logs_the_parts(precision: str, eps_folder: Path, tmp_path: Path) -> None:
    """In a process of its own, since accelerate keeps one precision per process.

    Latents of 8 x 8 cells: torch 2.13 leaves part of a weight's gradient unset, NaN at times, where a convolution of
    stride 2 sees one cell in bfloat16 on the CPU, as with latents of 4 x 4.
    """
    spec = restyling(
        write_rows(tmp_path / "data"), eps_folder, tmp_path / "out",
        borrow={"share": 0.25, "restyle": 0.5}, style_loss={"share": 0.5, "ahead": 400},
        straighten={"share": 0.25},
    )  # fmt: skip
    config = tmp_path / "train.yaml"
    asked = json.loads(spec.model_dump_json(exclude_unset=True)) | {"precision": precision}
    asked["data"]["size"] = 64
    asked["phases"] = [{"windows": [{"size": 64, "batch": 4}]}]
    config.write_text(json.dumps(asked))
    command = [sys.executable, "-m", "stylebatch", "train", str(config)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    line = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss", "error", "texture", "color", "edges"} <= line.keys()
    assert 0 < line["texture"] < 2


@pytest.mark.parametrize(
    ("unet", "named"),
    [
        ({"style_loss": {}}, "style_loss takes its styles from the partners of `borrow`"),
        (
            {"borrow": {"share": 0.3}, "style_loss": {"begin": 30, "end": 20}},
            "begin 30 is not below end 20",
        ),
    ],
)
def test_mistakes_are_named(unet: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        restyling(tmp_path, tmp_path, tmp_path / "out", **unet)
