"""Pictures, manifests and latents that several parts measure with, and clocks that alternate between them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from stylebatch.data.images import Pixels
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.loading import load_model
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.models.unet.unet_loading import as_stable_diffusion
from stylebatch.spec import RunSpec

SIZE = 128
"""Pixels per side, the embedded model's native size."""


def picture(seed: int, size: int = SIZE) -> Pixels:
    """Coloured waves and blots (size, size, 3), no two alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [
        np.sin(2 * np.pi * (a * x + b * y + c)) + np.cos(2 * np.pi * (d * x * y + c))
        for a, b, c, d in rng.uniform(0.5, 7.0, (3, 4))
    ]
    pixels = 128 + 55 * np.stack(waves, axis=-1)
    for cx, cy, radius in rng.uniform(0.1, 0.9, (4, 3)):
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < (radius / 4) ** 2] = rng.uniform(0, 255, 3)
    clipped: Pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return clipped


def write_pictures(folder: Path, count: int, *, first_seed: int, size: int = SIZE) -> Path:
    """`count` PNG files in `folder`."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(picture(first_seed + index, size)).save(folder / f"{index:04d}.png")
    return folder


def run_spec(
    folder: Path, contents: int, styles: int, *, size: int = SIZE, **changes: Any
) -> RunSpec:
    """A manifest over new pictures below `folder`, embedded model, output in `folder/out`."""
    write_pictures(folder / "contents", contents, first_seed=0, size=size)
    write_pictures(folder / "styles", styles, first_seed=10_000, size=size)
    return RunSpec.model_validate(
        {
            "contents": {"path": str(folder / "contents")},
            "styles": {"path": str(folder / "styles")},
            "output": {"path": str(folder / "out")},
            **changes,
        }
    )


def loaded() -> StableDiffusion:
    """The embedded model on the CPU."""
    return as_stable_diffusion(load_model("tiny", device="cpu"))


def method(steps: int) -> StyleID:
    """StyleID at its defaults, with `start: paper` at any number of steps."""
    return StyleID(steps=steps, start="paper")


def latents(model: StableDiffusion, count: int, *, first_seed: int) -> Tensor:
    """Clean latents (count, c, h, w) of generated pictures."""
    return model.encode(to_tensor([picture(first_seed + index) for index in range(count)]))


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||."""
    return float((found - expected).norm() / expected.norm())


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Spent:
    """Seconds of one call: wall time, and CPU time of all threads, which other processes hardly affect."""

    wall: float
    cpu: float


def spent(work: Callable[[], object]) -> Spent:
    """Wall and CPU seconds of one call."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - started, time.process_time() - cpu)


def alternated(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work, `rounds` times, in turn."""
    # in turn and in alternating order: a slow moment, or the work before, meets all alike
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds):
        order = list(works) if turn % 2 == 0 else list(works)[::-1]
        for name in order:
            found[name].append(seconds(works[name]))
    return found


def medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of each work."""
    return {name: statistics.median(times) for name, times in found.items()}
