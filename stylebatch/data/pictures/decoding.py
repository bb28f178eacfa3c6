"""Decodes pictures: upright, in sRGB, without alpha, the first frame, in bounded memory. The only place that does.

1. Metadata is separated from pixel data (`opening.py`).
2. The memory needed is computed from the header (`decode_memory.py`); a picture that needs too much is decoded smaller, or refused.
3. Alpha is composed over white; palettes, floats and more than 8 bits become 8 bits a channel (`levels.py`).
4. The picture is turned upright (`orientation.py`).
5. Its profile is converted to sRGB (`colour.py`), after resizing where it is resized, since a small picture converts faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from PIL import Image, ImageFile, JpegImagePlugin

from stylebatch.data.pictures.colour import (
    Colour,
    ProfileError,
    colour_of_lab,
    colour_of_numbers,
    colour_of_profile,
)
from stylebatch.data.pictures.decode_memory import (
    MAX_DECODE_BYTES,
    decoded_bytes,
    decoder_bytes,
    icon_pixels,
    turn,
)
from stylebatch.data.pictures.formats import FORMATS
from stylebatch.data.pictures.levels import NUMERIC, STRIP_PIXELS, to_8_bit, white_level
from stylebatch.data.pictures.opening import (
    JPEG_END,
    JPEG_MAGIC,
    Opened,
    UnreadError,
    open_picture,
    with_metadata,
)
from stylebatch.data.pictures.orientation import TURNS
from stylebatch.errors import SampleError

T = TypeVar("T")
Truncated = Literal["refuse", "accept"]

MAX_PIXELS = 178_956_970
"""Pillow's own bound against decompression bombs."""
MAX_ICON_PIXELS = 1 << 24
MIN_SIDE = 8
_COLOURS = dict.fromkeys(("1", "L", "LA", "La", *NUMERIC), "L") | {"CMYK": "CMYK", "LAB": "LAB"}
"""Pillow's mode -> the mode that a profile must be for; RGB for all others."""
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class Decoded:
    """An upright picture without alpha, in the colours of its profile; `srgb` converts it.

    `width`, `height`: of the upright picture at full size; `orientation`: 1..8, how it lies in the file. `notes`: what a person
    should know about it.
    """

    image: Image.Image
    width: int
    height: int
    colour: Colour | None = None
    notes: tuple[str, ...] = ()
    orientation: int = 1

    def srgb(self, image: Image.Image) -> Image.Image:
        """`image`, which is this one or was made from it, as RGB in sRGB."""
        if self.colour is not None:
            return self.colour.to_srgb(image)
        return image if image.mode == "RGB" else image.convert("RGB")


def decode(data: bytes, where: str, *, truncated: Truncated = "refuse") -> Image.Image:
    """Encoded bytes -> upright RGB image in sRGB; raises SampleError as `decode_into`."""
    return decode_into(data, where, lambda found: found.srgb(found.image), truncated=truncated)


def decode_into(
    data: bytes, where: str, make: Callable[[Decoded], T], *, truncated: Truncated = "refuse"
) -> T:
    """The result of `make` for the decoded picture; `where` names the file in errors.

    `make` runs within the same bound of memory. `truncated`: whether a JPEG that ends early is accepted, its rest grey.
    Raises SampleError: `decode` (unreadable, truncated, not of a listed format), `too_large` (over 179 million pixels, or
    more memory than one picture may take) or `too_small` (a side under 8 pixels).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of large pictures and odd metadata
        try:
            try:
                return _decoded(data, where, make)
            except OSError as error:
                if not data.startswith(JPEG_MAGIC):
                    raise
                if truncated == "refuse":
                    hint = "a JPEG that ends early is taken with image.truncated: accept"
                    raise OSError(f"{error}; {hint}") from None
                # With an end marker behind it libjpeg fills the missing part. Pillow's own switch for this is global.
                note = f"a JPEG that ends early ({error}); accepted as it is"
                return _decoded(data + JPEG_END, where, make, note)
        except SampleError:
            raise
        except UnreadError as error:
            why = f" ({error})" if str(error) else ""
            raise SampleError(
                "decode",
                f"{where}: not an image that can be identified{why}; accepted: {', '.join(FORMATS)}",
            ) from None
        except (Image.DecompressionBombError, MemoryError):
            raise SampleError(
                "too_large", f"{where}: did not fit in the memory of one picture while decoding"
            ) from None
        except Exception as error:  # noqa: BLE001 - Pillow's plugins raise almost anything on damaged files
            raise SampleError("decode", f"{where}: damaged or truncated ({error})") from None


def _decoded(data: bytes, where: str, make: Callable[[Decoded], T], *notes: str) -> T:
    # Pillow decodes all pictures of an icon when it opens one.
    if data.startswith(b"\0\0\1\0") and (pixels := icon_pixels(data)) > MAX_ICON_PIXELS:
        raise _too_large(where, f"an icon of {pixels} pixels", f"{MAX_ICON_PIXELS}")
    opened = open_picture(data)
    image = opened.image
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width} x {height} pixels", f"{MAX_PIXELS} in all")
    if min(width, height) < MIN_SIDE:
        raise SampleError(
            "too_small",
            f"{where}: {width} x {height} pixels; accepted: at least {MIN_SIDE} per side",
        )
    held = len(data) + decoder_bytes(image, data)
    with turn(held + 2 * decoded_bytes(image)):
        _load(image, held, where)
        found = _upright(opened, (width, height), len(data), *notes)
        del opened, image  # only one copy may live while `make` makes its own
        made = make(found)
        del found
    return made


def decoded_image(image: Image.Image) -> Decoded:
    """A picture of Pillow's as `decode_into` has it of a file.

    As `Image.open` gives it, it is turned upright and has its profile. Of any other the pixels are taken as they are, in sRGB: its
    metadata may be those of the file that it was made from, and it may have been turned since.
    """
    image.load()
    is_file = isinstance(image, ImageFile.ImageFile)
    return _upright(with_metadata(image) if is_file else Opened(image, 1, None), image.size, 0)


def _upright(opened: Opened, size: tuple[int, int], held: int, *notes: str) -> Decoded:
    """A picture whose pixels are loaded, flat and upright. `size`: of the file; `held`: bytes of it that are in memory."""
    (width, height), turned = size, opened.orientation if opened.orientation in TURNS else 1
    colour, colour_notes = _colour_of(opened)
    flat = _flattened(opened.image, "" if colour is None else colour.mode, held)
    if turned in TURNS:
        flat = flat.transpose(TURNS[turned])
    if turned >= 5:  # those that swap the sides
        width, height = height, width
    return Decoded(flat, width, height, colour, (*notes, *colour_notes), turned)


def _too_large(where: str, found: str, accepted: str) -> SampleError:
    return SampleError("too_large", f"{where}: {found}; accepted: at most {accepted}")


def _load(image: Image.Image, held: int, where: str) -> None:
    """Decode the pixels; a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size."""
    # libjpeg does so while it decodes, before the full picture exists; no other format can.
    for scale in (1, 2, 4, 8):
        needed = held + decoded_bytes(image, scale=scale)
        if needed <= MAX_DECODE_BYTES:
            break
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            break
    if needed > MAX_DECODE_BYTES:
        raise _too_large(
            where,
            f"{image.width} x {image.height} pixels of a {image.format} take about {needed // 10**6} MB to decode",
            f"{MAX_DECODE_BYTES // 10**6} MB",
        )
    if scale > 1:
        image.draft(image.mode, (image.width // scale, image.height // scale))
    image.load()


def _colour_of(opened: Opened) -> tuple[Colour | None, tuple[str, ...]]:
    """The transform to sRGB, None for pictures in sRGB or without a profile; and notes about an unusable profile."""
    mode = _COLOURS.get(opened.image.mode, "RGB")
    if mode == "LAB":
        return colour_of_lab(), ()
    notes: tuple[str, ...] = ()
    if opened.profile is not None:
        # A grey picture with an RGB profile is one whose red, green and blue are equal.
        profile_mode = "RGB" if mode == "L" and opened.profile[16:20] == b"RGB " else mode
        try:
            return colour_of_profile(opened.profile, profile_mode), ()
        except ProfileError as error:
            notes = (f"its colour profile is not used: {error}",)
    if opened.chromaticity is not None:
        return colour_of_numbers(opened.chromaticity, mode), notes
    return None, notes


def _flattened(image: Image.Image, mode: str, held: int) -> Image.Image:
    """The picture without alpha, 8 bits a channel, in `mode` ("": L or RGB); at half size if a copy would not fit in memory."""
    mode = mode or ("L" if image.mode == "L" or image.mode in NUMERIC else "RGB")
    is_flat = image.mode == mode and "transparency" not in image.info
    flat_bytes = image.width * image.height * (1 if mode == "L" else 4)
    needed = held + 2 * flat_bytes + (0 if is_flat else decoded_bytes(image))
    step = 2 if needed > MAX_DECODE_BYTES else 1
    if is_flat and step == 1:
        return image
    white = white_level(image) if image.mode in NUMERIC else 0.0
    rows = max(2, STRIP_PIXELS // image.width * 2)
    if rows >= image.height and step == 1:
        return _flat(image, mode, white)
    # Strip by strip: converting at once would hold the picture three times.
    found = Image.new(mode, (-(-image.width // step), -(-image.height // step)))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        found.paste(_flat(strip, mode, white).reduce(step), (0, top // step))
    return found


def _flat(image: Image.Image, mode: str, white: float) -> Image.Image:
    """The picture in `mode`, alpha composed over white; `white`: the value of white with more than 8 bits."""
    if image.mode in NUMERIC:
        image = to_8_bit(image, white)
    elif image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, rgba)
    return image if image.mode == mode else image.convert(mode)
