"""Timestep lists and levels of both conventions, and conversions between predictions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from stylebatch.diffusion.schedule import (
    DiffusionSchedule,
    PredictionType,
    Step,
    linear_betas,
    scaled_linear_betas,
    trajectory,
    usable_steps,
)

LDM_GRID = list(range(1, 1000, 20))


def sd_schedule(prediction_type: PredictionType = "epsilon") -> DiffusionSchedule:
    return DiffusionSchedule.from_betas(scaled_linear_betas(1000, 0.00085, 0.012), prediction_type)


def test_ldm_inversion_visits_1_to_981_and_ends_on_level_999() -> None:
    path = trajectory("ldm", 50)
    assert [step.t for step in path.inversion] == LDM_GRID
    assert [step.source for step in path.inversion] == LDM_GRID
    assert [step.target for step in path.inversion] == [*LDM_GRID[1:], 999]
    assert (path.inversion[0].t, path.inversion[-1].t) == (1, 981)


def test_paper_start_skips_the_first_reverse_step_only() -> None:
    path = trajectory("ldm", 50)
    assert len(path.reverse) == 49
    assert path.reverse[0] == Step(961, 961, 941)
    assert path.reverse[-1] == Step(1, 1, 0)
    assert [step.t for step in path.reverse] == LDM_GRID[-2::-1]
    assert [step.target for step in path.reverse] == [*LDM_GRID[-3::-1], 0]
    assert not path.returns_x0


def test_level_start_reverses_from_the_level_that_inversion_reached() -> None:
    path = trajectory("ldm", 50, start="level")
    assert path.inversion[-1] == Step(981, 981, 981)
    assert path.reverse[0] == Step(981, 981, 961)
    assert [step.t for step in path.reverse] == LDM_GRID[::-1]
    assert path.reverse[-1].target == 0


@pytest.mark.parametrize("steps", [2, 4, 10, 25, 100, 500])
def test_default_start_is_level_unless_steps_is_50(steps: int) -> None:
    assert trajectory("ldm", steps) == trajectory("ldm", steps, start="level")
    assert trajectory("ldm", 50) == trajectory("ldm", 50, start="paper")
    assert len(trajectory("ldm", steps).reverse) == steps


@pytest.mark.parametrize(
    ("convention", "steps"),
    [
        ("ldm", 4),
        ("ldm", 50),
        ("ldm", 500),
        ("diffusers", 1),
        ("diffusers", 20),
        ("diffusers", 999),
    ],
)
def test_steps_chain_without_a_gap_and_reverse_meets_recorded_timesteps(
    convention: str, steps: int
) -> None:
    path = trajectory(convention, steps)  # type: ignore[arg-type]
    for steps_list in (path.inversion, path.reverse):
        assert all(before.target == after.source for before, after in pairwise(steps_list))
    assert {step.t for step in path.reverse} <= {step.t for step in path.inversion}
    assert all(
        0 <= level < 1000
        for step in (*path.inversion, *path.reverse)
        for level in (step.t, step.source, step.target)
    )


@pytest.mark.parametrize("steps", [-5, 0, 1, 3, 7, 30, 60, 999, 1000, 2000])
def test_ldm_steps_that_do_not_divide_1000_are_refused_with_the_usable_ones(steps: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"steps: found {steps}; the ldm convention accepts divisors of 1000: 2, 4, 5, 8, .*, 250, 500$",
    ):
        trajectory("ldm", steps)


@pytest.mark.parametrize("steps", usable_steps())
def test_every_usable_number_of_steps_works(steps: int) -> None:
    assert len(trajectory("ldm", steps).inversion) == steps


def test_diffusers_inversion_is_evaluated_at_its_target_timestep() -> None:
    path = trajectory("diffusers", 20)
    labels = list(range(1, 1000, 50))
    assert path.inversion[0] == Step(1, 0, 1)
    assert path.inversion[1] == Step(51, 1, 51)
    assert path.inversion[-1] == Step(951, 901, 951)
    assert [step.t for step in path.inversion] == [step.target for step in path.inversion] == labels
    assert path.reverse[0] == Step(951, 951, 901)
    assert path.reverse[-1] == Step(1, 1, 0)
    assert [step.t for step in path.reverse] == labels[::-1]
    assert path.returns_x0


def test_diffusers_steps_need_not_divide_1000() -> None:
    path = trajectory("diffusers", 30)
    assert [step.t for step in path.inversion] == [1 + 33 * i for i in range(30)]
    assert path.inversion[0].source == 0
    assert path.inversion[-1] == Step(958, 925, 958)


@pytest.mark.parametrize("steps", [1, 10, 20, 30, 50, 999])
def test_reverse_timesteps_are_those_of_the_diffusers_scheduler(steps: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, steps_offset=1, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    assert [
        step.t for step in trajectory("diffusers", steps).reverse
    ] == scheduler.timesteps.tolist()
    if steps in usable_steps():
        assert [
            step.t for step in trajectory("ldm", steps, start="level").reverse
        ] == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [-1, 0, 1000, 1001])
def test_diffusers_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps: {steps} is out of range.*1\.\.999"):
        trajectory("diffusers", steps)


def test_start_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises(
        ValueError, match="start: 'paper' has no meaning in the diffusers convention"
    ):
        trajectory("diffusers", 20, start="paper")


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_alpha_bar_is_the_table_of_diffusers_in_float64(kind: str) -> None:
    betas = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}[kind](
        1000, 0.00085, 0.012
    )
    schedule = DiffusionSchedule.from_betas(betas)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=kind)
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.num_train_timesteps == 1000
    torch.testing.assert_close(
        schedule.alpha_bar, scheduler.alphas_cumprod.double(), rtol=2e-5, atol=0.0
    )


def test_float16_betas_do_not_degrade_the_cumulative_product() -> None:
    betas = scaled_linear_betas(1000, 0.00085, 0.012).half()
    torch.testing.assert_close(
        DiffusionSchedule.from_betas(betas).alpha_bar,
        torch.cumprod(1.0 - betas.double(), 0),
        rtol=0.0,
        atol=0.0,
    )


@pytest.mark.parametrize("level", [0, 1, 501, 999])
def test_signal_and_noise_are_on_the_unit_circle(level: int) -> None:
    schedule = sd_schedule()
    assert schedule.signal(level) ** 2 + schedule.noise(level) ** 2 == pytest.approx(1.0, abs=1e-12)
    assert schedule.signal(level) ** 2 == pytest.approx(float(schedule.alpha_bar[level]), rel=1e-12)


@pytest.mark.parametrize("level", [0, 1, 401, 999])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_each_prediction_type_round_trips_to_the_noise(
    prediction_type: PredictionType, level: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    schedule = sd_schedule(prediction_type)
    signal, noise = schedule.signal(level), schedule.noise(level)
    x = signal * x0 + noise * eps
    prediction = {"epsilon": eps, "v_prediction": signal * eps - noise * x0, "sample": x0}[
        prediction_type
    ]
    torch.testing.assert_close(schedule.to_eps(prediction, x, level), eps, rtol=1e-9, atol=1e-10)


def test_levels_between_timesteps_have_the_sigmas_of_euler() -> None:
    schedule = sd_schedule()
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(8)
    assert any(t != round(t) for t in scheduler.timesteps.tolist())
    ours = [schedule.noise(t) / schedule.signal(t) for t in scheduler.timesteps.tolist()]
    assert ours == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-4)


@pytest.mark.parametrize("level", [-2, -1.5, 999.5, 1000])
def test_a_level_outside_the_table_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=rf"level: found {level}; accepted: -1 \(clean\) to 999"):
        sd_schedule().signal(level)
