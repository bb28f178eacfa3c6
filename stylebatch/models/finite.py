"""Finds numbers that are not finite in a small safetensors file, by their bits: without torch, and in every dtype of weights."""

from __future__ import annotations

from pathlib import Path

EXPONENTS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
}
"""By dtype: unsigned integers of its width, and the bits that are all set in NaN and infinity alone (E4M3FN has no infinity)."""


def not_finite(path: Path, name: str) -> str:
    """How many numbers of a tensor are not finite, for people; "" where all are. Reads the whole file."""
    import numpy as np
    from safetensors import deserialize

    found = dict(deserialize(path.read_bytes()))[name]  # type: ignore[no-untyped-call]
    whole, exponent = EXPONENTS[found["dtype"]]
    bits = np.frombuffer(found["data"], whole)
    wrong = bits[(bits & np.array(exponent, whole)) == exponent]
    if not len(wrong):
        return ""
    fraction = (exponent & -exponent) - 1
    is_nan = fraction == 0 or int(wrong[0]) & fraction
    first = "NaN" if is_nan else "infinity"
    return f"{len(wrong):,} of {len(bits):,} numbers that are not finite, first {first}"
