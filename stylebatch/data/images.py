"""Decodes, fits and encodes images. Pixels are uint8 (H, W, 3) RGB arrays.

Decoding applies the EXIF orientation, composites alpha on white, converts palettes, CMYK, 16-bit and
greyscale, takes the first frame of animations, and refuses what would not fit in memory.
"""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stylebatch.errors import SampleError
from stylebatch.spec import ImageFormat

Pixels = NDArray[np.uint8]
FitMode = Literal["center_crop", "resize"]

MAX_PIXELS = 178_956_970
"""Pillow's own bound against decompression bombs."""
MAX_FILE_BYTES = 1 << 30
MIN_SIDE = 8


@dataclass(frozen=True)
class Component:
    """One image of a blend: its name, fitted pixels, and weight."""

    name: str
    pixels: Pixels
    weight: float


@dataclass(frozen=True)
class Picture:
    """A fitted input image and the size it had.

    `mask` (H, W), white where a content takes the style, None for everywhere; `components` of a style that is a blend.
    """

    pixels: Pixels
    original_width: int
    original_height: int
    mask: Pixels | None = None
    components: tuple[Component, ...] = ()


def load_picture(
    path: str | Path,
    size: int | tuple[int, int],
    mode: FitMode = "center_crop",
    *,
    name: str | None = None,
) -> Picture:
    """Decode the file and fit it to `size` (a square's side, or width and height). `name` stands for the file in errors.

    Raises SampleError: `missing`, `decode` (unreadable, truncated, empty, not an image), `too_large`
    (over 179 million pixels or 1 GiB) or `too_small` (a side under 8 pixels).
    """
    name = str(path) if name is None else name
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise SampleError("decode", f"{name}: not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise SampleError(
                "too_large", f"{name}: {status.st_size} bytes; accepted: at most {MAX_FILE_BYTES}"
            )
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise SampleError("missing", f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SampleError("decode", f"{name}: cannot be read: {reason}") from None
    if not data:
        raise SampleError("decode", f"{name}: the file is empty (zero bytes)")
    image = decode(data, name)
    return Picture(fit(image, size, mode), image.width, image.height)


def decode(data: bytes, where: str) -> Image.Image:
    """Encoded bytes -> upright RGB image; `where` names the file in errors. See the module's notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise SampleError(
                    "too_large",
                    f"{where}: {width} x {height} pixels; accepted: at most {MAX_PIXELS} in all",
                )
            if min(width, height) < MIN_SIDE:
                raise SampleError(
                    "too_small",
                    f"{where}: {width} x {height} pixels; accepted: at least {MIN_SIDE} per side",
                )
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
        except SampleError:
            raise
        except Image.DecompressionBombError:
            raise SampleError(
                "too_large",
                f"{where}: more pixels than can be decoded safely; accepted: at most {MAX_PIXELS}",
            ) from None
        except MemoryError:
            raise SampleError(
                "too_large", f"{where}: did not fit in memory while decoding"
            ) from None
        except Exception as error:  # noqa: BLE001 - Pillow's plugins raise almost anything on damaged files
            reason = (
                "not an image that can be identified"
                if isinstance(error, UnidentifiedImageError)
                else f"damaged or truncated ({error})"
            )
            raise SampleError("decode", f"{where}: {reason}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB; alpha over white, 16-bit and float scaled by their range."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        top = _white_level(image.mode, float(values.max()))
        return Image.fromarray(
            np.clip(values / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(
            Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba
        ).convert("RGB")
    return image.convert("RGB")


def _white_level(mode: str, highest: float) -> float:
    """Value of white in a 16-bit, 32-bit integer or float image (the latter two do not say)."""
    if mode.startswith("I;16") or highest > 255.0:
        return 65535.0
    return 1.0 if mode == "F" and highest <= 1.0 else 255.0


def fit(image: Image.Image, size: int | tuple[int, int], mode: FitMode = "center_crop") -> Pixels:
    """RGB image -> (height, width, 3): centre crop to the aspect ratio (or none), then Lanczos. An int is a square's side."""
    width, height = (size, size) if isinstance(size, int) else size
    if mode == "center_crop":
        wide = min(image.width, round(image.height * width / height))
        tall = min(image.height, round(image.width * height / width))
        left, top = round((image.width - wide) / 2), round((image.height - tall) / 2)
        image = image.crop((left, top, left + wide, top + tall))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def encode(pixels: Pixels, spec: ImageFormat) -> bytes:
    """(H, W, 3) -> encoded bytes; the same bytes for the same pixels and library version."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if spec.format == "png":
        image.save(buffer, "PNG", compress_level=4)
    elif spec.format == "webp":
        image.save(buffer, "WEBP", quality=spec.quality, lossless=spec.quality == 100, method=4)
    else:
        image.save(buffer, "JPEG", quality=spec.quality, subsampling=0)
    return buffer.getvalue()
