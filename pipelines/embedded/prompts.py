"""Tests whether prompts have an effect: samples of two captions are compared by a statistic of their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.float64]


def blueness(images: Images) -> Images:
    """Mean blue less mean red of each image (n, H, W, 3) in 0..255."""
    means: Images = images.mean(axis=(1, 2))
    return means[:, 2] - means[:, 0]


def detail(images: Images) -> Images:
    """Mean absolute difference of horizontal neighbours in grey, 0..255."""
    grey = images.mean(axis=-1)
    steps: Images = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    return steps


@dataclass(frozen=True)
class Contrast:
    """Two captions, and a statistic that is higher for the first; `in_data` is the difference in the training images."""

    first: str
    second: str
    statistic: Callable[[Images], Images]
    in_data: float


CONTRASTS = (
    Contrast("a photo of sea", "a photo of fields", blueness, 84.3),
    Contrast(
        "a painting in the style of ink hatching",
        "a painting in the style of poster colours",
        detail,
        12.7,
    ),
)


@dataclass(frozen=True)
class Response:
    """Difference of means between the captions of a contrast, its standard error, and the guidance scale."""

    contrast: Contrast
    guidance: float
    difference: float
    error: float


class Prompter:
    """Samples of the pipeline folder, the same noise for every caption."""

    def __init__(self, folder: Path, *, steps: int = 20, batch: int = 16) -> None:
        self.pipeline = StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None)
        self.pipeline.set_progress_bar_config(disable=True)
        self.steps, self.batch = steps, batch

    def images(self, caption: str, guidance: float, count: int) -> Images:
        """`count` samples (count, H, W, 3) in 0..255."""
        parts = []
        for first in range(0, count, self.batch):
            seeds: Sequence[int] = range(first, min(first + self.batch, count))
            made = self.pipeline(
                [caption] * len(seeds), num_inference_steps=self.steps, guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds], output_type="np",
            ).images  # fmt: skip
            parts.append(made.astype(np.float64) * 255)
        return np.concatenate(parts)

    def sheet(self, path: Path, *, guidance: float, count: int = 8) -> None:
        """Samples of every caption, one row per caption."""
        captions = [c for contrast in CONTRASTS for c in (contrast.first, contrast.second)]
        rows = [np.concatenate(list(self.images(c, guidance, count)), axis=1) for c in captions]
        Image.fromarray(np.concatenate(rows).round().astype(np.uint8)).save(path)

    def respond(self, contrast: Contrast, guidance: float, count: int = 64) -> Response:
        """The mean difference of the statistic between the two captions."""
        first, second = (
            contrast.statistic(self.images(caption, guidance, count))
            for caption in (contrast.first, contrast.second)
        )
        # same noise for both: differences by pair have less variance than the means
        gap = first - second
        return Response(
            contrast, guidance, float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(count))
        )
