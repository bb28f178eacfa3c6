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
    """A latent `x` (B, c, h, w), and what the rule remembers: of which level, and the tensor of that level.

    `memory` is an estimate (eps of `ab2`, x0 of `dpmpp_2m`) or the latent of the level before (`bdia`).
    """

    x: Tensor
    level: int | None = None
    memory: Tensor | None = None


def advance(rule: Rule, schedule: Schedule, state: State, eps: Tensor, step: Step) -> State:
    """The state after `step`, by the noise estimate `eps` (B, c, h, w) at its source.

    Without memory every rule takes a step of DDIM. Equal levels return the state itself.
    """
    return state if step.source == step.target else RULES[rule](schedule, state, eps, step)


def trapezoid(
    schedule: Schedule, predict: ddim.PredictNoise, x: Tensor, eps: Tensor, steps: tuple[Step, Step]
) -> Tensor:
    """The mean of `eps` at the source of the first of two steps and of the noise where DDIM would go by it (Heun).

    A first step of second order for a rule that remembers: an error made there would stay in all latents after it.
    """
    ahead = ddim.ddim_step(schedule, x, eps, steps[0])
    return (eps + predict(ahead, steps[1])) / 2.0


def _ddim(schedule: Schedule, state: State, eps: Tensor, step: Step) -> State:
    return State(ddim.ddim_step(schedule, state.x, eps, step))


def _ab2(schedule: Schedule, state: State, eps: Tensor, step: Step) -> State:
    """Adams-Bashforth of order 2 in s, for uneven steps: eps is extrapolated to the middle of the step."""
    middle = eps
    if state.memory is not None and state.level is not None:
        ahead = _ratio(schedule, step.target) - _ratio(schedule, step.source)
        behind = _ratio(schedule, step.source) - _ratio(schedule, state.level)
        middle = eps + (ahead / (2.0 * behind)) * (eps - state.memory)
    return State(ddim.ddim_step(schedule, state.x, middle, step), step.source, eps)


def _dpmpp_2m(schedule: Schedule, state: State, eps: Tensor, step: Step) -> State:
    """DPM-Solver++(2M) (arXiv 2211.01095): x0 is extrapolated in lambda = -log s.

    A step to a level without noise (s = 0) is one of DDIM.
    """
    x0 = middle = ddim.predict_x0(schedule, state.x, eps, step)
    if state.memory is not None and state.level is not None and _ratio(schedule, step.target) > 0:
        here = math.log(_ratio(schedule, step.source))
        ahead = math.log(_ratio(schedule, step.target)) - here
        behind = here - math.log(_ratio(schedule, state.level))
        middle = x0 + (ahead / (2.0 * behind)) * (x0 - state.memory)
    implied = (state.x - schedule.signal(step.source) * middle) / schedule.noise(step.source)
    return State(
        schedule.signal(step.target) * middle + schedule.noise(step.target) * implied,
        step.source,
        x0,
    )


def _bdia(schedule: Schedule, state: State, eps: Tensor, step: Step) -> State:
    """BDIA at gamma 1 (arXiv 2307.10829): x_before + DDIM to the target - DDIM to the level before.

    From x_target and x the same formula gives x_before back, whatever the network.
    """
    if state.memory is None or state.level is None:
        return State(ddim.ddim_step(schedule, state.x, eps, step), step.source, state.x)
    x0 = ddim.predict_x0(schedule, state.x, eps, step)
    signal = schedule.signal(step.target) - schedule.signal(state.level)
    noise = schedule.noise(step.target) - schedule.noise(state.level)
    return State(state.memory + signal * x0 + noise * eps, step.source, state.x)


RULES: dict[str, Callable[[Schedule, State, Tensor, Step], State]] = {
    "ddim": _ddim,
    "ab2": _ab2,
    "dpmpp_2m": _dpmpp_2m,
    "bdia": _bdia,
}


def _ratio(schedule: Schedule, level: int) -> float:
    """s = sigma / alpha."""
    return schedule.noise(level) / schedule.signal(level)
