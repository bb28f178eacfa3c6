"""uint8 pixels to network tensors and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]
"""(H, W, 3) in sRGB, or a mask (H, W)."""


def to_tensor(pictures: Sequence[Pixels]) -> Tensor:
    """B arrays (H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], contiguous (pixel / 127.5 - 1)."""
    height, width = pictures[0].shape[:2]
    made = np.empty((len(pictures), 3, height, width), np.float32)
    # One by one: passes over the whole batch would go through memory, not the cache.
    for pixels, values in zip(pictures, made, strict=True):
        values[...] = pixels.transpose(2, 0, 1)
        # (2 p - 255) / 255: whole numbers and one division, so that float32 is rounded once
        values *= 2.0
        values -= 255.0
        values /= 255.0
    return torch.from_numpy(made)


def to_pixels(images: Tensor) -> list[Pixels]:
    """(B, 3, H, W) in [-1, 1] -> B arrays (H, W, 3) uint8, rounded half to even.

    A picture with a NaN or an infinity raises ValueError: it must not become a silent black image.
    """
    if not all_finite(images):
        raise ValueError(
            "the decoder returned values that are not finite; use a wider dtype (model.dtype: float32 or bfloat16)"
        )
    # rounded before the cast, which truncates; half to even, as NumPy does in `overlaid`
    levels = images.detach().float().clamp(-1.0, 1.0).mul_(0.5).add_(0.5).mul_(255.0).round_()
    # NumPy casts faster than torch does on a CPU; from a device a quarter of the bytes comes over
    planes = (levels if levels.device.type == "cpu" else levels.to(torch.uint8)).cpu().numpy()
    planes = planes.astype(np.uint8)
    pixels = np.empty((*planes.shape[:1], *planes.shape[2:], 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = planes[:, channel]
    return list(pixels)


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # A sum is finite only where all its terms are. Where it is not, it may have overflowed, and each value is looked at.
    return bool(torch.isfinite(x.sum(dtype=torch.float32))) or bool(torch.isfinite(x).all())


def overlaid(made: Pixels, original: Pixels, mask: NDArray[np.floating[Any]]) -> Pixels:
    """`made` (H, W, 3) where `mask` (H, W) is 1, `original` where it is 0, between them mixed by it and rounded."""
    weight = mask[..., None]
    return np.round(weight * made + (1.0 - weight) * original).astype(np.uint8)
