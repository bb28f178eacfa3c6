"""Deterministic DDIM (eta 0, arXiv 2010.02502) as pure functions over a denoiser and a list of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from stylebatch.diffusion.schedule import Schedule, Step

PredictNoise = Callable[[Tensor, Step], Tensor]


def predict_x0(schedule: Schedule, x: Tensor, eps: Tensor, step: Step) -> Tensor:
    """Clean latent that a noise estimate at `step.source` implies: (x - sqrt(1-ab) eps) / sqrt(ab)."""
    return (x - schedule.noise(step.source) * eps) / schedule.signal(step.source)


def ddim_step(schedule: Schedule, x: Tensor, eps: Tensor, step: Step) -> Tensor:
    """Move `x` (B, c, h, w) from `step.source` to `step.target`, eq. 12 of DDIM with eta 0.

    Serves both directions. Equal levels return `x` itself. Coefficients are float64 scalars.
    """
    if step.source == step.target:
        return x
    x0 = predict_x0(schedule, x, eps, step)
    return schedule.signal(step.target) * x0 + schedule.noise(step.target) * eps


def walk(
    schedule: Schedule, predict_noise: PredictNoise, x: Tensor, steps: Sequence[Step]
) -> Iterator[tuple[Step, Tensor]]:
    """Yield `(step, latent after it)` for each step, starting from `x` (B, c, h, w)."""
    for step in steps:
        x = ddim_step(schedule, x, predict_noise(x, step), step)
        yield step, x


def run(
    schedule: Schedule, predict_noise: PredictNoise, x: Tensor, steps: Sequence[Step]
) -> Tensor:
    """The latent after all `steps`: inversion or reverse, whichever the steps describe."""
    for step in steps:
        x = ddim_step(schedule, x, predict_noise(x, step), step)
    return x
