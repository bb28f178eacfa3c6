"""The arithmetic of evaluations against independent implementations: torchmetrics, scipy's matrix root, loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from stylebatch.evaluation.colour_histogram import histogram_loss, rgb_uv_histogram
from stylebatch.evaluation.distances import (
    art_fid,
    frechet_distance,
    kernel_distance,
    set_consistency,
)
from stylebatch.evaluation.map_distances import perceptual_distance, self_similarity_distance
from stylebatch.evaluation.pareto import front
from stylebatch.evaluation.preparing import like_tensorflow, with_shorter_side
from stylebatch.evaluation.resampling import drawn_values, interval, weights_of_draws

Floats = NDArray[np.float64]


def _features(seed: int, count: int, width: int) -> Floats:
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(count, width)) @ generator.normal(size=(width, width))
    return mixed + generator.normal(size=width)


def _ones(features: Floats) -> Floats:
    return np.ones(len(features))


@pytest.mark.parametrize(("n1", "n2"), [(60, 90), (9, 90), (9, 7), (2, 2), (200, 3)])
def test_frechet_distance_is_that_of_torchmetrics_and_of_a_matrix_root(n1: int, n2: int) -> None:
    """Also of fewer rows than features, where the product of the covariances has no unique root."""
    first, second = _features(1, n1, 24), _features(2, n2, 24)
    found = frechet_distance(first, second, _ones(first), _ones(second))
    moments = [
        torch.from_numpy(part)
        for x in (first, second)
        for part in (x.mean(0), np.cov(x, rowvar=False))
    ]
    assert found == pytest.approx(float(_compute_fid(*moments)), rel=1e-5)
    if min(n1, n2) > 24:
        one, other = (np.cov(x, rowvar=False) for x in (first, second))
        root = scipy.linalg.sqrtm(one @ other).real
        gap = ((first.mean(0) - second.mean(0)) ** 2).sum()
        assert found == pytest.approx(gap + np.trace(one + other - 2 * root), rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9), counts=st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_a_row_that_counts_twice_is_as_two_rows(seed: int, counts: list[int]) -> None:
    first, second = _features(seed, 8, 5), _features(seed + 50, 6, 5)
    weights = np.array(counts, float)
    if sum(counts) < 2:
        with pytest.raises(ValueError, match="2 or more"):
            frechet_distance(first, second, weights, _ones(second))
        return
    repeated = np.repeat(first, counts, axis=0)
    if len(np.unique(np.flatnonzero(counts))) < 2:
        return
    expected = frechet_distance(repeated, second, _ones(repeated), _ones(second))
    assert frechet_distance(first, second, weights, _ones(second)) == pytest.approx(expected)
    other_way = frechet_distance(second, first, _ones(second), weights)
    assert other_way == pytest.approx(expected)
    assert frechet_distance(first, first, weights, weights) == pytest.approx(0.0, abs=1e-6)


def test_kernel_distance_is_that_of_torchmetrics_and_leaves_out_copies() -> None:
    first, second = _features(3, 40, 16), _features(4, 40, 16)
    found = kernel_distance(first, second, _ones(first), _ones(second))
    expected = float(poly_mmd(torch.from_numpy(first), torch.from_numpy(second)))
    assert found == pytest.approx(expected, rel=1e-9)
    # every row twice: pairs of copies do not count
    twice = kernel_distance(first, second, 2 * _ones(first), 2 * _ones(second))
    assert twice == pytest.approx(expected, rel=1e-9)
    parts = kernel_distance(
        np.tile(first, (60, 1)), second, np.repeat([1.0, 0.0], [40, 2360]), _ones(second)
    )
    assert parts == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="2 or more"):
        kernel_distance(first[:1], second, _ones(first[:1]), _ones(second))
    assert art_fid(0.505, 18.13) == pytest.approx(28.79, abs=0.01)


def test_set_consistency_is_the_mean_over_pairs_within_sets() -> None:
    features = _features(5, 9, 6)
    sets = np.array([0, 1, 0, 2, 1, 0, 1, 1, 0])
    expected = []
    for number in (0, 1):
        rows = features[sets == number]
        pairs = [
            float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            for i, a in enumerate(rows)
            for j, b in enumerate(rows)
            if i != j
        ]
        expected.append(np.mean(pairs))
    assert set_consistency(features, sets, np.ones(9)) == pytest.approx(np.mean(expected))
    with pytest.raises(ValueError, match="two or more"):
        set_consistency(features[:2], np.array([0, 1]), np.ones(2))


def test_the_histogram_is_that_of_loops_over_pixels() -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    pixels[0, 0] = 0  # log of nothing
    expected = np.zeros((3, 64, 64))
    bins = np.linspace(-3, 3, 64)
    for red, green, blue in pixels.reshape(-1, 3) / 255.0:
        logs = [math.log(value + 1e-6) for value in (red, green, blue)]
        strength = math.sqrt(red**2 + green**2 + blue**2 + 1e-6)
        for channel, (a, b) in enumerate(((1, 2), (0, 2), (0, 1))):
            for i, u in enumerate(bins):
                for j, v in enumerate(bins):
                    one = 1 / (1 + (abs(logs[channel] - logs[a] - u) / 0.02) ** 2)
                    other = 1 / (1 + (abs(logs[channel] - logs[b] - v) / 0.02) ** 2)
                    expected[channel, i, j] += strength * one * other
    expected /= expected.sum() + 1e-6
    found = rgb_uv_histogram(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert histogram_loss(found, found) == 0.0
    large = np.repeat(np.repeat(pixels, 80, 0), 60, 1)  # 320 x 300: reduced to 256 x 256
    assert 0.0 < histogram_loss(found, rgb_uv_histogram(large)) < 0.3
    black = rgb_uv_histogram(np.zeros((4, 4, 3), np.uint8))
    assert histogram_loss(found, black) <= 1.0


def test_distances_of_maps_are_those_of_their_formulas() -> None:
    generator = torch.Generator().manual_seed(7)
    maps = [[torch.rand((1, c, 6, 5), generator=generator) * 20 for c in (3, 8)] for _ in range(2)]
    weights = [torch.rand(c, generator=generator) for c in (3, 8)]
    expected = 0.0
    for layer in range(2):
        one, other = (m[layer][0].numpy().astype(float) for m in maps)
        one, other = (x / np.sqrt((x**2).sum(0)) for x in (one, other))
        weight = weights[layer].numpy().astype(float)[:, None, None]
        expected += float((weight * (one - other) ** 2).sum(0).mean())
    assert perceptual_distance(*maps, weights) == pytest.approx(expected, rel=1e-5)
    assert perceptual_distance(maps[0], maps[0]) == 0.0

    result, content = maps[0][1], maps[1][1]
    logs = []
    for one in (result, content):
        rows = one.permute(0, 2, 3, 1).reshape(30, 8) / 8
        logs.append(torch.log_softmax(rows @ rows.T, -1).double())
    kl = torch.nn.functional.kl_div(logs[0], logs[1], reduction="sum", log_target=True)
    assert self_similarity_distance(result, content) == pytest.approx(float(kl), rel=1e-5)
    assert self_similarity_distance(result, result) == pytest.approx(0.0, abs=1e-9)


def test_pictures_are_resized_as_the_definitions_say() -> None:
    images = torch.arange(2 * 3 * 7 * 5, dtype=torch.float32).reshape(2, 3, 7, 5) ** 1.5
    found = like_tensorflow(images, 11)
    assert found.shape == (2, 3, 11, 11)
    for i in range(11):
        for j in range(11):
            y, x = i * 7 / 11, j * 5 / 11
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 6), min(left + 1, 4)
            upper = images[..., top, left] * (1 - x + left) + images[..., top, right] * (x - left)
            lower = images[..., bottom, left] * (1 - x + left) + images[..., bottom, right] * (
                x - left
            )
            expected = upper * (1 - y + top) + lower * (y - top)
            torch.testing.assert_close(found[..., i, j], expected, rtol=1e-4, atol=1e-2)
    pixels = np.zeros((64, 96, 3), np.uint8)
    assert with_shorter_side(pixels, 32).shape == (32, 48, 3)
    assert with_shorter_side(pixels.transpose(1, 0, 2), 128).shape == (192, 128, 3)


def test_intervals_know_that_samples_share_styles() -> None:
    """400 samples of 4 styles that differ much are no 400 draws."""
    styles, contents = np.repeat(np.arange(4), 100), np.tile(np.arange(100), 4)
    values = styles * 10.0 + np.random.default_rng(8).normal(size=400)

    def mean(weights: Floats) -> float:
        if not weights.sum():
            raise ValueError("nothing")
        return float(weights @ values / weights.sum())

    value = mean(np.ones(400))
    found = interval(value, drawn_values(mean, weights_of_draws([contents, styles], 200)))
    each = interval(value, drawn_values(mean, weights_of_draws([np.arange(400)], 200)))
    assert found is not None
    assert each is not None
    assert found.high - found.low > 5 * (each.high - each.low)
    assert found.low < values.mean() < found.high
    again = interval(value, drawn_values(mean, weights_of_draws([contents, styles], 200)))
    assert found == again
    assert interval(1.0, drawn_values(mean, weights_of_draws([contents], 10))) is None
    # of one content and one style nothing can be drawn: no interval of no width
    alone = np.zeros(400, np.int64)
    assert interval(1.0, drawn_values(mean, weights_of_draws([alone, alone], 200))) is None


_POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(points=_POINTS)
def test_the_front_holds_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    kept = front(points)
    assert kept
    for place, (x, y) in enumerate(points):
        beaten = any(a <= x and b <= y and (a < x or b < y) for a, b in points)
        assert (place in kept) is not beaten
    assert [points[place] for place in kept] == sorted(points[place] for place in kept)
