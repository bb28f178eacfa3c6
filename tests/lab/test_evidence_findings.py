"""Mixtures, intervals, corruptions and classifiers of the evidence, and what is concluded from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evidence import corruptions, experiment, findings, image_sets, mixtures
from pipelines.evidence.classifier import Training, predictions, trained
from pipelines.evidence.intervals import interval, student


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    ratios=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    styles=st.integers(1, 7),
    seed=st.integers(0, 3),
)
def test_a_ratio_changes_its_share_of_every_class_and_styles_tell_no_class(
    labels: list[int], ratios: list[float], styles: int, seed: int
) -> None:
    low, high = sorted(ratios)
    few, many = (mixtures.changed(labels, ratio, seed) for ratio in (low, high))
    assert not (few & ~many).any()
    for label in set(labels):
        own = np.array(labels) == label
        assert few[own].sum() == round(low * own.sum())
        numbers = np.array(mixtures.style_numbers(labels, styles))[own]
        uses = np.bincount(numbers, minlength=styles)
        assert len(uses) == styles
        assert uses.max() - uses.min() <= 1


def test_every_mixture_has_the_same_number_of_images_and_steps() -> None:
    labels = np.repeat(np.arange(3), 5)
    guise = {name: np.full((15, 4, 4, 3), value, np.uint8) for name, value in
             (("plain", 1), ("styled", 2), ("coloured", 3), ("unhinted", 4))}  # fmt: skip
    data = experiment.Data(
        guise["plain"], labels, {1: guise["styled"], 2: guise["styled"]},
        {1: guise["coloured"], 2: guise["coloured"]}, guise["unhinted"], {}, {}, {}, 3,
    )  # fmt: skip
    compared = mixtures.mixtures((0.4, 1), (2, 1), has_unhinted=True)
    assert compared[0] == mixtures.Mixture("stylised", 0.0, 2)
    assert len({mixture.name for mixture in compared}) == len(compared) == 8
    for mixture in compared:
        pixels = data.mixed(mixture, 1)
        assert pixels.shape == data.originals.shape
        value = {"stylised": 2, "colours": 3, "unhinted": 4}[mixture.guise]
        assert set(np.unique(pixels)) <= {1, value}
        # each class has its share: no class is recognised by its guise
        for label in range(3):
            assert (pixels[labels == label, 0, 0, 0] == value).sum() == round(mixture.ratio * 5)
    assert Training(epochs=3, batch=4).steps(15) == 12
    with pytest.raises(ValueError, match=r"--ratios 1\.5"):
        mixtures.mixtures((0.5, 1.5), (1,), has_unhinted=False)


def test_students_quantiles_are_those_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 30: 2.0423, 1000: 1.9623}
    for freedom, value in table.items():
        assert student(freedom) == pytest.approx(value, rel=3e-4)


def test_intervals_hold_what_they_are_of() -> None:
    """Simulated seeds and images, each with an effect of its own: at least 95 % of intervals hold the true gain."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        chance = 0.5 + rng.normal(0, 0.1, (3, 1)) + rng.uniform(-0.3, 0.3, (1, 60))
        hits = [rng.random((3, 60)) < np.clip(chance + gain, 0, 1) for gain in (0.0, 0.1)]
        found = interval(hits[1].astype(float) - hits[0])
        held += abs(found.mean - 0.1) <= found.half
    assert held >= 0.93 * 400


def test_an_interval_is_as_wide_as_seeds_or_images_make_it() -> None:
    seeds = np.repeat([[0.0], [1.0], [1.0], [0.0]], 50, axis=1)
    assert interval(seeds).half == pytest.approx(
        np.hypot(3.1824 * np.sqrt(1 / 3) / 2, 1.96 * np.sqrt(0.02 * 0.98 / 50)), rel=1e-3
    )
    images = np.tile([0.0, 1.0], (4, 50))
    assert interval(images).half == pytest.approx(1.96 * np.sqrt(100 / 99) * 0.05, rel=1e-3)
    assert not interval(np.zeros((3, 40))).parts_from_zero
    assert interval(np.ones((3, 40))).half == pytest.approx(
        1.96 * np.sqrt(0.025 * 0.975 / 40), rel=1e-3
    )
    for shape in ((1, 40), (3, 1)):
        with pytest.raises(ValueError, match="needs 2 of each"):
            interval(np.zeros(shape))


def test_corruptions_do_what_they_say() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(96, 160, (3, 64, 64, 3), dtype=np.uint8)
    noisy, blurred, flat = (corruptions.corrupted(pixels, name) for name in corruptions.CORRUPTIONS)
    assert {one.dtype for one in (noisy, blurred, flat)} == {np.dtype(np.uint8)}
    added = noisy.astype(float) - pixels
    assert added.std() == pytest.approx(255 * corruptions.NOISE, rel=0.03)
    assert blurred.std() < 0.3 * pixels.std()
    assert flat.std() == pytest.approx(corruptions.CONTRAST * pixels.std(), rel=0.03)
    for one in (noisy, blurred, flat):
        assert abs(one.mean() - pixels.mean()) < 1
    assert (corruptions.corrupted(pixels, "noise") == noisy).all()


def test_colours_alone_take_mean_and_deviation_of_their_style() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    looks = [
        np.clip(rng.normal((90, 120, 150), (20, 25, 15), (32, 32, 3)), 0, 255).astype(np.uint8)
    ] * 2
    moved = experiment.coloured(pixels, looks)
    for name in ("mean", "std"):
        assert getattr(moved, name)(axis=(1, 2)) == pytest.approx(
            np.stack([getattr(look, name)(axis=(0, 1)) for look in looks]), abs=1
        )


def test_classifiers_learn_and_are_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(48) % 3
    colours = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])
    pixels = np.clip(colours[labels][:, None, None] + rng.normal(0, 25, (48, 32, 32, 3)), 0, 255)
    pixels = pixels.astype(np.uint8)
    torch.set_num_threads(1)
    state = torch.get_rng_state()
    first, again, other = (
        trained(pixels, labels, 3, Training(epochs=8, batch=16, width=4), seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    weights = [
        torch.cat([p.flatten() for p in model.parameters()]) for model in (first, again, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    said = predictions(first, {"again": pixels}, "cpu")["again"]
    assert (said == labels).mean() > 0.9


def made_findings(rates: dict[mixtures.Mixture, tuple[float, float]]) -> experiment.Findings:
    """2 classes of 100 images with accuracies (clean, conflict); every miss of the conflict goes by texture."""

    def hits(rate: float) -> np.ndarray:
        return np.tile(np.arange(200) % 100 < 100 * rate, (3, 1)).astype(float)

    images = image_sets.ImageSet("made", Path(), ("a", "b"), (image_sets.Shown("x", 0),) * 10, {})
    both = {key: {"clean": hits(a), "conflict": hits(b)} for key, (a, b) in rates.items()}
    misled = {key: 1 - one["conflict"] for key, one in both.items()}
    return experiment.Findings(images, tuple(rates), both, misled, 10, 40)


def test_only_ratios_that_help_beyond_chance_and_harm_nothing_are_recommended() -> None:
    ratio = {r: mixtures.Mixture("stylised", r, 6) for r in (0.0, 0.25, 0.5, 0.75, 1.0)}
    found = made_findings(
        {
            ratio[0.0]: (0.9, 0.2),
            ratio[0.25]: (0.89, 0.21),  # nothing beyond chance
            ratio[0.5]: (0.89, 0.5),
            ratio[0.75]: (0.95, 0.6),
            ratio[1.0]: (0.4, 0.9),  # helps, and harms
            mixtures.Mixture("stylised", 0.5, 1): (0.9, 0.9),
            mixtures.Mixture("colours", 0.5, 6): (0.9, 0.9),
        }
    )
    assert findings.recommended(found) == {0.5: ["conflict"], 0.75: ["conflict"]}
    assert findings.advice(found).endswith("0.5 (conflict); 0.75 (conflict).")
    lines = list(findings.table(found))
    assert lines[2] == "| training images | clean | conflict | conflict, by texture |"
    assert lines[4].startswith("| originals | 90.0 ± 4.2 | 20.0 ± 5.6 | 80.0 ± 5.6 |")
    assert lines[8].startswith("| 1 stylised, 6 styles | *40.0 ± 6.8* | **90.0 ± 4.2** |")
    assert lines[9].startswith("| 0.5 stylised, 1 style | 90.0 ± 4.2 |")
    assert list(findings.gains(found))[5].startswith("| 1 stylised, 6 styles | *-50.0 ± 6.9* |")
    # 50 % of the conflict against the 90 % that colours alone reach
    assert list(findings.gains(found))[-1] == (
        "| 0.5 stylised, 6 styles, over 0.5 colours | -1.0 ± 1.4 | *-40.0 ± 6.8* |"
    )
    alone = made_findings({ratio[0.0]: (0.9, 0.2), ratio[0.5]: (0.91, 0.2)})
    assert "No ratio is recommended" in findings.advice(alone)
