"""uint8 pixels to network tensors and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylebatch.pixel_memory import new_pixels

ROWS = 128
"""Of a plane that become pixels at a time."""
Pixels = NDArray[np.uint8]
"""(H, W, 3) in sRGB, or a mask (H, W)."""


def to_tensor(pictures: Sequence[Pixels]) -> Tensor:
    """B arrays (H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], contiguous (pixel / 127.5 - 1)."""
    height, width = pictures[0].shape[:2]
    made = np.empty((len(pictures), 3, height, width), np.float32)
    # Plane by plane: passes over the whole batch would go through memory, not the cache.
    for pixels, values in zip(pictures, made, strict=True):
        for channel, plane in enumerate(values):
            plane[...] = pixels[..., channel]
            # both numbers are exact, so that float32 is rounded once, by the division
            plane -= 127.5
            plane /= 127.5
    return torch.from_numpy(made)


def to_pixels(images: Tensor) -> list[Pixels]:
    """(B, 3, H, W) in [-1, 1] -> B arrays (H, W, 3) uint8, rounded half to even.

    A picture with a NaN or an infinity raises ValueError: it must not become a silent black image.
    """
    found = [finite_pixels(image) for image in images]
    pixels = [np.ascontiguousarray(one) for one in found if one is not None]
    if len(pixels) < len(found):
        raise ValueError(
            "the decoder returned values that are not finite; use a wider dtype (model.dtype: float32 or bfloat16)"
        )
    return pixels


def finite_pixels(image: Tensor) -> Pixels | None:
    """As `to_pixels`, of one picture (3, H, W), in memory that Pillow shares; None where a value is NaN or infinite."""
    if not _all_finite(image):
        return None
    planes = image.detach().float().cpu().numpy()
    _, height, width = planes.shape
    pixels, levels = new_pixels(height, width), np.empty((min(ROWS, height), width), np.float32)
    for channel, plane in enumerate(planes):
        # some rows at a time, which the cache holds from the first step to the last
        for top in range(0, height, ROWS):
            part = plane[top : top + ROWS]
            level = np.clip(part, -1.0, 1.0, out=levels[: len(part)])
            # 255 (x / 2 + 1 / 2), of which the factors of 2 round nothing
            level += 1.0
            level *= 127.5
            # before the cast, which truncates; half to even, as NumPy does in `overlaid`
            pixels[top : top + ROWS, :, channel] = np.rint(level, out=level)
    return pixels


def _all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # A sum is finite only where all its terms are. Where it is not, it may have overflowed, and each value is looked at.
    return bool(torch.isfinite(x.sum(dtype=torch.float32))) or bool(torch.isfinite(x).all())


def overlaid(made: Pixels, original: Pixels, mask: NDArray[np.floating[Any]]) -> Pixels:
    """`made` (H, W, 3) where `mask` (H, W) is 1, `original` where it is 0, between them mixed by it and rounded."""
    weight = mask[..., None]
    return np.round(weight * made + (1.0 - weight) * original).astype(np.uint8)
