"""Exact noise of Gaussian data, and the flow it follows."""

from __future__ import annotations

import torch
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.schedule import (
    DiffusionSchedule,
)

MEAN, STD = 0.3, 0.7


def gaussian_eps(x: Tensor, alpha_bar: float, mean: float, std: float) -> Tensor:
    """Exact noise prediction for data N(mean, std^2): the numeric oracle that stands in for weights."""
    variance = alpha_bar * std**2 + 1.0 - alpha_bar
    return torch.as_tensor((1.0 - alpha_bar) ** 0.5 * (x - alpha_bar**0.5 * mean) / variance)


def exact_eps(schedule: DiffusionSchedule) -> ddim.PredictNoise:
    return lambda x, step: gaussian_eps(x, float(schedule.alpha_bar[step.source]), MEAN, STD)


def exact_flow(schedule: DiffusionSchedule, x: Tensor, source: int, target: int) -> Tensor:
    """What infinitely many DDIM steps do to data N(MEAN, STD^2): standardise at one level, undo at the other."""

    def moments(level: int) -> tuple[float, float]:
        alpha_bar = float(schedule.alpha_bar[level])
        return alpha_bar**0.5 * MEAN, (alpha_bar * STD**2 + 1.0 - alpha_bar) ** 0.5

    (mean_a, std_a), (mean_b, std_b) = moments(source), moments(target)
    return (x - mean_a) / std_a * std_b + mean_b
