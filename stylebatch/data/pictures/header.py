"""The size of a picture as it is displayed, from its header; its pixels are not decoded."""

from __future__ import annotations

import warnings

from stylebatch.data.pictures import png
from stylebatch.data.pictures.decode_memory import icon_pixels
from stylebatch.data.pictures.opening import JPEG_MAGIC, open_picture

HEAD_BYTES = 1 << 16
"""Of a file that are tried first; EXIF and colour profile of a photograph fit into them mostly."""
_TOLD_BY_HEADS = (JPEG_MAGIC, png.MAGIC)
"""Formats with their size and orientation before the pixels; WebP, for one, has its orientation behind them."""
MAX_ICON_PIXELS = 1 << 24


def displayed_size(data: bytes, *, is_whole: bool) -> tuple[int, int] | None:
    """Width and height, turned upright; None where these bytes do not tell."""
    if not is_whole and not data.startswith(_TOLD_BY_HEADS):
        return None
    try:
        # Pillow decodes all pictures of an icon when it opens one.
        if data.startswith(b"\0\0\1\0") and icon_pixels(data) > MAX_ICON_PIXELS:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = open_picture(data)
        width, height = opened.image.size
    except Exception:  # noqa: BLE001 - Pillow's plugins raise almost anything; decoding tells what is wrong
        return None
    if min(width, height) < 1:
        return None
    return (height, width) if opened.orientation >= 5 else (width, height)
