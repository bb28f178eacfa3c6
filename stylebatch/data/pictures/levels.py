"""Converts greyscale pictures of more than 8 bits: finds the value of white, then scales to 0..255.

32-bit integers and floats carry no range. White is found from values that many pixels reach, so that a single NaN, infinite
or extreme pixel changes nothing but itself. Values below 0 are black.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUMERIC = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
STRIP_PIXELS = 1 << 20
MAX_SAMPLED = 1 << 20
"""Number of values, spread over the picture, from which the range is found."""
OVERSHOOT = 2.0
"""A float picture whose values reach at most this has its white at 1: resampling overshoots at edges."""
HIGH_RANGE = 16.0
"""A float picture up to this is a high dynamic range one in units of 1; read as 0..255 it would be almost black."""

Values = NDArray[np.float64]


def white_level(image: Image.Image) -> float:
    """The value of white. Raises ValueError if no value is finite.

    65,535 for 16 bits. Else the least of 1 (floats only), 255 and 65,535 that all but a few values stay below, or the
    value that they reach if none fits.
    """
    if image.mode.startswith("I;16"):
        return 65535.0
    values = _sampled(image)
    if not values.size:
        raise ValueError("no value in it is a finite number")
    are_integers = bool((values == np.round(values)).all())
    # Integers are exact: few may pass the range. Floats were resampled or computed, and more of them overshoot.
    reached = _reached(values, 0.999 if are_integers else 0.95)
    if image.mode == "F" and reached <= (1.0 if are_integers else OVERSHOOT):
        return 1.0
    if image.mode == "F" and reached <= HIGH_RANGE and not are_integers:
        return _reached(values, 0.995)
    for level in (255.0, 65535.0):
        if reached <= level * (1.0 if are_integers else 1.1):
            return level
    return _reached(values, 0.999)


def to_8_bit(image: Image.Image, white: float) -> Image.Image:
    """The picture as L, converted strip by strip, so that only the result is as large as the picture."""
    found = Image.new("L", image.size)
    for top, values in _strips(image):
        levels = np.nan_to_num(values / white, nan=0.0, posinf=1.0, neginf=0.0) * 255.0 + 0.5
        found.paste(Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)), (0, top))
    return found


def _reached(values: Values, share: float) -> float:
    """The greatest value after the highest `1 - share` of all values, at least one, are left out."""
    place = min(int(share * (values.size - 1)), max(0, values.size - 2))
    return float(np.partition(values, place)[place])


def _sampled(image: Image.Image) -> Values:
    """Finite values, spread over the picture."""
    step = max(1, int(np.ceil(np.sqrt(image.width * image.height / MAX_SAMPLED))))
    found = [values[-top % step :: step, ::step].ravel() for top, values in _strips(image)]
    joined = np.concatenate(found)
    return joined[np.isfinite(joined)]


def _strips(image: Image.Image) -> Iterator[tuple[int, Values]]:
    height = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, height):
        bottom = min(image.height, top + height)
        strip = image.crop((0, top, image.width, bottom))
        yield top, np.asarray(strip).astype(np.float64)
