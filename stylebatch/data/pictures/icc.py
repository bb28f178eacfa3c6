"""Writes an ICC profile from gamma and chromaticities, the numbers of PNG's gAMA and cHRM chunks."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

SRGB_XY = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""x, y of white, red, green and blue."""
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
"""From XYZ to cone responses, where one white point is adapted to another (ICC.1, annex E)."""

Matrix = NDArray[np.float64]


def rgb_profile(exponent: float, xy: tuple[float, ...]) -> bytes:
    """Display profile for primaries `xy` (in the order of `SRGB_XY`) and light = value ** exponent.

    Raises ValueError for primaries that do not span a colour space.
    """
    if min(xy[1::2]) <= 0:
        raise ValueError(f"chromaticities: found {xy}; accepted: y above 0")
    white, *primaries = (_xyz(x, y) for x, y in zip(xy[::2], xy[1::2], strict=True))
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < 1e-3:
        raise ValueError(f"chromaticities: found {xy}; accepted: three different primaries")
    # ICC profiles describe colours under D50, so that the white of the picture is adapted to it.
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD
    # each primary is scaled so that all three together make white
    colorants = adapted @ (columns * np.linalg.solve(columns, white))
    tags = {name: _xyz_tag(colorants[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(exponent)))


def gray_profile(exponent: float) -> bytes:
    """Profile of a grey scale with light = value ** exponent."""
    return _profile(b"GRAY", {b"kTRC": _curve(exponent)})


def _xyz(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _numbers(values: Matrix) -> bytes:
    # s15Fixed16: 16 bits of fraction
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz_tag(values: Matrix) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(values)


def _curve(exponent: float) -> bytes:
    # one entry is an exponent with 8 bits of fraction; two bytes pad the tag to a multiple of 4
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 profile with these tags and those that every profile has."""
    words = b"from numbers\0"
    named = b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78)
    tags = {b"desc": named + bytes(-len(named) % 4), b"wtpt": _xyz_tag(_D50), **tags}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _numbers(_D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
