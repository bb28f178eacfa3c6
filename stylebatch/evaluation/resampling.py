"""Intervals by resampling: how far a measure moves when other inputs of the same kind had been drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEWEST_DRAWS = 20
"""Draws below which there is no interval."""
Statistic = Callable[[Floats], float]
"""A measure of the samples, each counted as often as its weight says. Raises ValueError where it cannot be."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def weights_of_draws(
    factors: Sequence[NDArray[np.int64]], count: int, seed: int = 0
) -> list[Floats]:
    """`count` times how often each sample counts when the levels of every factor are drawn anew with replacement.

    Samples that share a content or a style are no independent draws: contents and styles are drawn, each on its own (Owen 2007,
    The pigeonhole bootstrap, arXiv 0712.1111), and a sample counts as often as its content times as often as its style. `factors`:
    the level of each sample, from 0; one with a single level stays as it is. No draws where all have a single level: they would
    all be the same, and say that the measure is certain.
    """
    if all(int(levels.max()) == 0 for levels in factors):
        return []
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        weights = np.ones(len(factors[0]))
        for levels in factors:
            num_levels = int(levels.max()) + 1
            if num_levels > 1:
                counts = np.bincount(
                    generator.integers(num_levels, size=num_levels), minlength=num_levels
                )
                weights *= counts[levels]
        drawn.append(weights)
    return drawn


def drawn_values(statistic: Statistic, draws: Sequence[Floats]) -> Floats:
    """The measure of every draw, NaN where a draw gives none."""
    found = np.full(len(draws), np.nan)
    for place, weights in enumerate(draws):
        try:
            found[place] = statistic(weights)
        except ValueError:
            continue
    return found


def interval(value: float, drawn: Floats) -> Interval | None:
    """The middle 95 % of what draws give, moved so that their mean is `value`; None where fewer than `FEWEST_DRAWS` give anything.

    A draw repeats pictures, which makes distances of sets larger than the sets themselves have: only how far draws lie from each other
    is used.
    """
    known = drawn[~np.isnan(drawn)]
    if len(known) < FEWEST_DRAWS:
        return None
    low, high = np.percentile(known, [2.5, 97.5]) - known.mean() + value
    return Interval(float(low), float(high))
