"""What codecs keep, in bytes; the codecs are in `styleid/codec.py`, which imports torch, and `features/codecs.py`."""

from __future__ import annotations

from typing import Literal

FeatureCodecName = Literal["kv", "x", "x8"]
CodecName = Literal[FeatureCodecName, "trajectory"]
"""What a style cache keeps: features, or with `trajectory` the latents alone, of which features are recomputed."""
SCALE_BYTES = 4


def stored_bytes(
    codec: FeatureCodecName, values: int, value_bytes: int, num_scales: int = 0
) -> int:
    """Bytes of one image. k, v and the input x of a layer have as many `values` each, of `value_bytes`.

    `num_scales`: channels of all layers, of which x8 has a scale each; they are some thousandths of it.
    """
    if codec == "kv":
        return 2 * values * value_bytes
    return values * value_bytes if codec == "x" else values + SCALE_BYTES * num_scales
