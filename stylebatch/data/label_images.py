"""Label images (semantic, instance, panoptic): fitted as the picture they are of, by nearest neighbour, so that no label is mixed."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylebatch.data.pictures.decode_memory import turn
from stylebatch.data.pictures.decoding import MAX_PIXELS
from stylebatch.data.pictures.opening import open_picture
from stylebatch.data.pictures.orientation import TURNS
from stylebatch.data.view import TOLERANCE, View
from stylebatch.errors import SampleError

Labels = NDArray[np.uint8] | NDArray[np.uint16]
MODES = ("1", "L", "P", "I;16", "I;16B", "I", "RGB", "RGBA")
LOSSY = ("JPEG", "MPO", "AVIF", "HEIF")
BEYOND = {"uint8": 255, "uint16": 65535}
"""Label where there is no picture, as next to one that is padded: what losses are told to ignore by custom."""
CODE = "segmentation"


def fitted_labels(data: bytes, view: View, name: str) -> bytes:
    """A PNG of the labels at the pixels of the rendered picture, with the palette that the file has.

    Raises SampleError for what is no image of labels, or one of another picture; `name` stands for it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large pictures
            image = open_picture(data).image
            if image.width * image.height > MAX_PIXELS:
                raise SampleError("too_large", f"{name}: {image.width} x {image.height} pixels")
            with turn(len(data) + 8 * image.width * image.height):
                return _fitted(image, view, name)
    except SampleError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise almost anything on damaged files
        raise SampleError(CODE, f"{name}: cannot be read as an image: {error}") from None


def _fitted(image: Image.Image, view: View, name: str) -> bytes:
    if image.mode not in MODES or image.format in LOSSY:
        raise SampleError(
            CODE,
            f"{name}: found {image.format} of the mode {image.mode}; accepted: images that keep labels as they are, such as PNG with a "
            "palette, grey values of 8 or 16 bits, or RGB",
        )
    image.load()
    if image.size != view.displayed and image.size == view.stored:
        palette = image.getpalette()
        image = image.transpose(TURNS[view.orientation])
        if palette:
            image.putpalette(palette)
    (width, height), (wide, tall) = image.size, view.displayed
    if abs((width * tall) / (height * wide) - 1) > TOLERANCE:
        raise SampleError(
            CODE,
            f"{name}: {width} x {height} pixels; accepted: the proportions of its image, {wide} x {tall}",
        )
    pixels = _labels(image, name)
    # Colours say nothing where there is no picture.
    beyond = 0 if pixels.ndim == 3 else BEYOND[pixels.dtype.name]
    made = Image.fromarray(view.nearest(pixels, beyond))
    if image.mode == "P":
        # whole: Pillow takes fewer bits for a short palette, and would cut 255, for void, to 15
        colours = (image.getpalette() or [])[:768]
        made.putpalette(colours + [0] * (768 - len(colours)))
    buffer = io.BytesIO()
    made.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _labels(image: Image.Image, name: str) -> Labels:
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image)
    if image.mode in ("I", "I;16", "I;16B"):
        if pixels.min() < 0 or pixels.max() > BEYOND["uint16"]:
            raise SampleError(CODE, f"{name}: found labels beyond 16 bits; accepted: 0 to 65535")
        return pixels.astype(np.uint16)
    return pixels.astype(np.uint8)
