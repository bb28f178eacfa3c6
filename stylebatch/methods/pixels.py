"""uint8 pixels to network tensors and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """B arrays (H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], contiguous (pixel / 127.5 - 1)."""
    stacked = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1.0
    return torch.from_numpy(np.ascontiguousarray(stacked, dtype=np.float32))


def to_pixels(images: Tensor) -> list[NDArray[np.uint8]]:
    """(B, 3, H, W) in [-1, 1] -> B arrays (H, W, 3) uint8, rounded half to even.

    A picture with a NaN or an infinity raises ValueError: it must not become a silent black image.
    """
    if not bool(torch.isfinite(images).all()):
        raise ValueError(
            "the decoder returned values that are not finite; use a wider dtype (model.dtype: float32 or bfloat16)"
        )
    levels = ((images.float().clamp(-1.0, 1.0) / 2.0 + 0.5) * 255.0).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().contiguous().numpy())


def overlaid(
    made: NDArray[np.uint8], original: NDArray[np.uint8], mask: NDArray[np.floating[Any]]
) -> NDArray[np.uint8]:
    """`made` (H, W, 3) where `mask` (H, W) is 1, `original` where it is 0, between them mixed by it and rounded."""
    weight = mask[..., None]
    return np.round(weight * made + (1.0 - weight) * original).astype(np.uint8)
