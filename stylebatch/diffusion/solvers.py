"""Solvers of the probability-flow ODE as pure functions: where a latent goes once its noise estimate is known.

With y = x / alpha and s = sigma / alpha the ODE is dy/ds = eps (arXiv 2010.02502), and DDIM is Euler's rule
in s. The others remember something of the step before: the multistep rules an estimate, the exactly invertible
one a latent. Levels and steps are those of `schedule.py`; alpha is `Schedule.signal`, sigma `Schedule.noise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.schedule import Schedule, Step

Rule = Literal["ddim", "ab2", "dpmpp_2m", "bdia"]


@dataclass(frozen=True)
class State:
    """A latent `x` (B, c, h, w), and a tensor that the rule remembers of an earlier `level`.

    `memory` is an estimate (eps of `ab2`, x0 of `dpmpp_2m`) or the latent of the level before (`bdia`).
    """

    x: Tensor
    level: float | None = None
    memory: Tensor | None = None


def advance(rule: Rule, schedule: Schedule, state: State, estimate: Tensor, step: Step) -> State:
    """The state after `step`, given the denoiser's estimate (B, c, h, w) at its source.

    Without memory every rule takes a step of DDIM. Equal levels return the state itself.
    """
    return state if step.source == step.target else RULES[rule](schedule, state, estimate, step)


def trapezoid(
    schedule: Schedule,
    predict: ddim.PredictNoise,
    x: Tensor,
    estimate: Tensor,
    steps: tuple[Step, Step],
) -> Tensor:
    """The mean of two estimates: `estimate`, and the one where a DDIM step with it arrives (Heun's rule).

    It makes the first step of a two-step rule second order: an error of that step would stay in all later latents.
    """
    ahead = ddim.ddim_step(schedule, x, estimate, steps[0])
    return (estimate + predict(ahead, steps[1])) / 2.0


def _ddim(schedule: Schedule, state: State, estimate: Tensor, step: Step) -> State:
    return State(ddim.ddim_step(schedule, state.x, estimate, step))


def _ab2(schedule: Schedule, state: State, estimate: Tensor, step: Step) -> State:
    """Adams-Bashforth of order 2 in s, for uneven steps: eps is extrapolated to the middle of the step."""
    x0, eps = schedule.split(state.x, estimate, step.source)
    middle = eps
    if state.memory is not None and state.level is not None:
        ahead = _ratio(schedule, step.target) - _ratio(schedule, step.source)
        behind = _ratio(schedule, step.source) - _ratio(schedule, state.level)
        middle = eps + (ahead / (2.0 * behind)) * (eps - state.memory)
        # With the x0 of `middle` the result is y + (s_target - s_source) * middle.
        x0 = (state.x - schedule.noise(step.source) * middle) / schedule.signal(step.source)
    return State(_joined(schedule, x0, middle, step.target), step.source, eps)


def _dpmpp_2m(schedule: Schedule, state: State, estimate: Tensor, step: Step) -> State:
    """DPM-Solver++(2M) (arXiv 2211.01095): x0 is extrapolated in lambda = -log s.

    A step to a level without noise (s = 0) is one of DDIM: lambda is infinite there.
    """
    x0 = middle = ddim.predict_x0(schedule, state.x, estimate, step)
    if state.memory is not None and state.level is not None and _ratio(schedule, step.target) > 0:
        here = math.log(_ratio(schedule, step.source))
        ahead = math.log(_ratio(schedule, step.target)) - here
        behind = here - math.log(_ratio(schedule, state.level))
        middle = x0 + (ahead / (2.0 * behind)) * (x0 - state.memory)
    implied = (state.x - schedule.signal(step.source) * middle) / schedule.noise(step.source)
    return State(_joined(schedule, middle, implied, step.target), step.source, x0)


def _bdia(schedule: Schedule, state: State, estimate: Tensor, step: Step) -> State:
    """BDIA at gamma 1 (arXiv 2307.10829): x_before + DDIM to the target - DDIM to the level before.

    From x_target and x the same formula gives x_before back, whatever the network.
    """
    x0, eps = schedule.split(state.x, estimate, step.source)
    if state.memory is None or state.level is None:
        return State(_joined(schedule, x0, eps, step.target), step.source, state.x)
    # Both DDIM steps share x0 and eps, so their float64 coefficients are subtracted, not their float32 latents.
    signal = schedule.signal(step.target) - schedule.signal(state.level)
    noise = schedule.noise(step.target) - schedule.noise(state.level)
    return State(state.memory + signal * x0 + noise * eps, step.source, state.x)


RULES: dict[str, Callable[[Schedule, State, Tensor, Step], State]] = {
    "ddim": _ddim,
    "ab2": _ab2,
    "dpmpp_2m": _dpmpp_2m,
    "bdia": _bdia,
}


def _joined(schedule: Schedule, x0: Tensor, eps: Tensor, level: float) -> Tensor:
    return schedule.signal(level) * x0 + schedule.noise(level) * eps


def _ratio(schedule: Schedule, level: float) -> float:
    """s = sigma / alpha; infinite where there is no signal, so that an estimate from there weighs nothing."""
    signal = schedule.signal(level)
    return schedule.noise(level) / signal if signal else math.inf
