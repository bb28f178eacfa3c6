"""The measures against values known in closed form or published."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipelines.embedded.picture_distances import psnr, texture_distance
from stylebatch.data.images import Pixels
from stylebatch.pixel_memory import new_pixels
from stylebatch.quality.measures import (
    MEASURES,
    edge_correlation,
    lab_color_distance,
    measured,
    measures_of,
    srgb_to_lab,
)
from stylebatch.quality.reduction import Reduction
from tests.support.images import picture

CASTLE = Path(__file__).parents[2] / "manifests/demo/contents/building/castle.jpg"


def _flat(red: int, green: int, blue: int, side: int = 32) -> Pixels:
    return np.full((side, side, 3), (red, green, blue), np.uint8)


def _wave(seed: int, side: int = 96) -> Pixels:
    return np.asarray(picture(seed, side, side))


@pytest.mark.parametrize(
    ("color", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((5, 5, 5), (1.37, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(color: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    # Published values differ in the second decimal by how the matrix and the white point are rounded.
    assert srgb_to_lab(_flat(*color, side=1))[0, 0] == pytest.approx(lab, abs=0.03)


def test_colour_distance_of_two_greys_is_a_third_of_their_lightness_difference() -> None:
    assert lab_color_distance(_flat(0, 0, 0), _flat(255, 255, 255)) == pytest.approx(
        100 / 3, abs=0.01
    )


def test_colour_distance_ignores_places_and_sizes() -> None:
    image = _wave(1, 64)
    shuffled = np.random.default_rng(0).permutation(image.reshape(-1, 3)).reshape(image.shape)
    doubled = image.repeat(2, axis=0).repeat(2, axis=1)
    assert lab_color_distance(image, shuffled) == pytest.approx(0, abs=1e-9)
    assert lab_color_distance(image, doubled) == pytest.approx(0, abs=1e-9)
    assert lab_color_distance(_wave(2), image) == lab_color_distance(image, _wave(2)) > 1


def test_edges_survive_recolouring_and_not_replacement() -> None:
    image = _wave(3)
    assert edge_correlation(image, image) == pytest.approx(1)
    assert edge_correlation(image, 255 - image) == pytest.approx(1)
    assert abs(edge_correlation(image, image.transpose(1, 0, 2))) < 0.5
    assert edge_correlation(image, _flat(9, 9, 9, 96)) == 0


def test_psnr_of_a_constant_error() -> None:
    assert psnr(_flat(10, 20, 30), _flat(15, 15, 35)) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(_flat(1, 2, 3), _flat(1, 2, 3)) == math.inf


@pytest.mark.parametrize("measure", [psnr, edge_correlation])
def test_unequal_sizes_are_refused_with_both_shapes(measure: type) -> None:
    with pytest.raises(ValueError, match=r"\(32, 32, 3\) and \(16, 16, 3\)"):
        measure(_flat(0, 0, 0), _flat(0, 0, 0, 16))


def _quality(content: Pixels, style: Pixels, result: Pixels) -> dict[str, float]:
    return measured(Reduction(result), {"content": Reduction(content), "style": Reduction(style)})


def test_quality_of_a_copy_of_the_content() -> None:
    content, style = _wave(4, 512), _wave(5, 512)
    copy = _quality(content, style, content)
    assert copy["structure"] == pytest.approx(1)
    swapped = _quality(style, content, style)
    assert copy["color_distance"] == pytest.approx(swapped["color_distance"])
    assert _quality(content, style, style)["color_distance"] == 0


def test_quality_falls_with_blur() -> None:
    content = Image.fromarray(_wave(6, 256))
    blurred = [
        np.asarray(content.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 4, 16)
    ]
    sharp, soft, softest = (_quality(np.asarray(content), _wave(7), one) for one in blurred)
    for name in ("structure", "contrast", "content_copy"):
        assert sharp[name] > soft[name] > softest[name]


@pytest.mark.parametrize("result", [_flat(0, 0, 0, 8), _flat(255, 255, 255, 512), _wave(8, 100)])
def test_quality_is_finite_and_in_range_for_flat_small_and_odd_images(result: Pixels) -> None:
    found = _quality(_flat(40, 40, 40, 77), np.asarray(picture(9, 640, 50)), result)
    for measure in MEASURES:
        low, high = measure.range
        assert math.isfinite(found[measure.column])
        assert low <= found[measure.column] <= high
    assert found["structure"] == 0


def test_contrast_of_black_and_white_halves() -> None:
    halves = _flat(0, 0, 0, 128)
    halves[:, 64:] = 255
    assert _quality(halves, halves, halves)["contrast"] == pytest.approx(127.5)


def test_measures_are_those_whose_inputs_a_run_has() -> None:
    kinds_of_inputs = ("content", "style", "image", "mask", "reference")
    picture_of = {kind: Reduction(_wave(1)) for kind in kinds_of_inputs}
    alone = ["contrast", "sharpness", "clipping"]
    for kinds, columns in (
        ((), alone),
        (("image", "mask"), ["structure", "content_copy", *alone]),
        (("reference",), ["color_distance", "texture_distance", "style_copy", *alone]),
        (("content", "style"), [measure.column for measure in MEASURES]),
    ):
        assert [measure.column for measure in measures_of(kinds)] == columns
        found = measured(Reduction(_wave(2)), {kind: picture_of[kind] for kind in kinds})
        assert list(found) == columns


def test_reductions_measure_as_full_pictures_do_where_nothing_is_reduced() -> None:
    content, style, result = (_wave(seed, 64) for seed in (1, 2, 3))
    found = _quality(content, style, result)
    assert found["structure"] == pytest.approx(edge_correlation(content, result), abs=1e-4)
    assert found["color_distance"] == pytest.approx(lab_color_distance(style, result), abs=1e-3)


def _waves(period: float, angle: float, depth: float = 60.0, side: int = 256) -> Pixels:
    y, x = np.mgrid[0:side, 0:side].astype(float)
    phase = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period
    return np.repeat((128 + depth * np.sin(phase))[..., None], 3, axis=2).astype(np.uint8)


def _texture(first: Pixels, second: Pixels) -> float:
    return _quality(first, first, second)["texture_distance"]


def test_texture_is_scale_and_direction_and_neither_place_nor_contrast_nor_colour() -> None:
    fine = _waves(8, 0.3)
    assert _texture(fine, fine) == 0
    for alike in (_waves(8, 0.3, depth=30), np.roll(fine, 5, 1), fine // 2 + 60):
        assert _texture(fine, alike) < 0.05
    assert _texture(fine, _waves(32, 0.3)) > 0.9
    assert _texture(fine, _waves(8, 0.3 + math.pi / 2)) > 0.9
    assert _texture(fine, _flat(9, 9, 9)) == 1
    assert _texture(_flat(0, 0, 0), _flat(9, 9, 9)) == 0


def test_texture_of_a_long_picture_is_that_of_its_square() -> None:
    square, wide = _waves(8, 0.2, side=362), np.concatenate([_waves(8, 0.2)] * 2, 1)  # of one area
    assert _texture(square, wide) < 0.25
    assert _texture(square, wide.transpose(1, 0, 2)) > 0.75


def test_sharpness_of_a_photograph_falls_with_blur() -> None:
    photograph = Image.open(CASTLE).convert("RGB")
    blurred = [photograph.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 2, 6)]
    found = [_quality(one, one, one)["sharpness"] for one in map(np.asarray, blurred)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.45
    assert found[-1] < 0.28


@pytest.mark.parametrize(
    ("result", "lowest", "highest"),
    [
        (np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8), 0.98, 1.0),
        (np.repeat(np.arange(256, dtype=np.uint8), 256).reshape(256, 256)[..., None].repeat(3, 2), 0.24, 0.26),
        (_flat(7, 7, 7), 0.0, 0.0),
        (_flat(7, 7, 7, 1), 0.0, 0.0),
    ],
)  # fmt: skip
def test_sharpness_from_a_ramp_to_grain(result: Pixels, lowest: float, highest: float) -> None:
    assert lowest <= _quality(result, result, result)["sharpness"] <= highest


def test_copies_are_copies_and_recoloured_pictures_are_none() -> None:
    content, style = _wave(4, 200), _wave(5, 150)
    grain = np.random.default_rng(2).normal(0, 6, content.shape)
    noisy = np.clip(content + grain, 0, 255).astype(np.uint8)
    assert _quality(content, style, content)["content_copy"] == 1
    assert _quality(content, style, style)["style_copy"] == 1
    assert 0.95 < _quality(content, style, noisy)["content_copy"] < 1
    assert _quality(content, style, 255 - content)["content_copy"] == 0
    assert _quality(content, style, content)["style_copy"] < 0.3
    grey = _flat(9, 9, 9)
    assert _quality(grey, style, grey)["content_copy"] == 1
    assert _quality(grey, style, content)["content_copy"] == 0


def test_clipping_is_the_share_of_values_at_the_ends() -> None:
    halves = _flat(0, 255, 128, 128)  # two of three channels
    halves[:, 64:] = 3
    assert _quality(halves, halves, halves)["clipping"] == pytest.approx(1 / 3)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    kind=st.sampled_from(["noise", "flat", "black and white", "waves"]),
    has_four_bytes=st.booleans(),
)
def test_any_picture_is_measured_finite_in_range_and_whatever_its_memory(
    height: int, width: int, kind: str, has_four_bytes: bool
) -> None:
    random = np.random.default_rng(height * 1000 + width)
    pixels = {
        "noise": random.integers(0, 256, (height, width, 3), np.uint8),
        "flat": np.full((height, width, 3), 255, np.uint8),
        "black and white": random.integers(0, 2, (height, width, 1), np.uint8).repeat(3, 2) * np.uint8(255),
        "waves": _wave(3, max(height, width))[:height, :width],
    }[kind]  # fmt: skip
    found = _quality(_wave(1, 40), _wave(2, 80), pixels)
    if has_four_bytes:
        shared = new_pixels(height, width)
        shared[:] = pixels
        assert _quality(_wave(1, 40), _wave(2, 80), shared) == found
    assert _quality(pixels, pixels, pixels)["content_copy"] == 1
    for measure in MEASURES:
        low, high = measure.range
        assert low <= found[measure.column] <= high, measure.column


def test_texture_distance_sees_grain_and_direction_but_not_contrast_or_colour() -> None:
    y, x = np.mgrid[0:64, 0:64].astype(float)

    def waves(period: float, angle: float, depth: float = 60.0) -> Pixels:
        phase = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period
        return np.repeat((128 + depth * np.sin(phase))[..., None], 3, axis=2).astype(np.uint8)

    fine = waves(4, 0.3)
    assert texture_distance(fine, fine) == pytest.approx(0.0, abs=1e-9)
    assert texture_distance(fine, waves(4, 0.3, depth=30.0)) < 0.05
    assert texture_distance(fine, waves(16, 0.3)) > 0.8
    assert texture_distance(fine, waves(4, 1.9)) > 0.8
    flat = np.full((64, 64, 3), 7, dtype=np.uint8)
    assert math.isfinite(texture_distance(fine, flat))
    assert texture_distance(flat, flat) == 0.0
