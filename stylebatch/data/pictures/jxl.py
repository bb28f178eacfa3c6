"""The size of a JPEG XL, from its first bytes: the library that reads it decodes all of it before it tells.

bits after ff 0a, least first:  small(1)  height  ratio(3)  width, where ratio is 0
height, width:                  small: (5 bits + 1) x 8    else: 1 + 9, 13, 18 or 30 bits, by 2 bits before
"""

from __future__ import annotations

MAX_PIXELS = 64_000_000
"""Decoding takes 17 bytes a pixel."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_WIDTHS = (9, 13, 18, 30)
_HEADER = 16


def pixels(data: bytes) -> int:
    """Width times height; 0 where the data do not tell."""
    stream = data if data.startswith(b"\xff\x0a") else _codestream(data)
    if len(stream) < _HEADER // 2 or not stream.startswith(b"\xff\x0a"):
        return 0
    bits = _Bits(int.from_bytes(stream[2:_HEADER], "little"))
    is_small = bits.take(1)
    height = _side(bits, is_small)
    ratio = bits.take(3)
    if ratio == 0:
        return height * _side(bits, is_small)
    over, under = _RATIOS[ratio - 1]
    return height * (height * over // under)


class _Bits:
    def __init__(self, value: int) -> None:
        self.value = value

    def take(self, count: int) -> int:
        found = self.value & ((1 << count) - 1)
        self.value >>= count
        return found


def _side(bits: _Bits, is_small: int) -> int:
    if is_small:
        return (bits.take(5) + 1) * 8
    return 1 + bits.take(_WIDTHS[bits.take(2)])


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream in a container of boxes: of `jxlc`, or of the first `jxlp`, behind its number."""
    at = 0
    while at + 8 <= len(data):
        size, kind, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if kind in (b"jxlc", b"jxlp"):
            return data[start + 4 * (kind == b"jxlp") :][:_HEADER]
        if size < 8:
            break
        at += size
    return b""
