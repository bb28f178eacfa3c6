"""What both trainings share: a schedule on the wall clock, an average of weights, checkpoints.

A run is given seconds, not steps. Progress is the share of them spent, taken from rank 0 so that
all ranks use the same learning rate whatever else the machine is doing.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer


class Clock:
    """Iterate over progress in [0, 1) until the seconds are spent; ``spent`` resumes a run."""

    def __init__(self, accelerator: Accelerator, seconds: float, spent: float = 0.0) -> None:
        self.accelerator = accelerator
        self.seconds = seconds
        self.start = time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds used so far, those before a resume included."""
        return time.monotonic() - self.start

    def __iter__(self) -> Iterator[float]:
        while True:
            shared = torch.tensor([self.spent / self.seconds])
            if self.accelerator.num_processes > 1:
                torch.distributed.broadcast(shared, src=0)
            progress = float(shared)
            if progress >= 1:
                return
            yield progress


def learning_rate(progress: float, warmup: float = 0.02, hold: float = 0.45) -> float:
    """Factor of the peak rate: linear warmup, constant, cosine to zero at the end."""
    if progress < warmup:
        return progress / warmup
    if progress < hold:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - hold) / (1 - hold)))


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Scale every group's ``peak`` rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class Average:
    """Exponential moving average of parameters, with a short memory at the start."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: Iterable[nn.Parameter]) -> None:
        """Move towards the current parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[nn.Parameter]) -> None:
        """Overwrite parameters with the average."""
        for parameter, value in zip(parameters, self.values, strict=True):
            parameter.copy_(value)


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote, or None when there is nothing to resume."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Per image, for tensors in [-1, 1]."""
    error = (image.clamp(-1, 1) - reference).square().flatten(1).mean(1).clamp_min(1e-10)
    return 10 * torch.log10(4 / error)
