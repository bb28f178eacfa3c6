"""The embedded model is the one described, loads anywhere, and does what the method promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.embedded.picture_distances import psnr
from stylebatch.data.images import Pixels, load_picture
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.quality.measures import edge_correlation, lab_color_distance

DEMO = Path(__file__).parents[2] / "manifests" / "demo"
CONTENTS = ("animal/macaw.jpg", "building/castle.jpg", "object/coffee.jpg")
STYLES = ("starry_night.jpg", "carpet.jpg", "night_cafe.jpg")


def _pixels(folder: str, names: tuple[str, ...]) -> list[Pixels]:
    return [load_picture(DEMO / folder / name, 128).pixels for name in names]


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    torch.set_num_threads(1)
    return load_model("tiny", device="cpu")


def test_weights_are_those_of_the_card() -> None:
    checkpoint = Checkpoint(TINY)
    assert (TINY / "FINGERPRINT").read_text().strip() == checkpoint.fingerprint
    assert checkpoint.sites == tuple(range(3, 12))
    assert (checkpoint.family.sizes.native, checkpoint.family.sizes.latent_factor) == (128, 4)
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) < 20_000_000


def test_stock_diffusers_loads_it() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(TINY), safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    image = pipeline("a photo of a castle", num_inference_steps=2, generator=noise).images[0]
    assert image.size == (128, 128)
    assert np.asarray(image).std() > 5


def test_autoencoder_keeps_the_picture(model: StableDiffusion) -> None:
    pixels = _pixels("contents", CONTENTS) + _pixels("styles", STYLES)
    again = to_pixels(model.decode(model.encode(to_tensor(pixels))))
    assert np.mean([psnr(a, b) for a, b in zip(pixels, again, strict=True)]) > 25.5


def test_inversion_and_reverse_return_to_the_start(model: StableDiffusion) -> None:
    method = StyleID(steps=20, inject=False, init_adain=False)
    latents = model.encode(to_tensor(_pixels("contents", CONTENTS)))
    inverted = method.invert(model, latents, "query")
    assert 0.5 < float(inverted.latent.std()) < 1.5
    decoded, returned = model.decode(latents), model.decode(method.reverse_plain(model, inverted))
    mse = ((decoded - returned) / 2).square().mean(dim=(1, 2, 3))
    assert float((-10 * mse.log10()).mean()) > 27.5


def test_colour_moves_to_the_style_and_structure_stays(model: StableDiffusion) -> None:
    contents, styles = _pixels("contents", CONTENTS), _pixels("styles", STYLES)
    method = StyleID(steps=5)
    queries = method.invert(model, model.encode(to_tensor(contents)), "query")
    keys_values = method.invert(model, model.encode(to_tensor(styles)), "key_value")
    results = to_pixels(model.decode(method.stylise(model, queries, keys_values)))
    before, after, structure = [], [], []
    for index, result in enumerate(results):
        content, style = contents[index % len(contents)], styles[index // len(contents)]
        before.append(lab_color_distance(content, style))
        after.append(lab_color_distance(result, style))
        structure.append(edge_correlation(content, result))
    assert np.mean(after) < 0.6 * np.mean(before)
    assert np.mean(structure) > 0.5


def test_injection_changes_the_picture_beyond_adain(model: StableDiffusion) -> None:
    content = model.encode(to_tensor(_pixels("contents", CONTENTS[:1])))
    style = model.encode(to_tensor(_pixels("styles", STYLES[:1])))
    results = []
    for inject in (True, False):
        method = StyleID(steps=5, inject=inject)
        latents = method.stylise(
            model, method.invert(model, content, "query"), method.invert(model, style, "key_value")
        )
        results.append(to_pixels(model.decode(latents))[0].astype(float))
    assert np.abs(results[0] - results[1]).mean() > 3.0
