"""Deterministic DDIM (eta 0, arXiv 2010.02502) as pure functions over a denoiser and a list of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from stylebatch.diffusion.schedule import Schedule, Step

PredictNoise = Callable[[Tensor, Step], Tensor]


def predict_x0(schedule: Schedule, x: Tensor, estimate: Tensor, step: Step) -> Tensor:
    """Clean latent that an estimate at `step.source` implies."""
    return schedule.split(x, estimate, step.source)[0]


def ddim_step(schedule: Schedule, x: Tensor, estimate: Tensor, step: Step) -> Tensor:
    """Move `x` (B, c, h, w) from `step.source` to `step.target`, eq. 12 of DDIM with eta 0.

    Serves both directions. Equal levels return `x` itself. Coefficients are float64 scalars. In flow matching
    this is Euler's rule: x + (t_target - t_source) v.
    """
    if step.source == step.target:
        return x  # the formula would change the last bits
    x0, eps = schedule.split(x, estimate, step.source)
    return schedule.signal(step.target) * x0 + schedule.noise(step.target) * eps


def run(
    schedule: Schedule, predict_noise: PredictNoise, x: Tensor, steps: Sequence[Step]
) -> Tensor:
    """The latent after all `steps`: inversion or reverse, whichever the steps describe."""
    for step in steps:
        x = ddim_step(schedule, x, predict_noise(x, step), step)
    return x
