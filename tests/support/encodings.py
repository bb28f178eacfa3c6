"""Encoded pictures with profiles, chunks and tags of one's choice."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

from stylebatch.data.pictures.icc import rgb_profile
from tests.support.images import picture

P3_XY = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
P3 = rgb_profile(2.2, P3_XY)
COLOURS = picture(1, 64, 48)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)
