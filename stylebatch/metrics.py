"""Measures of a stylised image against its content and its style. Arrays are uint8 (H, W, 3) sRGB.

`quality` is what every sample's record carries; it works on 64 x 64 reductions. The other measures keep full resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylebatch.data.images import Pixels

Floats = NDArray[np.float64]

REDUCED_SIDE = 64
LUMA = np.array([0.299, 0.587, 0.114])
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
WHITE_D65 = RGB_TO_XYZ.sum(axis=1)


@dataclass(frozen=True)
class Quality:
    """Finite for every input.

    structure: Pearson correlation of edges with the content, -1 to 1, higher keeps more structure.
    color_distance: from the style, in Lab units, 0 or more, lower is closer.
    contrast: standard deviation of the result's luma, 0 to 127.5; near 0 is a flat image.
    """

    structure: float
    color_distance: float
    contrast: float


def quality(content: Pixels, style: Pixels, result: Pixels) -> Quality:
    """Measure one sample on 64 x 64 box reductions; the three images may differ in size."""
    content, style, result = (_reduce(pixels) for pixels in (content, style, result))
    return Quality(
        edge_correlation(content, result),
        lab_color_distance(style, result),
        float(luma(result).std()),
    )


def measures(
    result: Pixels, *, content: Pixels | None = None, style: Pixels | None = None
) -> dict[str, float]:
    """As `quality`, by name, without what needs a content or a style that is not there."""
    small = _reduce(result)
    found: dict[str, float] = {}
    if content is not None:
        found["structure"] = edge_correlation(_reduce(content), small)
    if style is not None:
        found["color_distance"] = lab_color_distance(_reduce(style), small)
    return found | {"contrast": float(luma(small).std())}


def edge_correlation(first: Pixels, second: Pixels) -> float:
    """Pearson correlation, -1 to 1, of the luma gradient magnitudes of two images of one size; 0.0 when either has none."""
    _require_equal_shapes(first, second)
    edges = [
        magnitude - magnitude.mean()
        for magnitude in (_gradient_magnitude(first), _gradient_magnitude(second))
    ]
    scale = math.sqrt(float((edges[0] ** 2).sum()) * float((edges[1] ** 2).sum()))
    if scale < 1e-9:
        return 0.0
    return max(-1.0, min(1.0, float((edges[0] * edges[1]).sum()) / scale))


def lab_color_distance(first: Pixels, second: Pixels) -> float:
    """Mean over L, a, b of the 1-D Wasserstein distance between the channel values; sizes may differ, places do not count."""
    channels = [np.sort(srgb_to_lab(pixels).reshape(-1, 3), axis=0) for pixels in (first, second)]
    count = max(len(values) for values in channels)
    matched = [values if len(values) == count else _quantiles(values, count) for values in channels]
    return float(np.abs(matched[0] - matched[1]).mean())


def texture_distance(first: Pixels, second: Pixels) -> float:
    """Distance of texture, 0 (alike) to 2: Frobenius norm between energy-normalised Gram matrices.

    The Gram matrix of the luma's responses to 24 oriented band-pass filters (3 octaves, 4 orientations, even and
    odd Gabor), divided by its trace, so that contrast does not count. Images of any size, at least 16 pixels a side.
    """
    one, other = (_filter_gram(luma(pixels)) for pixels in (first, second))
    energy = float(np.linalg.norm(one) + np.linalg.norm(other)) / 2.0
    return float(np.linalg.norm(one - other)) / energy if energy > 0 else 0.0


def _filter_gram(values: Floats) -> Floats:
    """(H, W) -> (24, 24) Gram matrix of Gabor responses, trace 1; computed in the Fourier domain."""
    height, width = values.shape
    spectrum = np.fft.fft2(values - values.mean())
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    responses = []
    for frequency in (0.25, 0.125, 0.0625):
        for angle in np.arange(4) * math.pi / 4:
            along = fx * math.cos(angle) + fy * math.sin(angle) - frequency
            across = -fx * math.sin(angle) + fy * math.cos(angle)
            window = np.exp(-(along**2 + across**2) / (2 * (0.4 * frequency) ** 2))
            analytic = np.fft.ifft2(spectrum * window)
            responses += [analytic.real.ravel(), analytic.imag.ravel()]
    stacked = np.stack(responses)
    gram: Floats = stacked @ stacked.T
    trace = float(np.trace(gram))
    return gram / trace if trace > 0 else gram


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, peak 255, of two images of one size; infinite when they are equal."""
    _require_equal_shapes(first, second)
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return math.inf if error == 0 else 10.0 * math.log10(255.0**2 / error)


def luma(pixels: Pixels) -> Floats:
    """(H, W, 3) -> (H, W), 0 to 255, weights of ITU-R BT.601."""
    result: Floats = pixels @ LUMA
    return result


def srgb_to_lab(pixels: Pixels) -> Floats:
    """(H, W, 3) sRGB -> (H, W, 3) L* 0 to 100, a*, b*: IEC 61966-2-1 decoding and matrix, then CIE 1976 L*a*b*, white D65."""
    xyz = _LINEAR[pixels] @ (RGB_TO_XYZ / WHITE_D65[:, None]).T
    delta = 6.0 / 29.0
    f = np.where(xyz > delta**3, np.cbrt(xyz), xyz / (3.0 * delta**2) + 4.0 / 29.0)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _linear_of_code() -> Floats:
    """(256,): linear light of each sRGB code, 0 to 1, by the transfer function of IEC 61966-2-1."""
    value = np.arange(256) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR = _linear_of_code()


def _reduce(pixels: Pixels) -> Pixels:
    size = (REDUCED_SIDE, REDUCED_SIDE)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=1.0))


def _gradient_magnitude(pixels: Pixels) -> Floats:
    vertical, horizontal = np.gradient(luma(pixels))
    magnitude: Floats = np.hypot(vertical, horizontal)
    return magnitude


def _quantiles(ordered: Floats, count: int) -> Floats:
    """Stretch sorted (N, 3) values to (count, 3) by the step quantile function, which keeps the distance to within 1 / N of the range."""
    places: NDArray[np.int64] = np.arange(count) * len(ordered) // count
    stretched: Floats = np.take(ordered, places, axis=0)
    return stretched


def _require_equal_shapes(first: Pixels, second: Pixels) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"images of one size are compared; found {first.shape} and {second.shape}; resize one first"
        )
