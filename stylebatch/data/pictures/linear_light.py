"""Resizes pictures in linear light, as a lens mixes it; in sRGB's codes fine bright detail comes out too dark."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_PIXELS = 1 << 21
"""Of the source that are held as floats at a time: a whole picture would take several times its own memory."""
_SUPPORT = 3.0
"""Source pixels, at their own scale, on each side that Lanczos looks at."""


def _light_of_code() -> NDArray[np.float32]:
    """(256,): linear light of each sRGB code, 0 to 1, by IEC 61966-2-1."""
    value = np.arange(256) / 255.0
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


_LIGHT = _light_of_code()


def resized_in_light(
    image: Image.Image, size: tuple[int, int], to_srgb: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """By Lanczos; `to_srgb` makes an RGB picture in sRGB of a part of `image`."""
    (width, height), scale = size, image.height / size[1]
    margin = math.ceil(_SUPPORT * max(1.0, scale)) + 1
    step = max(1, int((BAND_PIXELS / image.width - 2 * margin) / scale))
    found = Image.new("RGB", size)
    for top in range(0, height, step):
        bottom = min(height, top + step)
        # What lies beyond the support of a band's rows has no weight, so that bands join without a seam.
        first = max(0, math.floor(top * scale) - margin)
        last = min(image.height, math.ceil(bottom * scale) + margin)
        codes = np.asarray(to_srgb(image.crop((0, first, image.width, last))))
        box = (
            0.0,
            top * scale - first,
            float(image.width),
            min(bottom * scale, image.height) - first,
        )
        bands = [
            np.asarray(
                Image.fromarray(_LIGHT[codes[..., channel]]).resize(
                    (width, bottom - top), Image.Resampling.LANCZOS, box
                )
            )
            for channel in range(3)
        ]
        found.paste(Image.fromarray(_codes(np.stack(bands, axis=-1))), (0, top))
    return found


def _codes(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """sRGB codes of linear light; Lanczos may pass 0 and 1."""
    bounded = np.clip(light, 0.0, 1.0)
    value = np.where(bounded <= 0.0031308, bounded * 12.92, 1.055 * bounded ** (1 / 2.4) - 0.055)
    return np.round(value * 255.0).astype(np.uint8)
