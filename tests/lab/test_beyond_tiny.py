"""What the options beyond the paper do to pictures of the embedded model, with margins; small pictures, few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.embedded.evaluate import Evaluation, Variant
from pipelines.embedded.picture_distances import psnr
from stylebatch.data.images import Pixels, load_picture
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid.algorithm import Mixture, StyleID
from stylebatch.models.loading import load_model
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.quality.measures import edge_correlation, lab_color_distance

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "manifests" / "demo"
SIZE = 64


def pixels(name: str) -> Pixels:
    return load_picture(DEMO / name, SIZE).pixels


CONTENT = "contents/animal/macaw.jpg"
STYLES = ("styles/starry_night.jpg", "styles/carpet.jpg")


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    torch.set_num_threads(1)
    return load_model("tiny", device="cpu")


@pytest.fixture
def evaluation(model: StableDiffusion) -> Evaluation:
    """One content and both styles, after the defaults in 8 steps."""
    made = Evaluation(model, [DEMO / CONTENT], [DEMO / name for name in STYLES], SIZE)
    made.render(Variant("", StyleID(steps=8)))
    return made


def render(
    model: StableDiffusion,
    options: dict[str, Any],
    *,
    masks: Tensor | None = None,
    mixtures: list[Mixture] | None = None,
) -> list[Pixels]:
    """The content with both styles, or with blends of them."""
    method = StyleID.model_validate(options)
    content = model.encode(to_tensor([pixels(CONTENT)]))
    styles = model.encode(to_tensor([pixels(name) for name in STYLES]))
    queries, lent = (
        method.invert(model, content, "query"),
        method.invert(model, styles, "key_value"),
    )
    latents = method.stylise(model, queries, lent, masks=masks, mixtures=mixtures)
    return to_pixels(model.decode(latents))


FEW: dict[str, Any] = {"steps": 8, "grid": "spread", "solver": "ab2"}


def nearness(found: list[Pixels], expected: list[Pixels]) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(found, expected, strict=True)]))


def test_second_order_is_nearer_to_many_steps_at_equal_evaluations(model: StableDiffusion) -> None:
    many = render(model, {**FEW, "steps": 40})
    first, second = (
        nearness(render(model, {**FEW, "steps": 12, "solver": solver}), many)
        for solver in ("ddim", "ab2")
    )
    assert second > first + 2.5, (first, second)


def test_exact_inversion_returns_the_picture(model: StableDiffusion) -> None:
    latents = model.encode(to_tensor([pixels(CONTENT)]))

    def returned(**options: Any) -> float:
        method = StyleID(inject=False, steps=10, **options)
        again = method.reverse_plain(model, method.invert(model, latents, "query"))
        return nearness(*(to_pixels(model.decode(x)) for x in (again, latents)))

    ddim, bdia = returned(), returned(inversion="bdia")
    assert bdia > 60.0, bdia
    assert ddim < 40.0, ddim


def test_a_falling_gamma_gives_way_to_the_style(model: StableDiffusion) -> None:
    constant, falling = (
        np.mean([edge_correlation(pixels(CONTENT), found) for found in render(model, options)])
        for options in (FEW, {**FEW, "gamma_schedule": "sqrt", "gamma_end_share": 0.0})
    )
    assert falling < constant - 0.005, (falling, constant)


@pytest.mark.parametrize("blend", ["tokens", "outputs"])
def test_colours_of_a_blend_go_from_one_style_to_the_other(
    model: StableDiffusion, blend: str
) -> None:
    mixtures = [Mixture((0,)), Mixture((0, 1), (0.5, 0.5)), Mixture((1,))]
    found = render(model, {**FEW, "blend": blend}, mixtures=mixtures)
    to_first, to_second = (
        [lab_color_distance(picture, pixels(name)) for picture in found] for name in STYLES
    )
    assert to_first[0] < to_first[1] < to_first[2], to_first
    assert to_second[0] > to_second[1] > to_second[2], to_second


def test_outside_a_mask_the_picture_is_nearer_to_its_content(model: StableDiffusion) -> None:
    latents = model.encode(to_tensor([pixels(CONTENT)]))
    own, cells = to_pixels(model.decode(latents))[0], latents.shape[-1]
    mask = torch.zeros(1, 1, cells, cells)
    mask[..., : cells // 2] = 1.0
    half = slice(SIZE // 2 + SIZE // 8, None)
    masked, whole = (
        np.mean([psnr(found[:, half], own[:, half]) for found in render(model, FEW, masks=masks)])
        for masks in (mask, None)
    )
    assert masked > whole + 3.0, (masked, whole)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 8, "start": "paper"},
        {**FEW, "start": "level"},
        {**FEW, "solver": "dpmpp_2m"},
        {"steps": 8, "inversion": "bdia"},
        {"steps": 8, "sites": [6, 7]},
        {"steps": 8, "gamma": 0.3},
    ],
    ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()),
)
def test_an_evaluation_shares_inversions_only_where_they_are_the_same(
    model: StableDiffusion, evaluation: Evaluation, options: dict[str, Any]
) -> None:
    found = evaluation.render(Variant("", StyleID.model_validate(options)))
    expected = render(model, options)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    kept = len(evaluation._inversions)
    assert kept == (2 if options == {"steps": 8, "gamma": 0.3} else 4)
