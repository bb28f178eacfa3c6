"""Grids of sample pictures and the loss curve of a training run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from stylebatch.data.images import Pixels

MANY = 60
"""A curve of this many points or more gets a running mean."""


def grid(pictures: Sequence[Pixels], columns: int, gap: int = 2) -> Pixels:
    """Pictures of one size, row by row, on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def save_grid(pictures: Sequence[Pixels], columns: int, path: Path) -> Pixels:
    """Write the grid as PNG and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = grid(pictures, columns)
    Image.fromarray(canvas).save(path)
    return canvas


def read_log(path: Path) -> list[dict[str, float]]:
    """Lines of a `log.jsonl`; a line cut off by a crash is skipped."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last tenth of all points, fewer at the start."""
    reach = max(2, len(values) // 10)
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - reach, 0)
    means: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return means


def draw_curve(log: Path, path: Path) -> None:
    """Plot loss and measures against steps, with running means of many points; an empty log gives no file."""
    lines = read_log(log)
    if not lines:
        return
    names = [
        name
        for name in dict.fromkeys(key for line in lines for key in line)
        if name not in ("step", "seconds", "rate")
    ]
    # Figure, not pyplot, which keeps figures alive and picks a backend for a screen
    figure = Figure(figsize=(7, 2.6 * len(names)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
    for axis, name in zip(axes, names, strict=True):
        points = np.array([(line["step"], line[name]) for line in lines if name in line])
        few = len(points) < MANY
        axis.plot(*points.T, marker="." if few else "", linewidth=1, alpha=1 if few else 0.35)
        if not few:
            axis.plot(points[:, 0], _running_mean(points[:, 1]), linewidth=2)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("optimizer steps")
    figure.savefig(path, dpi=110)
