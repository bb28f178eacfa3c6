"""Samples from noise to image with diffusers' schedulers and our denoisers.

A scheduler is built from the checkpoint's schedule and takes the raw output of the network. It remembers earlier steps, so
every batch needs its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from stylebatch.diffusion.ddim import PredictNoise
from stylebatch.diffusion.schedule import DiffusionSchedule, Step, table_of
from stylebatch.models.denoiser import Denoiser

_CLASSES: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


class StockSampler:
    """The last `walked` of `steps` steps, for one batch of samples whose random streams are `generators`."""

    def __init__(
        self,
        name: str,
        schedule: DiffusionSchedule,
        steps: int,
        walked: int,
        generators: Sequence[torch.Generator],
    ) -> None:
        # diffusers takes betas: 1 - alpha_bar_t / alpha_bar_(t-1), with alpha_bar 1 before the first
        alpha_bar = schedule.alpha_bar
        before = torch.cat([torch.ones(1, dtype=alpha_bar.dtype), alpha_bar[:-1]])
        # each class has its own default spacing, so that none is passed where the config names none
        spacing = {} if schedule.spacing is None else {"timestep_spacing": schedule.spacing}
        self._scheduler = _CLASSES[name](
            num_train_timesteps=schedule.num_train_timesteps,
            trained_betas=(1.0 - alpha_bar / before).numpy(),
            prediction_type=schedule.prediction_type,
            steps_offset=schedule.offset,
            **spacing,
        )
        self._scheduler.set_timesteps(steps)
        self._first = steps - walked
        self._scheduler.set_begin_index(self._first)
        self._timesteps = self._scheduler.timesteps[self._first :]
        self._is_random = name == "euler_ancestral"
        self._generators = list(generators)

    @property
    def num_steps(self) -> int:
        return len(self._timesteps)

    def begin(self, noise: Tensor) -> Tensor:
        """The start latent from pure noise."""
        return noise * float(self._scheduler.init_noise_sigma)

    def noised(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """`clean` with the noise of the level before step `index`."""
        times = self._timesteps[index : index + 1].repeat(len(clean))
        return cast(Tensor, self._scheduler.add_noise(clean, noise.to(clean.device), times))

    def step(self, predict: PredictNoise, x: Tensor, index: int) -> Tensor:
        """The latents after step `index`; `predict` returns the raw output of the network."""
        t = self._timesteps[index]
        level = t.item()
        out = predict(self._scheduler.scale_model_input(x, t), Step(level, level, level))
        options = {"generator": self._generators} if self._is_random else {}
        return cast(Tensor, self._scheduler.step(out, t, x, **options).prev_sample)


def unconverted(model: Denoiser) -> Denoiser:
    """A shallow copy of `model` whose `predict_noise` returns the raw output of the network, noise or not."""
    # a schedule that claims eps converts nothing; weights and hooks are shared
    view = copy.copy(model)
    view.schedule = replace(table_of(model.schedule), prediction_type="epsilon")  # type: ignore[misc]
    return view
