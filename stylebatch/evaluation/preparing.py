"""Pictures as the definitions of measures resize them; each has its own filter, and other filters give other numbers."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylebatch.pixel_memory import Pixels, image_of

SHORTER_SIDE = 512
FID_SIDE = 299


def unit_tensor(pixels: Pixels) -> Tensor:
    """(1, 3, H, W), 0 to 1."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255.0


def with_shorter_side(pixels: Pixels, side: int = SHORTER_SIDE) -> Pixels:
    """The shorter side as given, in proportion; bilinear, antialiased (Pillow), as ArtFID is computed."""
    height, width = pixels.shape[:2]
    if min(height, width) == side:
        return pixels
    # rounded down, as the library does that the definition was written with
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    return np.asarray(image_of(pixels).resize(size, Image.Resampling.BILINEAR))


def like_tensorflow(images: Tensor, side: int = FID_SIDE) -> Tensor:
    """(N, 3, H, W) -> (N, 3, side, side): bilinear without antialiasing, sampled at i * H / side, as TensorFlow 1 does.

    The FID is defined by it.
    """
    return _along(_along(images, 2, side), 3, side)


def _along(values: Tensor, dim: int, side: int) -> Tensor:
    count = values.shape[dim]
    # float32, as the definition: a double would round some places to other pixels
    places = torch.arange(side, dtype=torch.float32) * torch.tensor(count / side)
    low = places.long()
    high = (low + 1).clamp_max(count - 1)
    share = (places - low).reshape([-1 if axis == dim else 1 for axis in range(4)])
    one, other = values.index_select(dim, low), values.index_select(dim, high)
    return one + (other - one) * share
