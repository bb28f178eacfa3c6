"""What the table of measures looks at: small reductions of a picture, each computed when it is first asked for, and kept.

An input is compared with many results, so what is known of it is known once. Values are float32.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylebatch.pixel_memory import Pixels, image_of

Floats = NDArray[np.float32]

SIDE, FINE_SIDE = 64, 128
OCTAVES, ORIENTATIONS = 4, 4
LAG = 4
"""Pixels between those whose difference stands for the coarse in `sharpness`."""
_ROWS = 16
"""Of a picture, evenly spaced, whose pixels are looked at one by one."""
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
WHITE_D65 = RGB_TO_XYZ.sum(axis=1)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FLAT = 1e-3
"""Deviations below this many levels are none."""


class Reduction:
    """A picture (H, W, 3) as the measures see it: 64 x 64 for structure and colours, 128 x 128 for texture, rows of pixels."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    @cached_property
    def _fine(self) -> Image.Image:
        size = (FINE_SIDE, FINE_SIDE)
        # reducing_gap: a fast integer reduction first, which a box filter makes almost exact
        return image_of(self._pixels).resize(size, Image.Resampling.BOX, reducing_gap=1.0)

    @cached_property
    def small(self) -> Pixels:
        """(64, 64, 3) uint8: means of boxes."""
        return np.asarray(self._fine.reduce(FINE_SIDE // SIDE))

    @cached_property
    def _planes(self) -> Pixels:
        """`small` by channel, (3, 4096)."""
        return np.ascontiguousarray(self.small.reshape(-1, 3).T)

    @cached_property
    def values(self) -> Floats:
        """`small` by channel, (3, 4096)."""
        return self._planes.astype(np.float32)

    @cached_property
    def spread(self) -> float:
        """Sum of squared deviations of `values` from their channel's mean."""
        return _squares(self.values - self.values.mean(axis=1, keepdims=True))

    @cached_property
    def luma(self) -> Floats:
        """(64, 64), 0 to 255, weights of ITU-R BT.601."""
        values: Floats = (_LUMA @ self.values).reshape(SIDE, SIDE)
        return values

    @cached_property
    def edges(self) -> tuple[Floats, float]:
        """Gradient magnitudes of luma less their mean, (4096,), and their length."""
        vertical, horizontal = np.gradient(self.luma)
        magnitude = np.sqrt(vertical * vertical + horizontal * horizontal).ravel()
        magnitude -= magnitude.mean()
        return magnitude, math.sqrt(_squares(magnitude))

    @cached_property
    def ordered_lab(self) -> Floats:
        """L*, a*, b* of `small`, each channel in order, (3, 4096)."""
        light = _LINEAR[self._planes]
        # 1e-6: the logarithm of black is not finite, and the line holds there anyway
        xyz = np.maximum(_RGB_TO_WHITE @ light, np.float32(1e-6))
        root = np.exp(np.log(xyz) * np.float32(1 / 3))
        x, y, z = np.where(xyz > _KNEE, root, xyz * _SLOPE + np.float32(4 / 29))
        lab: Floats = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
        lab.sort(axis=1)
        return lab

    @cached_property
    def bands(self) -> Floats:
        """Shares of luma's energy in bands of 4 octaves x 4 orientations, (16,), sum 1; zeros where there is no texture.

        Of the 128 x 128 reduction under a Hann window: wavelengths from 2 to 32 of its pixels.
        """
        luma = np.asarray(self._fine.convert("L")).astype(np.float32)
        luma -= luma.mean()
        luma *= _hann()
        spectrum = np.fft.rfft2(luma)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
        height, width = self._pixels.shape[:2]
        energy: Floats = _band_weights(height, width) @ power.ravel()
        total = float(energy.sum())
        # less than a level of deviation is rounding
        return energy / np.float32(total) if total > FINE_SIDE**4 / 64 else np.zeros_like(energy)

    @cached_property
    def _rows(self) -> Pixels:
        """(3 channels, 3, n, W): evenly spaced rows, those 1 below each, and those LAG below, nearer where there are not as many."""
        height, width = self._pixels.shape[:2]
        reach = min(LAG, height - 1)
        step = -(-(height - reach) // _ROWS)
        starts = range((step - 1) // 2, height - reach, step)
        rows = np.empty((3, 3, len(starts), width), np.uint8)
        for place, down in enumerate((0, min(1, reach), reach)):
            # plane by plane: a copy of three bytes of each four is several times slower
            below = self._pixels[starts.start + down :: step][: len(starts)]
            for channel in range(3):
                rows[channel, place] = below[..., channel]
        return rows

    @cached_property
    def clipped(self) -> float:
        """Share of values at 0 or 255."""
        # 255 + 1 is 0 in bytes: one comparison finds both
        return float(np.count_nonzero(self._rows + np.uint8(1) <= 1)) / self._rows.size

    @cached_property
    def fine_detail(self) -> float:
        """Root mean square difference of neighbours over that of pixels LAG apart, 0 to 1.

        It is 0 where pixels LAG apart differ by less than a level: that is rounding.
        """
        here, below, far_below = np.tensordot(_LUMA, self._rows.astype(np.float32), 1)
        across = min(LAG, here.shape[1] - 1)
        near = _square(here[:, 1:] - here[:, :-1]) + _square(below - here)
        far = _square(here[:, across:] - here[:, : here.shape[1] - across])
        far += _square(far_below - here)
        return min(1.0, math.sqrt(near / far)) if far > 1.0 else 0.0


def correlation(one: tuple[Floats, float], other: tuple[Floats, float]) -> float:
    """Pearson's, -1 to 1, of centred values with their lengths; 0 where either is constant."""
    (first, length), (second, other_length) = one, other
    if min(length, other_length) < _FLAT:
        return 0.0
    # rounding may pass 1 by a last bit, and readers of the records check the range
    return max(-1.0, min(1.0, float(first @ second) / (length * other_length)))


def determination(result: Reduction, of: Reduction) -> float:
    """Coefficient of determination, R squared, of `of` by the result at equal places, not below 0; 1 is a copy."""
    left = _squares(result.values - of.values)
    if of.spread < _FLAT:
        return float(left < _FLAT)
    return max(0.0, 1.0 - left / of.spread)


def _squares(values: Floats) -> float:
    return float(np.vdot(values, values))


def _square(differences: Floats) -> float:
    """Mean square; 0 of none."""
    return _squares(differences) / differences.size if differences.size else 0.0


@lru_cache(maxsize=1)
def _hann() -> Floats:
    window = np.hanning(FINE_SIDE + 1)[:-1]
    # energy as without a window
    return np.outer(window, window).astype(np.float32) * np.float32(8 / 3)


@lru_cache(maxsize=64)
def _band_weights(height: int, width: int) -> Floats:
    """(16, 128 * 65): the part of each frequency of a real spectrum in each band; of one frequency they sum to 1 at most.

    Frequencies are those of the picture before it was squeezed to a square, in cycles per pixel of a square of its area.
    """
    squeeze = math.sqrt(height / width)
    fy = np.fft.fftfreq(FINE_SIDE)[:, None] / squeeze
    fx = np.fft.rfftfreq(FINE_SIDE)[None, :] * squeeze
    octave = np.log2(np.maximum(np.hypot(fy, fx), 1e-9)) + OCTAVES + 0.5
    turn = np.arctan2(fy, fx) / math.pi * ORIENTATIONS
    # each column but the first and the last stands for itself and its mirror image
    twice = np.full((1, FINE_SIDE // 2 + 1), 2.0)
    twice[0, [0, -1]] = 1.0
    weights = []
    for one in range(OCTAVES):
        scale = np.clip(1 - np.abs(octave - one), 0, 1) * twice
        for other in range(ORIENTATIONS):
            off = np.abs((turn - other + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2)
            weights.append((scale * np.clip(1 - off, 0, 1)).ravel())
    return np.stack(weights).astype(np.float32)


def _linear_of_code() -> NDArray[np.float64]:
    """(256,): linear light of each sRGB code, 0 to 1, by the transfer function of IEC 61966-2-1."""
    value = np.arange(256) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


LINEAR = _linear_of_code()
"""Indexed by pixels: 256 powers instead of one per pixel."""
_LINEAR = LINEAR.astype(np.float32)
_RGB_TO_WHITE = (RGB_TO_XYZ / WHITE_D65[:, None]).astype(np.float32)
_KNEE, _SLOPE = np.float32((6 / 29) ** 3), np.float32((29 / 6) ** 2 / 3)
