"""Another autoencoder by path: the stock pipeline with the same one, and refused where its latents are of another kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylebatch.cli import main
from stylebatch.diffusion.noise import draw
from stylebatch.errors import ManifestError
from stylebatch.methods.builtin import Img2Img
from stylebatch.methods.samples import Samples
from stylebatch.models.checkpoint import checkpoint_to_plan, find_checkpoint
from stylebatch.models.loading import check_model, load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.checkpoints import with_config
from tests.support.runs import small_manifest
from tests.support.single_files import original_vae, write_single_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
PROMPTS, SEEDS = ["a cat", "two houses in the rain"], [3, 8]


@pytest.fixture(scope="module")
def other(
    twins: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`other(name, kind)`: an autoencoder with the config of a twin's and weights of its own, as a folder or a file."""
    made: dict[tuple[str, str], Path] = {}

    def of(name: str, kind: str = "folder") -> Path:
        if (name, "folder") not in made:
            torch.manual_seed(7)
            folder = tmp_path_factory.mktemp(f"vae-{name}")
            config = AutoencoderKL.load_config(str(twins(name)), subfolder="vae")
            AutoencoderKL.from_config(config).save_pretrained(folder)
            made[name, "folder"] = folder
        folder = made[name, "folder"]
        if (name, kind) not in made:
            made[name, kind] = written(folder, kind)
        return made[name, kind]

    return of


def written(folder: Path, kind: str) -> Path:
    state = load_file(folder / WEIGHTS)
    target = folder.parent / f"{folder.name}-{kind}.safetensors"
    if kind == "pipeline":
        target = target.with_suffix("")
        shutil.copytree(folder, target / "vae")
    elif kind == "file":
        save_file(state, target)
    else:  # as `vae-ft-mse-840000-ema-pruned.safetensors` has them, and as whole checkpoints do
        prefix = "first_stage_model." if kind == "part" else ""
        extra = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.ones(())}
        named = {prefix + key: x.contiguous() for key, x in (original_vae(state) | extra).items()}
        save_file(named, target)
    return target


def images() -> Tensor:
    return draw([20, 21], (3, 64, 64)).clamp(-1, 1)


@pytest.mark.parametrize(
    "name", ["sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd21", "sdxl"))]
)
def test_img2img_is_the_stock_pipeline_with_that_autoencoder(
    name: str, other: Callable[..., Path], twins: Callable[[str], Path]
) -> None:
    vae = AutoencoderKL.from_pretrained(other(name))
    cls: Any = (
        StableDiffusionXLImg2ImgPipeline if name == "sdxl" else StableDiffusionImg2ImgPipeline
    )
    options = {"add_watermarker": False} if name == "sdxl" else {"safety_checker": None}
    stock = cls.from_pretrained(twins(name), vae=vae, **options)
    stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    # a stock pipeline draws from the posterior, and its mean is what a method takes
    clean = vae.encode(images()).latent_dist.mode() * vae.config.scaling_factor
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    settings = {"strength": 0.5, "num_inference_steps": 4, "guidance_scale": 5.0}
    expected = stock(
        PROMPTS, image=clean, generator=generators, output_type="pt", **settings
    ).images

    model = load_model(ModelSpec(path=str(twins(name)), vae=str(other(name))), device="cpu")
    asked = Samples(tuple(PROMPTS), (None, None), tuple(SEEDS), (4, 8, 8), {"image": images()})
    made = Img2Img(strength=0.5, steps=4, guidance=5.0).render(model, asked)
    assert float((model.decode(made) / 2 + 0.5 - expected).abs().max()) <= 1e-4
    before = load_model(twins(name), device="cpu")
    assert float((before.encode(images()) - model.encode(images())).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd15", "pipeline"),
        ("sd15", "file"),
        ("sd15", "original"),
        pytest.param("sdxl", "part", marks=pytest.mark.slow),
    ],
)
def test_each_way_to_name_one_loads_the_same(
    name: str, kind: str, other: Callable[..., Path], twins: Callable[[str], Path]
) -> None:
    path = other(name, kind)
    stock = AutoencoderKL.from_pretrained(other(name)).state_dict()
    spec = ModelSpec(path=str(twins(name)), vae=str(path))
    check_model(spec)
    loaded = load_model(spec, device="cpu")
    assert isinstance(loaded, StableDiffusion)
    found = loaded.vae.state_dict()
    assert found.keys() == stock.keys()
    assert all(torch.equal(found[key], stock[key]) for key in stock)
    assert loaded.vae.config.scaling_factor == (0.13025 if name == "sdxl" else 0.18215)
    about = find_checkpoint(spec).family.about()
    assert about.parameters["vae"] == sum(x.numel() for x in stock.values())


@pytest.mark.slow
def test_a_single_file_may_lack_its_autoencoder(
    other: Callable[..., Path], twins: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = write_single_file(twins("sd15"), tmp_path / "whole.safetensors")
    rest = {
        key: x for key, x in load_file(whole).items() if not key.startswith("first_stage_model.")
    }
    save_file(rest, tmp_path / "pruned.safetensors")
    places = {"path": str(tmp_path / "pruned.safetensors"), "config": str(twins("sd15"))}
    with pytest.raises(ManifestError, match=r"without first_stage_model"):
        find_checkpoint(ModelSpec(**places))
    model = load_model(ModelSpec(**places, vae=str(other("sd15", "original"))), device="cpu")
    stock = AutoencoderKL.from_pretrained(other("sd15"))
    expected = stock.encode(images()).latent_dist.mode() * 0.18215
    torch.testing.assert_close(model.encode(images()), expected, rtol=1e-5, atol=1e-5)


UNFIT = {
    "channels": ({"latent_channels": 8}, r"latent_channels: found 8; accepted: 4, the channels of latents"),
    "factor": ({"scaling_factor": 0.13025}, r"scaling_factor: found 0\.13025; accepted: 0\.18215, the factor"),
    "shift": ({"shift_factor": 0.1}, r"shift_factor: found 0\.1; accepted: 0, the shift of latents"),
    "class": ({"_class_name": "AutoencoderTiny"}, r"_class_name: found 'AutoencoderTiny'; accepted: AutoencoderKL"),
    "statistics": ({"latents_mean": [0.0] * 4}, r"latents_mean: found .*; accepted: null"),
}  # fmt: skip


@pytest.mark.parametrize("fault", UNFIT)
def test_latents_of_another_kind_are_refused(
    fault: str, other: Callable[..., Path], twins: Callable[[str], Path], tmp_path: Path
) -> None:
    settings, match = UNFIT[fault]
    vae = with_config(other("sd15"), tmp_path / "vae", "config.json", **settings)
    with pytest.raises(ManifestError, match=match) as caught:
        find_checkpoint(ModelSpec(path=str(twins("sd15")), vae=str(vae)))
    assert f"{vae}/config.json" in str(caught.value)


def test_an_autoencoder_of_fewer_levels_is_refused(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    config = dict(AutoencoderKL.load_config(str(twins("sd15")), subfolder="vae"))
    for name in ("block_out_channels", "down_block_types", "up_block_types"):
        config[name] = config[name][:3]
    AutoencoderKL.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        ManifestError, match=r"found 3; accepted: 4 levels \(8 pixels per latent cell\)"
    ):
        find_checkpoint(ModelSpec(path=str(twins("sd15")), vae=str(tmp_path)))


def test_the_autoencoder_of_another_family_is_refused(
    other: Callable[..., Path], twins: Callable[[str], Path]
) -> None:
    """The published ones of 1.x and XL differ in nothing but their factor; also where a name alone is planned with."""
    for spec in (
        ModelSpec(path=str(twins("sdxl")), vae=str(other("sd15"))),
        ModelSpec(name="sdxl", vae=str(other("sd15"))),
    ):
        with pytest.raises(
            ManifestError, match=r"model\.vae: .*found 0\.18215; accepted: 0\.13025"
        ):
            checkpoint_to_plan(spec)


def broken(kind: str, source: Path, target: Path) -> Path:
    """What people name by mistake."""
    state = load_file(source)
    if kind == "cut":
        target.write_bytes(source.read_bytes()[:-1000])
        return target
    if kind == "missing":
        del state["decoder.conv_out.weight"]
    elif kind == "left":
        state["decoder.extra.weight"] = torch.zeros(3)
    elif kind == "shape":
        state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"][:, :2].contiguous()
    elif kind == "numbers":
        state["decoder.conv_out.bias"] = torch.full((3,), torch.nan)
    else:
        state = {"unet.mid_block.to_q.lora_A.weight": torch.zeros(2, 3)}
    save_file(state, target)
    return target


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("cut", "its header describes"),
        ("missing", r"the vae lacks decoder\.conv_out\.weight"),
        ("left", r"the vae holds decoder\.extra\.weight"),
        ("shape", r"decoder\.conv_in\.weight of the vae is F32 of shape"),
        (
            "numbers",
            r"model\.vae: .*decoder\.conv_out\.bias of AutoencoderKL holds values that are not finite",
        ),
        ("lora", r"model\.vae: .*found keys that begin with unet; accepted: an AutoencoderKL"),
    ],
)
def test_files_that_are_no_whole_autoencoder_are_refused(
    kind: str, match: str, other: Callable[..., Path], twins: Callable[[str], Path], tmp_path: Path
) -> None:
    path = broken(kind, other("sd15", "file"), tmp_path / "x.safetensors")
    spec = ModelSpec(path=str(twins("sd15")), vae=str(path))
    with pytest.raises(ManifestError, match=match) as caught:
        load_model(spec, device="cpu")
    assert str(path) in str(caught.value)
    if kind != "numbers":  # seen without loading
        with pytest.raises(ManifestError, match=match):
            check_model(spec)


def test_paths_that_hold_no_autoencoder_are_refused(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    for path, match in (
        (tmp_path / "none", "found no such file or folder"),
        (tmp_path / "none.safetensors", "found no such file or folder"),
        (tmp_path, r"found no config\.json in it or in its vae/"),
    ):
        with pytest.raises(ManifestError, match=rf"model\.vae: .*{match}; accepted: a folder"):
            find_checkpoint(ModelSpec(path=str(twins("sd15")), vae=str(path)))
    with pytest.raises(ValueError, match=r"`vae`: found 'x\.pt', pickled weights"):
        ModelSpec(name="sd15", vae="x.pt")


def test_the_fingerprint_follows_its_content(
    other: Callable[..., Path], twins: Callable[[str], Path], tmp_path: Path
) -> None:
    def fingerprint(vae: Path | None) -> str:
        spec = ModelSpec(path=str(twins("sd15")), vae=None if vae is None else str(vae))
        return find_checkpoint(spec).fingerprint

    moved = shutil.copytree(other("sd15"), tmp_path / "moved")
    first = fingerprint(other("sd15"))
    assert fingerprint(moved) == first == fingerprint(other("sd15", "pipeline"))
    assert fingerprint(None) not in (first, fingerprint(other("sd15", "file")))
    data = bytearray((moved / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (moved / WEIGHTS).write_bytes(data)
    assert fingerprint(moved) != first


def test_an_output_is_not_continued_with_another_autoencoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its name in a manifest is relative to that; the style cache keeps features of each apart."""
    manifest = small_manifest(tmp_path, contents=2, styles=1)
    torch.manual_seed(1)
    config = AutoencoderKL.load_config("stylebatch/models/tiny", subfolder="vae")
    AutoencoderKL.from_config(config).save_pretrained(tmp_path / "mine")
    plain = json.loads(manifest.read_text()) | {"features": {"cache": str(tmp_path / "cache")}}
    manifest.write_text(json.dumps(plain))
    assert main(["run", str(manifest)]) == 0
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1
    changed = plain | {"model": {"name": "tiny", "vae": "mine"}}
    manifest.write_text(json.dumps(changed))
    capsys.readouterr()
    for verb in ("plan", "run"):
        assert main([verb, str(manifest)]) == 4
        found = capsys.readouterr().err
        assert f'model.vae: null -> "{tmp_path}/mine"' in found, found
        assert "fingerprint" not in found
    changed["output"] = plain["output"] | {"path": str(tmp_path / "second")}
    manifest.write_text(json.dumps(changed))
    assert main(["run", str(manifest)]) == 0
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 2
    run = json.loads((tmp_path / "second" / "run.json").read_text())
    assert run["spec"]["model"]["vae"] == f"{tmp_path}/mine"
