"""Arrays and Pillow's pictures that share their memory, which has four bytes a pixel, the last one unused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""(H, W, 3) in sRGB."""


def new_pixels(height: int, width: int) -> Pixels:
    """A white array that `image_of` takes without a copy."""
    return np.full((height, width, 4), 255, np.uint8)[..., :3]


def pixels_of(image: Image.Image) -> Pixels:
    """The pixels of an RGB picture; they cannot be written to."""
    try:
        memory = pa.array(image).flatten().to_numpy(zero_copy_only=True)
    except ValueError:  # Pillow keeps a large picture in several pieces
        return np.asarray(image)
    pixels: Pixels = memory.reshape(image.height, image.width, 4)[..., :3]
    return pixels


def image_of(pixels: Pixels) -> Image.Image:
    """The picture of an array; one with memory of four bytes a pixel must not be written to while the picture is in use."""
    height, width = pixels.shape[:2]
    memory = pixels.base
    if not isinstance(memory, np.ndarray):
        return Image.fromarray(pixels)
    is_shared = (
        pixels.shape == (height, width, 3)
        and pixels.strides == (4 * width, 4, 1)
        and memory.dtype == np.uint8
        and memory.flags.c_contiguous
        and memory.size == 4 * height * width
        # not the last three bytes of each pixel
        and memory.ctypes.data == pixels.ctypes.data
    )
    if not is_shared:
        return Image.fromarray(pixels)
    return Image.fromarrow(pa.array(memory.reshape(-1)), "RGB", (width, height))
