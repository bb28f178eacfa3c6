"""Loads, fits and encodes images. Pixels are uint8 (H, W, 3) arrays in sRGB; `decoding.py` says what becomes of files."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylebatch.data.fit_modes import GREY, FixedMode
from stylebatch.data.geometry import Transform, transform_of
from stylebatch.data.image_section import ImageFormat, ImageSpec
from stylebatch.data.pictures.decode_memory import turn
from stylebatch.data.pictures.decoding import Decoded, decode_into, decoded_image
from stylebatch.data.pictures.linear_light import resized_in_light
from stylebatch.data.reading import Reader, hash_of, read_picture
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import Ref
from stylebatch.pixel_memory import image_of, pixels_of

Pixels = NDArray[np.uint8]
USUAL_FIT = ImageSpec()


@dataclass(frozen=True)
class Component:
    """One image of a blend: its name, fitted pixels, and weight."""

    name: str
    pixels: Pixels
    weight: float


@dataclass(frozen=True)
class Picture:
    """A fitted input image and the size it had.

    `mask` (H, W), white where a content takes the style, None for everywhere; `components` of a style that is a blend;
    `notes` of what was odd about the file and yet accepted; `files`: name and xxh3 of each file that it was made of; `transform`:
    from the displayed file to `pixels`, None where no single file was fitted; `is_cropped`: its middle was taken where the whole
    was planned; `orientation`: 1..8, how the file is displayed; `objects`: what is annotated, in `pixels`; `segmentation`: a PNG of
    labels, fitted as the pixels, b"" for none.
    """

    pixels: Pixels
    original_width: int
    original_height: int
    mask: Pixels | None = None
    components: tuple[Component, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    transform: Transform | None = None
    is_cropped: bool = False
    orientation: int = 1
    objects: tuple[Region, ...] = ()
    segmentation: bytes = b""


def load_picture(
    path: str | Path, size: int | tuple[int, int], mode: FixedMode = "center_crop"
) -> Picture:
    """As `load_image`, for a file at hand; runs read through their sources."""
    files = LocalFiles("", "")
    return load_image(Ref(str(path)), files, size, ImageSpec(mode=mode), name=str(path))


def load_image(
    ref: Ref,
    reader: Reader,
    size: int | tuple[int, int],
    image: ImageSpec = USUAL_FIT,
    *,
    name: str,
) -> Picture:
    """Decode the image and fit it to `size` (a square's side, or width and height) as `image` says. `name` stands for it in errors.

    Raises SampleError: `missing`, `too_large`, `too_small` or `decode`, as `read_picture` and `decode_into`.
    """

    sides = (size, size) if isinstance(size, int) else size

    def fitted(found: Decoded) -> Picture:
        transform = transform_of(found.image.size, sides, image.mode)
        return Picture(
            pixels_of(_padded(_scaled(found, transform, image), transform, image.fill)),
            found.width,
            found.height,
            notes=tuple(f"{name}: {note}" for note in found.notes),
            # A huge picture is decoded smaller than it is.
            transform=transform.for_source_of(found.image.size, (found.width, found.height)),
            orientation=found.orientation,
        )

    # The file is read within the turn, since its bytes count against the bound too.
    with turn(reader.size(ref) or 0):
        data = read_picture(reader, ref, name)
        picture = decode_into(data, name, fitted, truncated=image.truncated)
        # The hash is of the bytes that were decoded; a second read might find another file.
        return replace(picture, files=((name, hash_of(data)),))


def fitted_image(image: Image.Image, size: tuple[int, int], how: ImageSpec = USUAL_FIT) -> Pixels:
    """As `load_image`, of a picture in memory. What was changed since it was opened is neither turned nor converted by its profile."""
    found = decoded_image(image)
    transform = transform_of(found.image.size, size, how.mode)
    return pixels_of(_padded(_scaled(found, transform, how), transform, how.fill))


def fit(image: Image.Image, size: int | tuple[int, int], mode: FixedMode = "center_crop") -> Pixels:
    """RGB image -> (height, width, 3): centre crop to the aspect ratio (or none, or grey around), Lanczos. An int is a square's side."""
    sides = (size, size) if isinstance(size, int) else size
    transform = transform_of(image.size, sides, mode)
    return pixels_of(_padded(_resized(_cut(image, transform), transform.scaled), transform, GREY))


def _scaled(found: Decoded, transform: Transform, image: ImageSpec) -> Image.Image:
    """What the transform cuts out, at its size and in sRGB."""
    cut = _cut(found.image, transform)
    if image.linear and cut.size != transform.scaled:
        return resized_in_light(cut, transform.scaled, found.srgb)
    # The picture is resized first, so that its colours are converted for few pixels.
    return found.srgb(_resized(cut, transform.scaled))


def _cut(image: Image.Image, transform: Transform) -> Image.Image:
    left, top, width, height = map(round, transform.crop)
    if (width, height) == image.size:
        return image
    return image.crop((left, top, left + width, top + height))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _padded(image: Image.Image, transform: Transform, fill: tuple[int, int, int]) -> Image.Image:
    """The picture where the transform lays it, `fill` around it."""
    if image.size == transform.size:
        return image
    found = Image.new("RGB", transform.size, fill)
    found.paste(image, transform.offset)
    return found


def encode(pixels: Pixels, spec: ImageFormat) -> bytes:
    """(H, W, 3) -> encoded bytes; the same bytes for the same pixels and library version."""
    buffer = io.BytesIO()
    image = image_of(pixels)
    if spec.format == "png":
        image.save(buffer, "PNG", compress_level=4)
    elif spec.format == "webp":
        image.save(buffer, "WEBP", quality=spec.quality, lossless=spec.quality == 100, method=4)
    elif spec.format == "avif":  # tiles would follow the number of threads
        image.save(
            buffer,
            "AVIF",
            quality=spec.quality,
            subsampling="4:4:4",
            codec="aom",
            max_threads=1,
            autotiling=False,
        )
    else:
        # Subsampling 0 is 4:4:4; the usual one halves the resolution of the colours.
        image.save(buffer, "JPEG", quality=spec.quality, subsampling=0)
    return buffer.getvalue()
