"""Reads a picture's orientation from EXIF or XMP; all other tags are ignored, so they may be damaged."""

from __future__ import annotations

import re
import struct

from PIL import Image

ORIENTATION_TAG = 0x0112
_MAX_ENTRIES = 4096
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""TIFF's number of an integer type -> struct's letter."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> the transposition that makes a picture upright; 1 is upright already."""


def orientation_of(exif: object, xmp: object) -> int:
    """Orientation 1..8 of EXIF, else of XMP, else 1."""
    found = _of_exif(exif) if isinstance(exif, bytes) else None
    if found is None and isinstance(xmp, (bytes, str)):
        found = _of_xmp(xmp if isinstance(xmp, bytes) else xmp.encode(errors="replace"))
    return found if found is not None and 1 <= found <= 8 else 1


def _of_exif(exif: bytes) -> int | None:
    """The orientation in the first directory; None if there is none, or the bytes are no EXIF."""
    # By hand: Pillow's parser raises for a damaged tag anywhere in the block.
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for place in range(start + 2, start + 2 + 12 * min(count, _MAX_ENTRIES), 12):
        if place + 12 > len(exif):
            return None
        tag, kind, number = struct.unpack_from(f"{order}HHI", exif, place)
        if tag == ORIENTATION_TAG:
            return _integer(order, kind, number, exif[place + 8 : place + 12])
    return None


def _integer(order: str, kind: int, number: int, value: bytes) -> int | None:
    """An entry's value if it is an integer of any type, or a digit as text, as some programs write."""
    if kind in _INTEGERS and number >= 1:
        return int(struct.unpack_from(order + _INTEGERS[kind], value)[0])
    digit = value.rstrip(b"\0 ")
    return int(digit) if kind == 2 and digit.isdigit() else None


def _of_xmp(xmp: bytes) -> int | None:
    found = re.search(rb"""tiff:Orientation(?:\s*=\s*["']|\s*>\s*)([0-9])""", xmp)
    return int(found[1]) if found else None
