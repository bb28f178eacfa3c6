"""MultiDiffusion (arXiv 2302.08113): a canvas is denoised as overlapping windows that are averaged.

At eta 0 a DDIM step is affine in eps for a given latent, so the average of eps over windows equals the
average of the stepped latents; hence one wrapper around `predict_noise` serves every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylebatch.diffusion.ddim import PredictNoise
from stylebatch.diffusion.schedule import Step


@dataclass(frozen=True)
class Windows:
    """How a canvas is cut, in latent cells. A canvas smaller than the window is one window.

    `circular`: the canvas wraps around in width (a full panorama). The last window of a row or column is
    flush with the border, so every cell is covered whatever the stride.
    """

    size: int
    stride: int
    circular: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size:
            raise ValueError(
                f"stride: found {self.stride} with windows of {self.size}; accepted: 1 to the window's size"
            )

    def views(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Top left cells of the windows, row by row."""
        # A window as wide as the canvas sees every column already: wrapping it would repeat columns.
        lefts = (
            list(range(0, width, self.stride))
            if self.circular and width > self.size
            else _starts(width, self.size, self.stride)
        )
        return tuple(
            (top, left) for top in _starts(height, self.size, self.stride) for left in lefts
        )

    def cut(self, canvas: Tensor) -> Tensor:
        """(B, c, h, w) -> (V * B, c, size, size), view by view, at most the canvas on each side."""
        height, width = canvas.shape[-2:]
        tall, wide = min(self.size, height), min(self.size, width)
        tiled = torch.cat([canvas, canvas[..., :wide]], dim=-1) if self.circular else canvas
        return torch.cat(
            [
                tiled[..., top : top + tall, left : left + wide]
                for top, left in self.views(height, width)
            ]
        )

    def average(self, views: Tensor, height: int, width: int) -> Tensor:
        """The inverse of `cut`: (V * B, c, size, size) -> (B, c, height, width), the mean where views overlap."""
        corners = self.views(height, width)
        parts = views.chunk(len(corners))
        total = views.new_zeros(*parts[0].shape[:2], height, width)
        count = views.new_zeros(height, width)
        for (top, left), part in zip(corners, parts, strict=True):
            rows = torch.arange(top, top + part.shape[-2], device=views.device)[:, None]
            columns = torch.arange(left, left + part.shape[-1], device=views.device) % width
            # `+=` counts a repeated index once; a view is never wider than the canvas, so that none repeats.
            total[..., rows, columns] += part
            count[rows, columns] += 1
        return total / count


def windowed(predict: PredictNoise, windows: Windows, *, view_batch: int = 8) -> PredictNoise:
    """`predict` on a canvas (B, c, h, w) by windows, at most `view_batch` views of all B per call.

    `predict` is given V * B rows view by view, so it must treat row r as sample r mod B.
    """

    def on_canvas(x: Tensor, step: Step) -> Tensor:
        calls: Sequence[Tensor] = windows.cut(x).split(view_batch * x.shape[0])
        return windows.average(torch.cat([predict(part, step) for part in calls]), *x.shape[-2:])

    return on_canvas


def _starts(length: int, size: int, stride: int) -> list[int]:
    last = max(0, length - size)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]
