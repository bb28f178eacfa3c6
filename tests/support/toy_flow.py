"""A model family of 60 lines: a flow-matching network that has learned N(MEAN, STD^2), without weights, text or table of timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from stylebatch.diffusion.schedule import Step
from stylebatch.models.denoiser import Conditioning, Denoiser
from stylebatch.models.family import About, Family, Memory, Sizes
from stylebatch.models.pipeline_files import PipelineFiles

MEAN, STD = 0.4, 0.6


class FlowSchedule:
    """x_t = (1 - t) x0 + t eps. The level is the share of noise t; the denoiser's estimate is the velocity eps - x0."""

    def signal(self, level: float) -> float:
        return 1.0 - level

    def noise(self, level: float) -> float:
        return level

    def split(self, x: Tensor, estimate: Tensor, level: float) -> tuple[Tensor, Tensor]:
        return x - level * estimate, x + (1.0 - level) * estimate

    def sampling_steps(self, num: int) -> tuple[Step, ...]:
        levels = [1.0 - i / num for i in range(num + 1)]
        return tuple(Step(1000.0 * a, a, b) for a, b in pairwise(levels))


class Flow(Denoiser):
    schedule, device, dtype = FlowSchedule(), torch.device("cpu"), torch.float32
    native_cells, latent_channels, latent_factor = 8, 3, 1

    def embed(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), 1, 1))

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents.clamp(-1.0, 1.0)

    def predict_noise(
        self, x: Tensor, t: float, cond: Conditioning, *, level: float | None = None
    ) -> Tensor:
        """E[eps - x0 | x_t], which is linear in x_t."""
        if self.on_evaluations is not None:
            self.on_evaluations(x.shape[0])
        share = t / 1000.0
        away = (x - (1.0 - share) * MEAN) / (((1.0 - share) * STD) ** 2 + share**2)
        return share * away - MEAN - (1.0 - share) * STD**2 * away


@dataclass(frozen=True)
class ToyFlow(Family):
    """Of folders whose `transformer/config.json` names this class, and the pixels per side that it was trained on."""

    files: PipelineFiles
    loader = __name__

    @property
    def sizes(self) -> Sizes:
        side = self.files.fields("transformer").count("side")
        return Sizes((side, side), multiple=2, latent_factor=1, latent_channels=3)

    def memory(self, size: tuple[int, int], value_bytes: int) -> Memory:
        plane = 3 * size[0] * size[1] * value_bytes
        return Memory(row=4 * plane, picture=plane, features={})

    def about(self) -> About:
        return About("Toy Flow", "toy", "velocity", {})


def load(family: ToyFlow, *, dtype: str, device: torch.device, offload: str) -> Flow:
    return Flow()
