"""Noise schedules, the timestep pairs of each convention, and conversions between predictions.

A latent at *level* l is x_l = signal(l) x0 + noise(l) eps. A `Step` moves a latent between two levels with one network
evaluation; conventions differ only in their lists of steps. A family defines what its levels count: timesteps of a table
(diffusion), or the share of noise itself (flow matching). Loops use `Schedule` and know no family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample"]
Convention = Literal["ldm", "diffusers"]
Start = Literal["paper", "level"]
Grid = Literal["stride", "spread"]
Spacing = Literal["leading", "trailing", "linspace"]
CLEAN = -1
"""The level of a latent without noise, alpha_bar 1; level 0 still has the first beta's."""


@dataclass(frozen=True)
class Step:
    """One evaluation: the network sees timestep `t`; the latent goes from `source` to `target` level."""

    t: float
    source: float
    target: float


@dataclass(frozen=True)
class Trajectory:
    """The two lists of steps of a convention: inversion (image to noise) and reverse.

    `returns_x0`: the result is the x0 prediction of the last reverse step, not the stepped latent.
    """

    inversion: tuple[Step, ...]
    reverse: tuple[Step, ...]
    returns_x0: bool


class Schedule(Protocol):
    """Signal and noise at every level of a family, and the levels that its sampling visits."""

    def signal(self, level: float) -> float:
        """The factor of x0 in a latent at `level`."""
        ...

    def noise(self, level: float) -> float:
        """The factor of eps in a latent at `level`."""
        ...

    def split(self, x: Tensor, estimate: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """(x0, eps) of a latent `x` (B, c, h, w) at `level`, given the denoiser's estimate there.

        The estimate is eps in diffusion. Where the first level has no signal, eps does not determine x0; flow matching
        estimates the velocity eps - x0, which determines both at every level.
        """
        ...

    def sampling_steps(self, num: int) -> tuple[Step, ...]:
        """The `num` steps from noise to image. Raises ValueError for an unusable number."""
        ...


@dataclass(frozen=True)
class DiffusionSchedule:
    """Cumulative signal level alpha_bar (float64, one entry per training timestep).

    `prediction_type` is what the network was trained to predict; `spacing` and `offset` place the timesteps
    of sampling, which ends at level `last` (0 or CLEAN). All are from the checkpoint's config. If the config names no spacing,
    each sampler uses its default, as `from_config` of diffusers does: leading for DDIM.
    """

    alpha_bar: Tensor
    prediction_type: PredictionType = "epsilon"
    spacing: Spacing | None = None
    offset: int = 1
    last: int = 0

    @classmethod
    def from_betas(
        cls, betas: Tensor, prediction_type: PredictionType = "epsilon"
    ) -> DiffusionSchedule:
        """Schedule of a beta table (any float dtype), DDPM eq. 4 (arXiv 2006.11239)."""
        return cls(torch.cumprod(1.0 - betas.double(), dim=0), prediction_type)

    @property
    def num_train_timesteps(self) -> int:
        return int(self.alpha_bar.shape[0])

    def signal(self, level: float) -> float:
        """sqrt(alpha_bar)."""
        return float(self._at(level).sqrt())

    def noise(self, level: float) -> float:
        """sqrt(1 - alpha_bar)."""
        return float((1.0 - self._at(level)).sqrt())

    def split(self, x: Tensor, estimate: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """x0 = (x - sqrt(1 - ab) eps) / sqrt(ab), and eps, which is the estimate."""
        return (x - self.noise(level) * estimate) / self.signal(level), estimate

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """Convert a network output for a latent `x` at `level` to the noise it implies.

        v-prediction: eps = sqrt(ab) v + sqrt(1 - ab) x (arXiv 2202.00512, appendix D).
        """
        if self.prediction_type == "epsilon":
            return prediction
        if self.prediction_type == "v_prediction":
            return self.signal(level) * prediction + self.noise(level) * x
        return (x - self.signal(level) * prediction) / self.noise(level)

    def sampling_steps(self, num: int) -> tuple[Step, ...]:
        """The `num` steps from noise to image that stock DDIM pipelines take, timesteps descending.

        Spacings of arXiv 2305.08891, table 2; each step goes down T // num levels, the last to `last`.
        Raises ValueError for an unusable number of steps.
        """
        total = self.num_train_timesteps
        if not 1 <= num <= total:
            raise ValueError(f"steps: found {num}; accepted: 1..{total}")
        # Python rounds halves to even, as numpy does in diffusers: the grids agree for every number of steps.
        if self.spacing == "trailing":
            grid = [round(total - i * total / num) - 1 for i in range(num)]
        elif self.spacing == "linspace":
            grid = [round(i * (total - 1) / max(1, num - 1)) for i in reversed(range(num))]
        else:
            grid = [i * (total // num) + self.offset for i in reversed(range(num))]
        if grid[0] >= total:
            raise ValueError(
                f"steps: {num} with the scheduler's steps_offset {self.offset} begins at timestep {grid[0]}; "
                f"accepted: timesteps below {total}, take fewer steps"
            )
        # diffusers goes down a fixed stride, not to the next timestep of an uneven grid.
        stride = total // num
        return tuple(Step(t, t, t - stride if t >= stride else self.last) for t in grid)

    def _at(self, level: float) -> Tensor:
        """alpha_bar at `level`; between two timesteps sigma = sqrt((1 - ab) / ab) is linear, as in diffusers' Euler."""
        last = self.num_train_timesteps - 1
        if not CLEAN <= level <= last:
            raise ValueError(f"level: found {level}; accepted: {CLEAN} (clean) to {last}")
        below = math.floor(level)
        if below == level:
            return self.alpha_bar.new_ones(()) if below == CLEAN else self.alpha_bar[below]
        near, far = ((1.0 / self._at(end) - 1.0).sqrt() for end in (below, below + 1))
        return 1.0 / (1.0 + (near + (level - below) * (far - near)) ** 2)


def table_of(schedule: Schedule) -> DiffusionSchedule:
    """`schedule` as a table of training timesteps. Raises ValueError for a family that has none."""
    if not isinstance(schedule, DiffusionSchedule):
        raise ValueError(
            f"model: found levels of {type(schedule).__name__}; accepted here: a table of training timesteps (diffusion)"
        )
    return schedule


def inversion_steps(sampling: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps of `sampling` backwards, timesteps ascending; each is evaluated at the timestep that it arrives at."""
    return tuple(Step(step.t, step.target, step.source) for step in reversed(sampling))


def linear_betas(num: int, start: float, end: float) -> Tensor:
    """The `linear` table of DDPM: `num` betas evenly spaced, float64."""
    return torch.linspace(start, end, num, dtype=torch.float64)


def scaled_linear_betas(num: int, start: float, end: float) -> Tensor:
    """The `scaled_linear` table of Stable Diffusion: evenly spaced square roots, float64."""
    return torch.linspace(start**0.5, end**0.5, num, dtype=torch.float64) ** 2


def trajectory(
    convention: Convention,
    steps: int,
    *,
    start: Start | None = None,
    grid: Grid = "stride",
    power: float = 1.0,
    num_train_timesteps: int = 1000,
) -> Trajectory:
    """Steps of inversion and reverse for StyleID (arXiv 2312.09008) in one of its two conventions.

    `ldm`: the first published code; `steps` divides the training timesteps; grid 1, 1 + T/n, ...
    `start="paper"` (default at 50 steps) inverts on to level T-1 and skips the first reverse step,
    `start="level"` (default otherwise) inverts to the last grid level and reverses from there; its
    last inversion step only records features (source and target are equal).
    `grid="spread"` places any number of timesteps from 1 to the last that 50 steps reach, and skips none:
    to the first evaluation of their reverse with `start="paper"`, which then inverts on to level T-1 likewise. They are even
    with `power` 1 and closer together near the picture above it (2: the quadratic grid of DDIM, arXiv 2010.02502, D.2).
    `diffusers`: the authors' port; each inversion step is evaluated at its *target* timestep.
    Raises ValueError for an unusable number of steps.
    """
    if convention == "diffusers":
        if start is not None:
            raise ValueError(
                f"start: {start!r} has no meaning in the diffusers convention; leave it out"
            )
        return _diffusers_trajectory(steps, num_train_timesteps)
    if grid == "spread":
        return _spread_trajectory(steps, start or "level", power, num_train_timesteps)
    if steps < 2 or steps >= num_train_timesteps or num_train_timesteps % steps:
        raise ValueError(
            f"steps: found {steps}; the ldm convention accepts divisors of {num_train_timesteps}: "
            f"{', '.join(str(n) for n in usable_steps(num_train_timesteps))}"
        )
    stride = num_train_timesteps // steps
    times = [1 + stride * i for i in range(steps)]
    # The paper's code takes 50 steps and skips one; elsewhere none is skipped, which gives a round trip about 10 dB better.
    start = start or ("paper" if steps == 50 else "level")
    last = num_train_timesteps - 1 if start == "paper" else times[-1]
    return _along(times, last, times[:-1] if start == "paper" else times)


def two_step(path: Trajectory) -> Trajectory:
    """`path` for a rule that uses two neighbouring levels: its reverse ends at the inversion's first level, not at 0.

    Raises ValueError for a path that inverts beyond its last timestep.
    """
    up = path.inversion
    if len(up) < 3 or up[-1].source != up[-1].target:
        raise ValueError('a two-step rule takes start="level" and at least 3 steps')
    down = tuple(Step(step.t, step.source, back.source) for back, step in pairwise(up))
    return Trajectory(up, down[::-1], returns_x0=False)


def _along(times: list[int], last: int, walked: list[int]) -> Trajectory:
    """Inversion along `times` to level `last`, reverse along `walked` to level 0."""
    # The reverse starts from the inversion's last latent, even where that is above its first timestep (start="paper").
    inversion = tuple(Step(t, t, to) for t, to in zip(times, [*times[1:], last], strict=True))
    reverse = tuple(Step(t, t, to) for t, to in zip(walked, [0, *walked[:-1]], strict=True))
    return Trajectory(inversion, reverse[::-1], returns_x0=False)


def _spread_trajectory(
    steps: int, start: Start, power: float, num_train_timesteps: int
) -> Trajectory:
    stride = max(1, num_train_timesteps // 50)  # of the paper's 50 steps
    top = num_train_timesteps - stride + 1 - (stride if start == "paper" else 0)
    if not 2 <= steps <= top:
        raise ValueError(f"steps: {steps} is out of range; grid spread accepts 2..{top}")
    times = [1 + round((top - 1) * (i / (steps - 1)) ** power) for i in range(steps)]
    if len(set(times)) < steps:
        raise ValueError(
            f"grid_power: found {power:g}, with which {steps} steps repeat timesteps; accepted: fewer steps or less power"
        )
    return _along(times, num_train_timesteps - 1 if start == "paper" else times[-1], times)


def usable_steps(num_train_timesteps: int = 1000) -> list[int]:
    """Numbers of steps that the ldm convention accepts."""
    return [n for n in range(2, num_train_timesteps) if num_train_timesteps % n == 0]


def _diffusers_trajectory(steps: int, num_train_timesteps: int) -> Trajectory:
    if not 1 <= steps < num_train_timesteps:
        raise ValueError(
            f"steps: {steps} is out of range; the diffusers convention accepts 1..{num_train_timesteps - 1}"
        )
    stride = num_train_timesteps // steps
    grid = [1 + stride * i for i in range(steps)]
    inversion = tuple(Step(t, max(0, t - stride), t) for t in grid)
    reverse = tuple(Step(t, t, max(0, t - stride)) for t in reversed(grid))
    return Trajectory(inversion, reverse, returns_x0=True)
