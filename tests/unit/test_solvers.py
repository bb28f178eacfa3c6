"""Solvers against the exact flow of Gaussian data: their order, their exact inversion, what they remember."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.schedule import (
    CLEAN,
    DiffusionSchedule,
    Step,
    Trajectory,
    scaled_linear_betas,
    trajectory,
    two_step,
)
from stylebatch.diffusion.solvers import RULES, Rule, State, advance, trapezoid
from tests.support.gaussian import MEAN, STD, exact_eps, exact_flow

SECOND_ORDER: tuple[Rule, ...] = ("ab2", "dpmpp_2m", "bdia")


@pytest.fixture
def schedule() -> DiffusionSchedule:
    return DiffusionSchedule.from_betas(scaled_linear_betas(1000, 0.00085, 0.012))


@pytest.fixture
def clean() -> Tensor:
    noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return MEAN + STD * noise


def walked(
    rule: Rule,
    schedule: DiffusionSchedule,
    state: State,
    steps: tuple[Step, ...],
    tilt: float = 0.0,
) -> State:
    """`steps` by the exact noise of the data; with `tilt`, of another network."""
    predict = exact_eps(schedule)
    for step in steps:
        eps = predict(state.x, step) + tilt * torch.sin(3.0 * state.x)
        state = advance(rule, schedule, state, eps, step)
    return state


def path_of(rule: Rule, steps: int, grid: str = "stride") -> Trajectory:
    path = trajectory("ldm", steps, start="level", grid="spread" if grid == "spread" else "stride")
    return two_step(path) if rule == "bdia" else path


def turned(state: State, path: Trajectory) -> State:
    """The end of an inversion as its reverse starts: at the lower of its two levels."""
    assert state.memory is not None
    return State(state.memory, path.inversion[-1].target, state.x)


def rel(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_every_rule_has_a_name() -> None:
    assert set(RULES) == set(get_args(Rule))


@pytest.mark.parametrize("rule", RULES)
def test_first_step_is_one_of_ddim(schedule: DiffusionSchedule, clean: Tensor, rule: Rule) -> None:
    step, eps = Step(1, 1, 41), torch.sin(clean)
    moved = advance(rule, schedule, State(clean), eps, step)
    assert rel(moved.x, ddim.ddim_step(schedule, clean, eps, step)) < 1e-14


@pytest.mark.parametrize("rule", RULES)
def test_equal_levels_change_nothing(
    schedule: DiffusionSchedule, clean: Tensor, rule: Rule
) -> None:
    state = State(clean, 1, torch.cos(clean))
    assert advance(rule, schedule, state, torch.sin(clean), Step(41, 41, 41)) is state


@pytest.mark.parametrize("rule", SECOND_ORDER)
def test_reverse_converges_at_second_order(
    schedule: DiffusionSchedule, clean: Tensor, rule: Rule
) -> None:
    errors = []
    for steps in (50, 100, 200):
        path = trajectory("ldm", steps, start="level")
        start = exact_flow(schedule, clean, 1, path.reverse[0].source)
        end = walked(rule, schedule, State(start), path.reverse).x
        errors.append(rel(end, exact_flow(schedule, clean, 1, 0)))
    for coarse, fine in pairwise(errors):
        assert coarse / fine > 2.7  # 2 at first order, 4 at second
    first = trajectory("ldm", 200, start="level")
    start = exact_flow(schedule, clean, 1, first.reverse[0].source)
    euler = walked("ddim", schedule, State(start), first.reverse).x
    assert errors[-1] < rel(euler, exact_flow(schedule, clean, 1, 0)) / 4


@pytest.mark.parametrize("rule", SECOND_ORDER)
@pytest.mark.parametrize("steps", [20, 50])
def test_inversion_ends_nearer_to_the_exact_noise_than_ddim(
    schedule: DiffusionSchedule, clean: Tensor, rule: Rule, steps: int
) -> None:
    def error(rule: Rule) -> float:
        path = path_of(rule, steps)
        end = walked(rule, schedule, State(clean), path.inversion).x
        return rel(end, exact_flow(schedule, clean, 1, path.inversion[-1].target))

    assert error(rule) < 0.55 * error("ddim")


@pytest.mark.parametrize("grid", ["stride", "spread"])
@pytest.mark.parametrize("steps", [4, 10, 50])
@pytest.mark.parametrize("tilt", [0.0, 0.1])
def test_bdia_returns_to_the_start_whatever_the_network(
    schedule: DiffusionSchedule, clean: Tensor, grid: str, steps: int, tilt: float
) -> None:
    path = path_of("bdia", steps, grid)
    noise = walked("bdia", schedule, State(clean), path.inversion, tilt)
    assert rel(noise.x, clean) > 0.3
    assert noise.memory is not None
    turned = State(noise.memory, path.inversion[-1].target, noise.x)
    back = walked("bdia", schedule, turned, path.reverse[1:], tilt)
    assert path.reverse[-1].target == path.inversion[0].source
    assert rel(back.x, clean) < 1e-10
    half = walked("bdia", schedule, State(noise.memory), path.reverse[1:], tilt)
    assert rel(half.x, clean) > 1e-3  # the other latent of the state is needed


def test_a_first_step_by_the_trapezoid_leaves_less_error(
    schedule: DiffusionSchedule, clean: Tensor
) -> None:
    path, predict = path_of("bdia", 20), exact_eps(schedule)
    first, second = path.inversion[:2]
    eps = predict(clean, first)
    better = trapezoid(schedule, predict, clean, eps, (first, second))
    exact = exact_flow(schedule, clean, first.source, first.target)
    errors = [
        rel(advance("bdia", schedule, State(clean), noise, first).x, exact)
        for noise in (eps, better)
    ]
    assert errors[1] < errors[0] / 4


def test_dpmpp_2m_is_that_of_diffusers(schedule: DiffusionSchedule, clean: Tensor) -> None:
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="leading", steps_offset=1, solver_order=2, lower_order_final=False,
        final_sigmas_type="sigma_min",
    )  # fmt: skip
    scheduler.set_timesteps(20)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    levels = [int(t) for t in scheduler.timesteps]
    state, theirs = State(x.double()), x.double()
    for t, target in zip(levels, [*levels[1:], 0], strict=True):
        eps = torch.sin(theirs)
        theirs = scheduler.step(eps, t, theirs, return_dict=False)[0]
        state = advance("dpmpp_2m", schedule, state, torch.sin(state.x), Step(t, t, target))
    assert rel(state.x, theirs) < 1e-4


def test_ddim_stays_that_of_diffusers(schedule: DiffusionSchedule, clean: Tensor) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(10)
    state, theirs = State(clean), clean
    for t in (int(t) for t in scheduler.timesteps):
        theirs = scheduler.step(torch.sin(theirs), t, theirs, return_dict=False)[0]
        step = Step(t, t, max(0, t - 100))
        state = advance("ddim", schedule, state, torch.sin(state.x), step)
    assert rel(state.x, theirs) < 1e-5


def test_a_level_without_noise_is_reached(schedule: DiffusionSchedule, clean: Tensor) -> None:
    state = advance("dpmpp_2m", schedule, State(clean, 41, clean), clean, Step(1, 1, CLEAN))
    assert rel(state.x, ddim.predict_x0(schedule, clean, clean, Step(1, 1, CLEAN))) < 1e-12


def test_spread_grid_has_the_ends_of_50_steps() -> None:
    fifty = trajectory("ldm", 50, start="level")
    assert trajectory("ldm", 50, start="level", grid="spread") == fifty
    few = trajectory("ldm", 7, start="level", grid="spread")
    assert few.inversion[0].t == 1
    assert few.inversion[-1].t == few.reverse[0].t == 981
    gaps = {b.t - a.t for a, b in pairwise(few.inversion)}
    assert max(gaps) - min(gaps) <= 1
    paper = trajectory("ldm", 7, start="paper", grid="spread")
    assert paper.inversion[-1].target == 999
    assert paper.reverse[0].t == trajectory("ldm", 50, start="paper").reverse[0].t == 961
    assert len(paper.reverse) == len(paper.inversion) == 7
    with pytest.raises(ValueError, match=r"steps: 1 is out of range; grid spread accepts 2"):
        trajectory("ldm", 1, start="level", grid="spread")


def test_a_power_brings_timesteps_closer_together_near_the_picture() -> None:
    even, bent = (
        trajectory("ldm", 12, start="paper", grid="spread", power=power) for power in (1.0, 1.2)
    )
    assert bent.reverse[0].t == even.reverse[0].t == 961
    assert bent.reverse[-1].t == even.reverse[-1].t == 1
    gaps = [b.t - a.t for a, b in pairwise(bent.inversion)]
    assert gaps == sorted(gaps)
    assert gaps[0] < min(b.t - a.t for a, b in pairwise(even.inversion))
    quadratic = trajectory("ldm", 5, start="paper", grid="spread", power=2.0)
    assert [step.t for step in quadratic.inversion] == [1, 61, 241, 541, 961]
    with pytest.raises(ValueError, match="100 steps repeat timesteps"):
        trajectory("ldm", 100, start="paper", grid="spread", power=2.0)


def test_two_step_rules_need_a_path_that_turns_where_it_ends() -> None:
    with pytest.raises(ValueError, match="start="):
        two_step(trajectory("ldm", 50, start="paper"))
