"""Loads an input row: its image, its mask, or the images of a blend, all fitted to the run's size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stylebatch.data.images import Component, FitMode, Picture, Pixels, load_picture
from stylebatch.data.sources import ImageRow, Part
from stylebatch.errors import SampleError

ASPECT_TOLERANCE = 0.02


def load_input(row: ImageRow, size: int, mode: FitMode) -> Picture:
    """The picture of a content or style; raises SampleError as `load_picture`, naming the file."""
    if row.parts:
        return _load_blend(row.parts, size, mode)
    picture = load_picture(row.path, size, mode, name=row.id)
    return replace(picture, mask=_load_mask(row, picture, size, mode)) if row.mask else picture


def _load_blend(parts: tuple[Part, ...], size: int, mode: FitMode) -> Picture:
    """The picture of a blend shows its images as columns, as wide as their weights, and has the size of the first."""
    loaded = [load_picture(part.path, size, mode, name=part.id) for part in parts]
    edges = np.round(np.cumsum([0.0] + [part.weight for part in parts]) * size).astype(int)
    columns = [picture.pixels[:, edges[i] : edges[i + 1]] for i, picture in enumerate(loaded)]
    components = tuple(
        Component(part.id, picture.pixels, part.weight)
        for part, picture in zip(parts, loaded, strict=True)
    )
    return replace(loaded[0], pixels=np.concatenate(columns, axis=1), components=components)


def _load_mask(row: ImageRow, content: Picture, size: int, mode: FitMode) -> Pixels:
    """Luma of the mask, (H, W), fitted like its content, whose proportions it must have."""
    name = f"mask of {row.id}"
    mask = load_picture(row.mask, size, mode, name=name)
    ratio = (mask.original_width * content.original_height) / (
        mask.original_height * content.original_width
    )
    if abs(ratio - 1.0) > ASPECT_TOLERANCE:
        raise SampleError(
            "mask",
            f"{name}: {mask.original_width} x {mask.original_height} pixels; accepted: the proportions of the content, "
            f"{content.original_width} x {content.original_height}",
        )
    luma: Pixels = np.round(mask.pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return luma
