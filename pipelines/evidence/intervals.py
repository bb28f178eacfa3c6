"""Means with 95 % intervals over seeds and test images at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NORMAL = 1.959964
"""97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Interval:
    """`mean` - `half` to `mean` + `half`."""

    mean: float
    half: float

    @property
    def parts_from_zero(self) -> bool:
        return abs(self.mean) > self.half


def interval(values: NDArray[np.float64]) -> Interval:
    """Mean of (seeds, images): of hits (0, 1), or of their difference between two classifiers with the same seeds (-1, 0, 1).

    Half of the width is sqrt((t s / sqrt(n))^2 + (z d / sqrt(m))^2): s the deviation of the n seeds' means, t Student's
    97.5 % quantile with n - 1 degrees of freedom; d the deviation of the m images' means over seeds. d is at least what one
    image decided otherwise gives, so that no interval of a finite test is a point. The two add what chance in training
    and chance in the choice of test images bring; as seeds and images share some of it, the interval is a little wide.
    Raises ValueError for fewer than 2 seeds or images.
    """
    seeds, images = values.shape
    if seeds < 2 or images < 2:
        raise ValueError(f"{seeds} seeds x {images} images: an interval needs 2 of each")
    of_seeds = student(seeds - 1) * values.mean(axis=1).std(ddof=1) / math.sqrt(seeds)
    one = math.sqrt((1 - 1 / images) / images)
    of_images = NORMAL * max(values.mean(axis=0).std(ddof=1), one) / math.sqrt(images)
    return Interval(float(values.mean()), float(math.hypot(of_seeds, of_images)))


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t, to 4 digits: the density integrated, bisected (no scipy for one number)."""
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale = math.exp(log_scale) / math.sqrt(freedom * math.pi)
    low, high = 1.9, 13.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        at = np.linspace(0, middle, 4001)
        density = scale * (1 + at**2 / freedom) ** (-(freedom + 1) / 2)
        below = 0.5 + float(np.trapezoid(density, at))
        low, high = (low, middle) if below > 0.975 else (middle, high)
    return (low + high) / 2
