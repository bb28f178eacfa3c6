"""Computes from a picture's header how much memory its decoding takes, and lets large ones decode one at a time."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, TiffImagePlugin

from stylebatch.data.pictures import png

MAX_DECODE_BYTES = 1_250_000_000
"""The bound for one picture: its file, the decoder's buffers, and the pixels."""
LARGE_BYTES = 96_000_000
"""Pictures of this size or more are decoded one at a time in a process."""
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_DECODERS = {"WEBP": 14, "AVIF": 12, "JPEG2000": 20, "BMP": 1, "ICO": 12, "GIF": 1}
"""Bytes per pixel of a format's decoder beside the picture, measured."""
_large = threading.RLock()


@contextmanager
def turn(size_bytes: int) -> Iterator[None]:
    """Inside, no other thread of this process decodes a large picture; small ones do not wait."""
    if size_bytes < LARGE_BYTES:
        yield
        return
    with _large:
        try:
            yield
        finally:
            _return_freed()


def _return_freed() -> None:
    """Return freed memory to the system: glibc keeps it per thread, which adds up over the threads."""
    # missing on musl and macOS
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def decoded_bytes(image: Image.Image, *, scale: int = 1) -> int:
    """Bytes of the pixels alone, at 1/`scale` of each side."""
    # Pillow stores RGB in 4 bytes a pixel
    pixels = -(-image.width // scale) * -(-image.height // scale)
    return pixels * _BYTES_PER_PIXEL.get(image.mode, 4)


def decoder_bytes(image: Image.Image, data: bytes) -> int:
    """Bytes that the format's decoder holds beside the pixels of this file."""
    pixels = image.width * image.height
    if image.format == "PNG":
        return len(data)  # the copy with the pixel chunks alone
    if image.format == "JPEG":
        return _coefficients(image, data)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _strip_bytes(image)
    return pixels * _DECODERS.get(image.format or "", 0)


def _coefficients(image: Image.Image, data: bytes) -> int:
    """Bytes of all coefficients of a JPEG with several scans, 2 each; 0 for a single scan, which is decoded row by row."""
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    if not layers or ("progressive" not in image.info and _is_one_scan(data, len(layers))):
        return 0
    most = max(layer[1] * layer[2] for layer in layers) or 1
    share = sum(layer[1] * layer[2] for layer in layers) / most
    return int(2 * share * image.width * image.height)


def _is_one_scan(data: bytes, layers: int) -> bool:
    """Whether the first scan of a JPEG has all of its components."""
    position = 2
    while position + 5 <= len(data) and data[position] == 0xFF:
        kind, length = struct.unpack_from(">xBH", data, position)
        if kind == 0xDA:
            return data[position + 4] == layers
        position += 2 + length
    return False


def _strip_bytes(image: TiffImagePlugin.TiffImageFile) -> int:
    """Bytes of the largest strip or tile of a compressed TIFF, which libtiff decompresses at once."""
    tags = image.tag_v2
    if tags.get(TiffImagePlugin.COMPRESSION, 1) == 1:
        return 0
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    samples = max(len(bits), int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)))
    width = int(tags.get(TiffImagePlugin.TILEWIDTH, image.width))
    height = int(tags.get(TiffImagePlugin.TILELENGTH, 0))
    rows = height or min(image.height, int(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height)))
    return width * rows * samples * int(max(bits)) // 8


def icon_pixels(data: bytes) -> int:
    """Pixels of the largest picture in an ICO, from the pictures' headers: its directory cannot express sizes above 256."""
    (count,) = struct.unpack_from("<H", data, 4)
    largest = 0
    for entry in range(6, 6 + 16 * min(count, (len(data) - 6) // 16), 16):
        (start,) = struct.unpack_from("<I", data, entry + 12)
        head = data[start : start + 24]
        if head.startswith(png.MAGIC) and len(head) == 24:
            width, height = struct.unpack_from(">II", head, 16)
        elif len(head) >= 12:
            width, height = map(abs, struct.unpack_from("<ii", head, 4))
        else:
            continue
        largest = max(largest, int(width * height))
    return largest
