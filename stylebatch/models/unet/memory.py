"""Memory of activations of a UNet and an autoencoder, computed from their widths. Tests compare it with live tensors.

A *plane* is one channel at some level's size: width x height cells.
"""

from __future__ import annotations

import math

from stylebatch.models.unet.network import Network

WORKSPACE = 1.25
"""Factor over the tensors that live at the peak, for kernel workspaces and fragmentation. Measured with random weights at full
size: 1.00 to 1.15 (docs/models.md)."""
IN_TRANSFORMER = 21
"""Planes per channel in a transformer block when its feed-forward multiplies by its gate: 8 of the projection, 4 of the gate, 4 of
the product, 5 of inputs that are added later."""


def row_bytes(network: Network, cells: tuple[int, int], value_bytes: int) -> int:
    """Peak bytes of one row of an evaluation with latents of `cells` (width and height).

    The peak is in the decoder, at the first position of a level. There live the encoder outputs that this level and those above
    still need, the output of the level below, and either a transformer block or the first convolutions over both joined.
    """
    widths, (wide, tall) = network.widths, cells
    attends = [bool(level.depths) for level in reversed(network.decoder)]
    planes = [(wide >> level) * (tall >> level) for level in range(len(widths))]
    skips, peak = widths[0] * planes[0], 0
    for level, (width, plane) in enumerate(zip(widths, planes, strict=True)):
        skips += network.layers[level] * width * plane
        skips += widths[level - 1] * plane if level else 0  # the output of the downsampling
        below = widths[min(level + 1, len(widths) - 1)]
        # input, output and residual of the convolutions, or the transformer block
        inside = max(3 * (below + width), IN_TRANSFORMER * width if attends[level] else 0)
        peak = max(peak, skips + (below + inside) * plane)
    return int(WORKSPACE * peak * value_bytes)


def picture_bytes(widths: tuple[int, ...], size: tuple[int, int], value_bytes: int) -> int:
    """Peak bytes of one picture (or tile) of `size` pixels; `widths`: channels of the autoencoder by level, full size first.

    The peak is at full size, in the decoder's first convolution (with the width of the level below) or the encoder's residuals.
    """
    planes = max(3 * widths[min(1, len(widths) - 1)], 5 * widths[0])
    return int(WORKSPACE * planes * math.prod(size) * value_bytes)
