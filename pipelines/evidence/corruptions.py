"""Noise, blur and contrast at one strength each, for pictures of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stylebatch.data.images import Pixels

NOISE, BLUR, CONTRAST = 0.1, 0.025, 0.5
"""Deviation of noise (of a range of 1); deviation of the Gaussian blur (of the side); what is left of the contrast."""


def _noise(pixels: Pixels) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return pixels + rng.normal(0, NOISE * 255, pixels.shape)


def _blur(pixels: Pixels) -> NDArray[np.float64]:
    radius = BLUR * pixels.shape[1]
    blurred = [
        np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(radius))) for one in pixels
    ]
    return np.stack(blurred).astype(np.float64)


def _contrast(pixels: Pixels) -> NDArray[np.float64]:
    mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + CONTRAST * (pixels - mean), dtype=np.float64)


CORRUPTIONS: dict[str, Callable[[Pixels], NDArray[np.float64]]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
}


def corrupted(pixels: Pixels, name: str) -> Pixels:
    """(images, h, w, 3) uint8, the same noise for the same shape."""
    changed = CORRUPTIONS[name](pixels)
    return np.asarray(np.clip(np.rint(changed), 0, 255), dtype=np.uint8)
