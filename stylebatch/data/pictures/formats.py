"""The table of picture formats and their suffixes, for listing and decoding."""

from __future__ import annotations

from importlib.util import find_spec

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm"),
    "AVIF": ("avif",),
    "JPEG2000": ("jp2",),
    "ICO": ("ico",),
    "TGA": ("tga",),  # last: it has no magic number, so that Pillow would take other files for it
}
"""Pillow's name of a format -> suffixes. Formats that start a program, as PostScript does, are left out.

A file with several pictures, as some cameras write (MPO), is a JPEG: its first picture is read.
"""

FURTHER: dict[str, tuple[str, tuple[str, ...]]] = {
    "HEIF": ("pillow_heif", ("heic", "heif", "hif")),
    "JXL": ("pillow_jxl", ("jxl",)),
}
"""Formats that the extras `heif` and `jxl` bring: Pillow's name -> module that registers it, suffixes."""
INSTALL = {"HEIF": "pip install 'stylebatch[heif]'", "JXL": "pip install 'stylebatch[jxl]'"}

IMAGE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffixes in (
        *FORMATS.values(),
        *(suffixes for module, suffixes in FURTHER.values() if find_spec(module) is not None),
    )
    for suffix in suffixes
)
"""Of the formats that this installation reads."""


def further_format(data: bytes) -> str:
    """Which of `FURTHER` the data are, by their first bytes; "" for none."""
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JXL"
    is_heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[8:64]
    return "HEIF" if is_heif else ""


_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
