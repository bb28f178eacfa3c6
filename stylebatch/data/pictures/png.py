"""Separates the chunks of a PNG: those with pixel data, and orientation and colour from the others.

A PNG is decoded from the pixel chunks alone, so that huge or damaged text and profiles do not cost the picture.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 1 << 24
"""The most bytes that one compressed text or profile is unpacked to."""
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_READ = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"iTXt", b"zTXt", b"tEXt")


@dataclass(frozen=True)
class Chromaticity:
    """gAMA and cHRM: the exponent of the stored values, and x, y of white, red, green, blue (None: sRGB's)."""

    gamma: float
    xy: tuple[float, ...] | None


@dataclass
class PngMetadata:
    """Orientation and colour from the chunks without pixel data. `icc`: b"" for a profile that cannot be unpacked."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    is_srgb: bool = False
    gamma: float | None = None
    xy: tuple[float, ...] | None = None

    @property
    def chromaticity(self) -> Chromaticity | None:
        # the standard's order: iCCP, then sRGB, then gAMA and cHRM
        if self.icc is not None or self.is_srgb or self.gamma is None:
            return None
        return Chromaticity(self.gamma, self.xy)

    def add(self, kind: bytes, body: bytes) -> None:
        """Take over the content of a chunk; a damaged one is ignored."""
        if kind == b"iCCP":
            self.icc = _unpacked(body.partition(b"\0")[2][1:]) or b""
        elif kind == b"sRGB":
            self.is_srgb = True
        elif kind == b"gAMA" and len(body) >= 4:
            self.gamma = struct.unpack_from(">I", body)[0] / 100_000
        elif kind == b"cHRM" and len(body) >= 32:
            self.xy = tuple(value / 100_000 for value in struct.unpack_from(">8I", body))
        elif kind == b"eXIf":
            self.exif = body
        else:
            self._add_text(kind, *body.partition(b"\0")[::2])

    def _add_text(self, kind: bytes, name: bytes, rest: bytes) -> None:
        if kind == b"iTXt" and name == b"XML:com.adobe.xmp":
            text = rest[2:].split(b"\0", 2)[-1]
            self.xmp = _unpacked(text) if rest[:1] == b"\1" else text
        elif name in (b"Raw profile type exif", b"Raw profile type APP1"):
            text = _unpacked(rest[1:]) if kind == b"zTXt" else rest
            self.exif = self.exif or _from_hex(text)


def _unpacked(data: bytes) -> bytes:
    """Decompressed data, up to the bound; b"" if it is damaged."""
    # a decompressobj stops at the bound; zlib.decompress would unpack a bomb whole
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _from_hex(text: bytes) -> bytes | None:
    """The bytes of ImageMagick's text profile: a line with its name, one with its length, then hexadecimal digits."""
    digits = b"".join(text.strip().split(b"\n")[2:])
    digits = re.sub(rb"\s", b"", digits)
    return bytes.fromhex(digits.decode()) if re.fullmatch(rb"(?:[0-9a-fA-F]{2})*", digits) else None


def split(data: bytes) -> tuple[bytes, PngMetadata]:
    """The PNG with its pixel chunks alone, and the metadata of the others.

    If it is cut off within the pixel data, so is the result, and decoding fails; a cut after the pixels does no harm.
    """
    metadata, view, position, has_pixels = PngMetadata(), memoryview(data), len(MAGIC), False
    kept: list[bytes | memoryview] = [MAGIC]
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        # A capital first letter marks a critical chunk; of the others transparency alone changes pixels.
        is_kept, end = not kind[0] & 0x20 or kind == b"tRNS", position + 12 + length
        if end > len(data) and (is_kept or not has_pixels):
            kept.append(view[position:])
            return b"".join(kept), metadata
        if kind == b"IEND" or end > len(data):
            break
        if is_kept:
            kept.append(view[position:end])
        elif kind in _READ:
            metadata.add(kind, data[position + 8 : end - 4])
        has_pixels = has_pixels or kind == b"IDAT"
        position = end
    kept.append(_END)
    return b"".join(kept), metadata
