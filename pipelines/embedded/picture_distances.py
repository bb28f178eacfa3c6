"""Distances of pictures that the embedded model is judged by, beside the measures of the records. Arrays are uint8 (H, W, 3) sRGB."""

from __future__ import annotations

import math

import numpy as np

from stylebatch.pixel_memory import Pixels
from stylebatch.quality.measures import Floats, luma


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
    if first.shape != second.shape:
        raise ValueError(f"the images must have one size; found {first.shape} and {second.shape}")
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return math.inf if error == 0 else 10.0 * math.log10(255.0**2 / error)
