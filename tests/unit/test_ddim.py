"""DDIM against the exact noise of Gaussian data, and against the scheduler of diffusers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.schedule import (
    DiffusionSchedule,
    PredictionType,
    Step,
    scaled_linear_betas,
    trajectory,
)
from tests.support.gaussian import MEAN, STD, exact_eps, exact_flow, gaussian_eps


@pytest.fixture
def schedule() -> DiffusionSchedule:
    return DiffusionSchedule.from_betas(scaled_linear_betas(1000, 0.00085, 0.012))


@pytest.fixture
def clean() -> Tensor:
    return MEAN + STD * torch.randn(
        4, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def round_trip_error(schedule: DiffusionSchedule, clean: Tensor, steps: int) -> float:
    """Distance of invert-then-reverse from the start; the start counts as level 1, the end is level 0."""
    path = trajectory("ldm", steps, start="level")
    noise = ddim.run(schedule, exact_eps(schedule), clean, path.inversion)
    back = ddim.run(schedule, exact_eps(schedule), noise, path.reverse)
    return float((back - exact_flow(schedule, clean, 1, 0)).norm() / clean.norm())


def test_invert_then_reverse_returns_the_start_at_first_order_in_the_steps(
    schedule: DiffusionSchedule, clean: Tensor
) -> None:
    errors = [round_trip_error(schedule, clean, steps) for steps in (25, 50, 100, 200, 500)]
    assert errors[0] < 0.15
    assert errors[-1] < 0.008
    for coarse, fine in pairwise(errors[:4]):
        assert coarse / fine == pytest.approx(2.0, abs=0.25)  # twice the steps, half the error


def test_round_trip_ends_near_the_start_itself(schedule: DiffusionSchedule, clean: Tensor) -> None:
    path = trajectory("ldm", 500, start="level")
    noise = ddim.run(schedule, exact_eps(schedule), clean, path.inversion)
    back = ddim.run(schedule, exact_eps(schedule), noise, path.reverse)
    assert float((back - clean).norm() / clean.norm()) < 0.01


@pytest.mark.parametrize("steps", [100, 500])
def test_inversion_alone_approaches_the_exact_flow(
    schedule: DiffusionSchedule, clean: Tensor, steps: int
) -> None:
    path = trajectory("ldm", steps, start="level")
    noise = ddim.run(schedule, exact_eps(schedule), clean, path.inversion)
    exact = exact_flow(schedule, clean, path.inversion[0].source, path.inversion[-1].target)
    assert float((noise - exact).norm() / exact.norm()) < 3.0 / steps
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)


def test_gaussian_eps_is_the_expected_noise_given_the_latent(schedule: DiffusionSchedule) -> None:
    generator = torch.Generator().manual_seed(1)
    alpha_bar = float(schedule.alpha_bar[401])
    x0 = MEAN + STD * torch.randn(400_000, generator=generator, dtype=torch.float64)
    eps = torch.randn(400_000, generator=generator, dtype=torch.float64)
    x = alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * eps
    guess = gaussian_eps(x, alpha_bar, MEAN, STD)
    residual = eps - guess  # of the best estimator: no bias, and uncorrelated with what it sees
    assert abs(float(residual.mean())) < 5e-3
    assert abs(float((residual * x).mean())) < 5e-3


@pytest.mark.parametrize("steps", [1, 10, 20, 50])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_reverse_is_the_ddim_of_diffusers(prediction_type: PredictionType, steps: int) -> None:
    schedule = DiffusionSchedule.from_betas(
        scaled_linear_betas(1000, 0.00085, 0.012), prediction_type
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, timestep_spacing="leading", prediction_type=prediction_type,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))

    def network(x: Tensor, t: int) -> Tensor:
        return torch.tanh(x.flip(-1) * 0.9 + t / 1000.0) + 0.1 * x

    theirs, last_x0 = start, start
    for t in scheduler.timesteps.tolist():
        stepped = scheduler.step(network(theirs, t), t, theirs)
        theirs, last_x0 = stepped.prev_sample, stepped.pred_original_sample

    def predict(x: Tensor, step: Step) -> Tensor:
        return schedule.to_eps(network(x, step.t), x, step.source)

    path = trajectory("diffusers", steps)
    ours = ddim.run(schedule, predict, start, path.reverse)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)

    before = ddim.run(schedule, predict, start, path.reverse[:-1])
    final = path.reverse[-1]
    torch.testing.assert_close(
        ddim.predict_x0(schedule, before, predict(before, final), final),
        last_x0,
        rtol=2e-4,
        atol=2e-4,
    )


def test_single_step_between_any_two_levels_keeps_the_clean_latent(
    schedule: DiffusionSchedule,
) -> None:
    generator = torch.Generator().manual_seed(3)
    x0, eps = (torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))

    def at(level: int) -> Tensor:
        return schedule.signal(level) * x0 + schedule.noise(level) * eps

    for source, target in ((1, 21), (981, 999), (21, 1), (1, 0), (999, 0)):
        step = Step(source, source, target)
        torch.testing.assert_close(
            ddim.ddim_step(schedule, at(source), eps, step), at(target), rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(
            ddim.predict_x0(schedule, at(source), eps, step), x0, rtol=1e-9, atol=1e-9
        )


def test_step_between_equal_levels_returns_the_latent_untouched(
    schedule: DiffusionSchedule,
) -> None:
    x = torch.randn(1, 4, 8, 8)
    assert ddim.ddim_step(schedule, x, torch.full_like(x, torch.nan), Step(981, 981, 981)) is x


def test_float32_latents_stay_float32(schedule: DiffusionSchedule) -> None:
    x = torch.randn(1, 4, 8, 8)
    assert ddim.ddim_step(schedule, x, x, Step(21, 21, 1)).dtype == torch.float32


def test_walk_evaluates_once_per_step_and_run_returns_its_last_latent(
    schedule: DiffusionSchedule, clean: Tensor
) -> None:
    seen: list[int] = []

    def counting(x: Tensor, step: Step) -> Tensor:
        seen.append(step.t)
        return exact_eps(schedule)(x, step)

    path = trajectory("ldm", 10)
    ddim.run(schedule, counting, clean, path.inversion)
    assert seen == [step.t for step in path.inversion]
    assert ddim.run(schedule, exact_eps(schedule), clean, ()) is clean
