"""How many bytes a sample takes, as an estimate: shards are cut by it before anything is rendered, so it must not look at pictures.

Measured on the demo's photographs at 128 and 512 pixels: bytes per pixel fall with the root of the side. Pictures of more or
less detail take half or twice as much.
"""

from __future__ import annotations

import math

from stylebatch.data.image_section import ImageFormat
from stylebatch.planning.shard_cuts import with_shard_size
from stylebatch.spec import RunSpec
from stylebatch.spec.output import OutputSpec

MEASURED_SIDE = 512
PER_PIXEL: dict[str, dict[int, float]] = {
    "jpg": {1: 0.06, 50: 0.135, 75: 0.19, 95: 0.42, 100: 0.97},
    "webp": {1: 0.03, 50: 0.07, 75: 0.10, 95: 0.27, 100: 0.94},
    "avif": {1: 0.02, 50: 0.05, 75: 0.10, 95: 0.26, 100: 0.60},
    "png": {1: 1.47, 100: 1.47},
}
"""Bytes per pixel at `MEASURED_SIDE`, by format and quality."""
BESIDE_PICTURES = 4096
"""Of record, label, caption and headers."""
MOST = 9999
"""Samples of a shard; its keys stay as short as any."""


def sample_bytes(output: OutputSpec, size: tuple[int, int], num_inputs: int) -> int:
    """Of a sample of this size with so many pictures of inputs beside it."""
    pictures = 1 + (num_inputs if output.inputs else 0)
    pixels = size[0] * size[1]
    scale = math.sqrt(MEASURED_SIDE / math.sqrt(pixels))
    return round(pictures * pixels * _per_pixel(output.image) * scale) + BESIDE_PICTURES


def _per_pixel(image: ImageFormat) -> float:
    known = PER_PIXEL[image.format]
    below = max(quality for quality in known if quality <= image.quality)
    above = min(quality for quality in known if quality >= image.quality)
    if below == above:
        return known[below]
    share = (image.quality - below) / (above - below)
    return known[below] + share * (known[above] - known[below])


def sized_by_bytes(
    spec: RunSpec, size: tuple[int, int], num_inputs: int
) -> tuple[RunSpec, tuple[str, ...]]:
    """`spec` with the samples of a shard that `output.shard_bytes` asks for, and what people are told of it."""
    output = spec.output
    if output.shard_bytes is None:
        return spec, ()
    each = sample_bytes(output, size, num_inputs)
    count = min(MOST, output.shard_size or MOST, max(1, output.shard_bytes // each))
    told = f"shards of {output.shard_bytes:,} bytes: {count:,} samples at most, by an estimate of {each:,} bytes each"
    return with_shard_size(spec, count), (told,)
