"""Planned memory of an evaluation and of the autoencoder against the tensors that are alive at once, on small networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode

import stylebatch
from pipelines.proofs.published import PUBLISHED
from stylebatch import load_spec
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.memory import WORKSPACE
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.resolve import plan
from tests.support.checkpoints import with_config
from tests.support.live_tensors import LiveTensors
from tests.support.runs import small_manifest

NETWORKS = ("tiny", "sd15", "sd21", "sdxl")
SHAPES = [(128, 128), (256, 128)]


@pytest.fixture(scope="module", params=NETWORKS)
def loaded(
    request: pytest.FixtureRequest, twins: Callable[[str], Path]
) -> tuple[Checkpoint, StableDiffusion]:
    checkpoint = Checkpoint(TINY if request.param == "tiny" else twins(request.param))
    return checkpoint, load_checkpoint(checkpoint, device="cpu")


@pytest.mark.parametrize("size", SHAPES)
def test_a_row_takes_what_is_planned(
    loaded: tuple[Checkpoint, StableDiffusion], size: tuple[int, int]
) -> None:
    checkpoint, model = loaded
    factor, cond = checkpoint.family.sizes.latent_factor, model.embed(["a prompt"])
    peaks = []
    for rows in (1, 3):
        x = torch.randn(rows, model.latent_channels, size[1] // factor, size[0] // factor)
        live = LiveTensors([*model.unet.parameters(), *model.unet.buffers(), x, cond.hidden])
        with torch.inference_mode(), live:
            model.predict_noise(x, 501, cond)
        peaks.append(live.peak)
    row = checkpoint.family.memory(size, 4).row
    planned = row / WORKSPACE
    assert planned == pytest.approx((peaks[1] - peaks[0]) / 2, rel=0.05)
    assert peaks[1] <= 3 * row <= 1.5 * peaks[1]


@pytest.mark.parametrize("size", SHAPES)
def test_a_picture_takes_what_is_planned(
    loaded: tuple[Checkpoint, StableDiffusion], size: tuple[int, int]
) -> None:
    checkpoint, model = loaded
    images = torch.zeros(1, 3, size[1], size[0])
    live = LiveTensors([*model.vae.parameters(), *model.vae.buffers(), images])
    with torch.inference_mode(), live:
        model.decode(model.encode(images))
    assert live.peak <= checkpoint.family.memory(size, 4).picture <= 1.5 * live.peak


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_a_row_at_full_size_takes_what_is_planned(name: str, tmp_path: Path) -> None:
    """The published configs, with tensors that have shapes and no memory."""
    published = PUBLISHED[name]
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(dict(published.configs[part])))
    config, side = dict(published.configs["unet"]), published.native_size // 8
    with FakeTensorMode(), torch.inference_mode():
        unet = UNet2DConditionModel(**config).eval()
        x, hidden = torch.zeros(1, 4, side, side), torch.zeros(1, 77, config["cross_attention_dim"])
        added = None
        if name == "sdxl":
            added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
        live = LiveTensors([*unet.parameters(), *unet.buffers(), x, hidden])
        with live:
            unet(x, 501, encoder_hidden_states=hidden, added_cond_kwargs=added)
    planned = Checkpoint(tmp_path).family.memory((published.native_size,) * 2, 4).row
    assert planned / WORKSPACE == pytest.approx(live.peak, rel=0.01)


def test_the_autoencoder_takes_as_many_pictures_as_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = small_manifest(tmp_path, contents=4, styles=1)
    one = Checkpoint(TINY).family.memory((32, 32), 4).picture / 2**30
    sizes: list[int] = []
    decode = StableDiffusion.decode_unclamped

    def counted(model: StableDiffusion, latents: torch.Tensor) -> torch.Tensor:
        inner = model.vae.decode
        with monkeypatch.context() as patch:
            patch.setattr(
                model.vae, "decode", lambda part: (sizes.append(len(part)), inner(part))[1]
            )
            return decode(model, latents)

    monkeypatch.setattr(StableDiffusion, "decode_unclamped", counted)
    tight = load_spec(
        manifest, [f"engine.batch_gb={2.5 * one}", "engine.feature_gb=1", "output.shard_size=4"]
    )
    assert (plan(tight).pictures, plan(tight).identity["pictures"]) == (2, 2)
    assert plan(tight).batch > 2
    rows = pq.read_table(next(stylebatch.run(tight).output.glob("metadata/*00.parquet")))
    assert rows["status"].to_pylist() == ["success"] * 4
    assert sizes == [2, 2]
    assert "pictures" not in plan(load_spec(manifest)).identity


def test_tiles_bound_what_a_picture_takes(tmp_path: Path) -> None:
    folder = with_config(TINY, tmp_path / "model", "vae/config.json", sample_size=128)
    whole, tiled = Checkpoint(folder), Checkpoint(folder, vae_passes=("tiling",))
    of_whole, of_tile = (one.family.memory((256, 256), 4).picture for one in (whole, tiled))
    assert of_whole == 4 * of_tile
