"""HEIC and JPEG XL, which an extra reads: as other pictures, damaged ones refused, large ones before they are decoded."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from stylebatch.data.pictures import jxl, opening
from stylebatch.data.pictures.decoding import Decoded, decode_into
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES, further_format
from stylebatch.errors import SampleError
from tests.support.images import picture

pillow_heif = pytest.importorskip("pillow_heif")
pytest.importorskip("pillow_jxl")


def encoded(kind: str, image: Image.Image, turned: int = 1) -> bytes:
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x112] = turned
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=95, exif=exif.tobytes())
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    def srgb(found: Decoded) -> np.ndarray:
        return np.asarray(found.srgb(found.image)).astype(float)

    return decode_into(data, "x", srgb)


@pytest.mark.parametrize("kind", ["HEIF", "JXL"])
def test_they_are_read_upright(kind: str) -> None:
    image = picture(3)
    assert further_format(encoded(kind, image)) == kind
    assert {".heic", ".heif", ".jxl"} <= IMAGE_SUFFIXES
    assert np.abs(pixels(encoded(kind, image)) - np.asarray(image)).mean() < 5
    upright = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(pixels(encoded(kind, image, 6)) - upright).mean() < 5


@pytest.mark.parametrize("kind", ["HEIF", "JXL"])
def test_damaged_ones_fail_as_samples(kind: str) -> None:
    whole, codes = encoded(kind, picture(3)), set()
    for seed in range(40):
        drawn = random.Random(seed)
        data = bytearray(whole)
        for _ in range(4):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        try:
            decode_into(bytes(data[: drawn.randrange(len(data))]), "x", lambda found: None)
        except SampleError as error:
            codes.add(error.code)
    assert "decode" in codes
    assert codes <= {"decode", "too_large", "too_small"}


@pytest.mark.parametrize("size", [(8, 8), (96, 80), (256, 256), (640, 360), (1000, 3), (513, 700)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    buffer = io.BytesIO()
    image.save(buffer, "JXL", effort=1)
    assert jxl.pixels(buffer.getvalue()) == size[0] * size[1]
    assert jxl.pixels(encoded("JXL", image)) == size[0] * size[1]  # in a container, for its EXIF
    for length in range(8):
        jxl.pixels(buffer.getvalue()[:length])


def test_a_large_jpeg_xl_is_refused_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jxl, "MAX_PIXELS", 96 * 80 - 1)
    with pytest.raises(SampleError, match="did not fit") as caught:
        pixels(encoded("JXL", picture(3)))
    assert caught.value.code == "too_large"


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(opening, "import_module", absent)
    with pytest.raises(SampleError, match=r"HEIF, which the extra.*pip install 'stylebatch\[heif\]'"):  # fmt: skip
        pixels(encoded("HEIF", picture(3)))
