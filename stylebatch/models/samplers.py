"""Walks from noise to image by the schedulers of diffusers, on our denoisers.

A scheduler is built from the checkpoint's own schedule, and is given what the network predicts. It keeps the steps before,
so that every batch takes one of its own.
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
from stylebatch.diffusion.schedule import Schedule, Step
from stylebatch.models.base import Denoiser

_CLASSES: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


class StockSampler:
    """One walk of `steps` steps, its last `walked` ones taken, for samples whose random streams are `generators`."""

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        steps: int,
        walked: int,
        generators: Sequence[torch.Generator],
    ) -> None:
        alpha_bar = schedule.alpha_bar
        before = torch.cat([torch.ones(1, dtype=alpha_bar.dtype), alpha_bar[:-1]])
        self._scheduler = _CLASSES[name](
            num_train_timesteps=schedule.num_train_timesteps,
            trained_betas=(1.0 - alpha_bar / before).numpy(),
            prediction_type=schedule.prediction_type,
            timestep_spacing=schedule.spacing,
            steps_offset=schedule.offset,
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
        """What the walk starts from when nothing is kept."""
        return noise * float(self._scheduler.init_noise_sigma)

    def noised(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """`clean` as it is before step `index`."""
        times = self._timesteps[index : index + 1].repeat(len(clean))
        return cast(Tensor, self._scheduler.add_noise(clean, noise.to(clean.device), times))

    def step(self, predict: PredictNoise, x: Tensor, index: int) -> Tensor:
        """The latents after step `index`; `predict` gives the network's own output."""
        t = self._timesteps[index]
        level = t.item()
        out = predict(self._scheduler.scale_model_input(x, t), Step(level, level, level))
        options = {"generator": self._generators} if self._is_random else {}
        return cast(Tensor, self._scheduler.step(out, t, x, **options).prev_sample)


def unconverted(model: Denoiser) -> Denoiser:
    """A view of `model` whose `predict_noise` gives what the network predicts, noise or not."""
    view = copy.copy(model)
    view.schedule = replace(model.schedule, prediction_type="epsilon")
    return view
