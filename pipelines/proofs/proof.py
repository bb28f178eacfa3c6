"""Checks of figures against arithmetic, resident memory, and random networks that are held in memory once."""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Check:
    """A figure beside what the arithmetic says; `tolerance` is relative, 0 for exact."""

    name: str
    measured: float
    expected: float
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        return abs(self.measured - self.expected) <= self.tolerance * abs(self.expected)

    def line(self) -> str:
        figures = f"{self.name:<60} {self.measured:>16,.0f} {self.expected:>16,.0f}"
        off = f"{self.measured / self.expected - 1:>+8.2%} of {self.tolerance:.0%}"
        return f"{figures} {off}  {'holds' if self.holds else 'FAILS'}"


@dataclass
class Record:
    """Checks, and figures without an expectation (seconds and bytes)."""

    checks: list[Check] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def check(self, name: str, measured: float, expected: float, tolerance: float = 0.0) -> None:
        self.checks.append(Check(name, float(measured), float(expected), tolerance))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.figures[f"{name}, s"] = round(time.perf_counter() - started, 3)


def resident() -> int:
    """Bytes of the resident set once freed memory is given back; `peak` counts from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak(of="VmRSS")


def peak(of: str = "VmHWM") -> int:
    """Largest resident set, in bytes, since `resident()`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{of}:"))


def random_network(
    build: Callable[..., Any],
    config: Mapping[str, Any],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Any:
    """A network that is in memory once: weights drawn on `device` with variance 1/4 per unit of input, no biases."""
    with torch.device("meta"):
        network = build(**config)
    torch.nn.Module.to(network, dtype)  # diffusers' `to` warns of modules that it keeps in float32
    network.to_empty(device=device).eval().requires_grad_(False)
    for buffer in network.buffers():  # of our networks: the positions of tokens
        buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape))
    draw = torch.Generator(device).manual_seed(seed)
    for name, weights in network.named_parameters():
        weights.fill_(1.0 if name.endswith("weight") else 0.0)
        if weights.ndim > 1:
            bound = 0.5 * math.sqrt(3 * weights.shape[0] / weights.numel())
            weights.uniform_(-bound, bound, generator=draw)
    return network
