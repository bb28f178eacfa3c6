"""Opens encoded pictures of the listed formats, and reads orientation and colour profile.

Broken metadata never costs a picture: where Pillow would refuse the file for it, it is taken out.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from stylebatch.data.pictures import jxl, png
from stylebatch.data.pictures.formats import FORMATS, FURTHER, INSTALL, further_format
from stylebatch.data.pictures.orientation import ORIENTATION_TAG, orientation_of

JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
_TIFF_MAGIC = (b"II", b"MM")
_OTHERS = tuple(name for name in FORMATS if name not in ("JPEG", "PNG", "TIFF"))
_KEPT_SEGMENTS = {0xE0: 16, 0xEE: 14}
"""APP0 and APP14 of a JPEG, which define how colours are stored -> the least length of a complete one."""
_NOT_THIS_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)
"""What Pillow's plugins raise for files of other formats; `Image.open` catches the same."""


class UnreadError(Exception):
    """The file is no picture of a listed format; the text is the reason if the format was recognised."""


@dataclass(frozen=True)
class Opened:
    """A picture whose pixels are not decoded yet. `profile`: its ICC profile; b"" if it is incomplete, None if there is none."""

    image: Image.Image
    orientation: int
    profile: bytes | None
    chromaticity: png.Chromaticity | None = None


def open_picture(data: bytes) -> Opened:
    """Open a picture. Raises UnreadError for other or unsupported formats, and Pillow's errors for damage."""
    try:
        return _open(data)
    except UnidentifiedImageError:
        raise UnreadError(_why_no_tiff(data) if data.startswith(_TIFF_MAGIC) else "") from None
    except _NOT_THIS_FORMAT as error:
        raise UnreadError(str(error)) from None


def _open(data: bytes) -> Opened:
    if data.startswith(JPEG_MAGIC):
        return with_metadata(_open_jpeg(data))
    if data.startswith(png.MAGIC):
        pixels, metadata = png.split(data)
        image = PngImagePlugin.PngImageFile(io.BytesIO(pixels))
        orientation = orientation_of(metadata.exif, metadata.xmp)
        return Opened(image, orientation, metadata.icc, metadata.chromaticity)
    if data.startswith(_TIFF_MAGIC):
        # no else: a TGA may begin with these two bytes
        with suppress(*_NOT_THIS_FORMAT):
            return _open_tiff(data)
    if further := further_format(data):
        return _open_further(data, further)
    try:
        return with_metadata(Image.open(io.BytesIO(data), formats=_OTHERS))
    except (*_NOT_THIS_FORMAT, OSError, ValueError):
        if data[4:8] != b"ftyp" or b"Exif" not in data:
            raise
    # Pillow refuses an AVIF for damaged EXIF. Under another name the decoder ignores it.
    return with_metadata(Image.open(io.BytesIO(data.replace(b"Exif", b"none")), formats=("AVIF",)))


def _open_further(data: bytes, name: str) -> Opened:
    """A picture of one of the formats that an extra brings. Raises UnreadError where it is not installed."""
    module = FURTHER[name][0]
    try:
        plugin = import_module(module)
    except ImportError:
        raise UnreadError(
            f"{name}, which the extra `{name.lower()}` reads. Next: {INSTALL[name]}"
        ) from None
    if name == "HEIF":
        plugin.register_heif_opener()
    elif not 0 < jxl.pixels(data) <= jxl.MAX_PIXELS:
        raise Image.DecompressionBombError(f"a JPEG XL of {jxl.pixels(data)} pixels")
    try:
        return with_metadata(Image.open(io.BytesIO(data), formats=(name,)))
    except (RuntimeError, EOFError) as error:  # what libheif and libjxl say of damage
        raise OSError(str(error)) from None


def _why_no_tiff(data: bytes) -> str:
    """Pillow's reason for an unsupported TIFF, such as `unknown pixel mode` for 32-bit colours."""
    try:
        _open_tiff(data)
    except _NOT_THIS_FORMAT as error:
        return f"TIFF: {error}"
    return ""


def with_metadata(image: Image.Image) -> Opened:
    """The picture with the metadata that Pillow found."""
    info = image.info
    profile = (info["icc_profile"] or b"") if "icc_profile" in info else None
    return Opened(image, orientation_of(info.get("exif"), info.get("xmp")), profile)


def _open_jpeg(data: bytes) -> Image.Image:
    """The first picture of a JPEG; further ones (MPO) are ignored."""
    # The plugin itself, not Image.open, which turns a file with several pictures into an MPO and reads them all.
    try:
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    except (*_NOT_THIS_FORMAT, OSError, ValueError):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(_without_segments(data)))


def _without_segments(data: bytes) -> bytes:
    """A JPEG without comments and application segments, as far as its segments can be followed."""
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind, length = struct.unpack_from(">xBH", data, position)
        # the scan follows 0xDA: compressed data, where 0xFF means something else
        if kind == 0xDA or not 0xC0 <= kind <= 0xFE:
            break
        is_kept = length >= _KEPT_SEGMENTS.get(kind, 1 << 16)
        if is_kept or not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            kept.append(data[position : position + 2 + length])
        position += 2 + length
    return b"".join([*kept, data[position:]])


class _Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF that is not turned. Pillow's class turns it after loading, and fails on odd tags when it does."""

    def _open(self) -> None:
        super()._open()
        # Pillow has swapped the sides already where the orientation will turn the picture.
        self._size = (
            self.tag_v2[TiffImagePlugin.IMAGEWIDTH],
            self.tag_v2[TiffImagePlugin.IMAGELENGTH],
        )

    def load_end(self) -> None: ...


def _open_tiff(data: bytes) -> Opened:
    image = _Tiff(io.BytesIO(data))
    tagged = image.tag_v2.get(ORIENTATION_TAG)
    orientation = tagged if isinstance(tagged, int) and tagged in range(1, 9) else 0
    profile = image.info.get("icc_profile")
    return Opened(
        image,
        orientation or orientation_of(None, image.info.get("xmp")),
        profile if isinstance(profile, bytes) else None if profile is None else b"",
    )
