"""The RGB-uv histogram loss between two pictures: Afifi et al., HistoGAN, CVPR 2021, arXiv 2011.11731, section 3.1.

With the settings of the StyleID evaluation (Chung et al. 2024): 64 bins, pictures of at most 256 pixels a side, inverse-quadratic
kernel of width 0.02, weighted by intensity. It needs no network.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from stylebatch.pixel_memory import Pixels

Floats = NDArray[np.float64]
NUM_BINS, LARGEST, WIDTH = 64, 256, 0.02
_EPSILON = 1e-6


def rgb_uv_histogram(pixels: Pixels) -> Floats:
    """(H, W, 3) sRGB -> (3, 64, 64), sums to 1: for each channel, of its log-ratios to the two others.

    H_c(u, v) = sum over pixels of k(log(I_c / I_a) - u) k(log(I_c / I_b) - v) |I|, with k(x) = 1 / (1 + (x / 0.02)^2), u and v from
    -3 to 3, and a, b the other channels in their order.
    """
    values = _bounded(pixels).reshape(-1, 3)
    intensity = np.sqrt((values**2).sum(1) + _EPSILON)
    logs = np.log(values + _EPSILON)
    bins = np.linspace(-3.0, 3.0, NUM_BINS)
    found = np.empty((3, NUM_BINS, NUM_BINS))
    for channel in range(3):
        one, other = (c for c in range(3) if c != channel)
        u, v = (_kernel(logs[:, channel] - logs[:, c], bins) for c in (one, other))
        found[channel] = (intensity[:, None] * u).T @ v
    return np.asarray(found / (found.sum() + _EPSILON))


def histogram_loss(first: Floats, second: Floats) -> float:
    """Hellinger distance of two histograms, 0 to 1."""
    return float(np.sqrt(((np.sqrt(first) - np.sqrt(second)) ** 2).sum() / 2.0))


def _kernel(ratios: Floats, bins: Floats) -> Floats:
    """(pixels, bins)"""
    return np.asarray(1.0 / (1.0 + ((ratios[:, None] - bins) / WIDTH) ** 2))


def _bounded(pixels: Pixels) -> Floats:
    """Values 0 to 1; a picture that is larger becomes 256 x 256, bilinear without antialiasing, as the definition has it."""
    if max(pixels.shape[:2]) <= LARGEST:
        return pixels / 255.0
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].double() / 255.0
    size = (LARGEST, LARGEST)
    small = torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=False)
    return np.asarray(small[0].permute(1, 2, 0).numpy())
