"""Arrays and pictures of one memory: equal to what copies would be, and only where the memory fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylebatch.data.image_section import ImageFormat
from stylebatch.data.images import encode
from stylebatch.pixel_memory import Pixels, image_of, new_pixels, pixels_of
from stylebatch.quality.reduction import Reduction


def _noise(height: int, width: int) -> Pixels:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _shared(pixels: Pixels) -> Pixels:
    made = new_pixels(*pixels.shape[:2])
    made[...] = pixels
    return made


@settings(deadline=None)  # the first picture loads Pillow's parts
@given(st.integers(1, 40), st.integers(1, 40))
def test_both_ways_keep_every_pixel(height: int, width: int) -> None:
    pixels = _noise(height, width)
    assert np.array_equal(pixels_of(Image.fromarray(pixels)), pixels)
    for one in (pixels, _shared(pixels), pixels_of(Image.fromarray(pixels))):
        image = image_of(one)
        assert (image.mode, image.size) == ("RGB", (width, height))
        assert image.tobytes() == pixels.tobytes()


def test_memory_of_four_bytes_is_shared() -> None:
    made = _shared(_noise(20, 30))
    back = pixels_of(image_of(made))
    assert np.shares_memory(made, back)
    assert not back.flags.writeable


@pytest.mark.parametrize(
    "view",
    [
        lambda four: four[..., 1:],
        lambda four: four[..., 2::-1],
        lambda four: four[:, ::-1, :3],
        lambda four: four[2:, :, :3],
        lambda four: four[:, 2:, :3],
        lambda four: four.transpose(1, 0, 2)[..., :3],
    ],
)
def test_other_views_of_four_bytes_are_copied(view: object) -> None:
    four = np.random.default_rng(0).integers(0, 256, (24, 24, 4), dtype=np.uint8)
    part = view(four)  # type: ignore[operator]
    assert np.array_equal(np.asarray(image_of(part)), part)


def test_a_picture_in_several_pieces_is_copied() -> None:
    image = Image.new("RGB", (3000, 2000), (1, 2, 3))
    image.putpixel((2999, 1999), (4, 5, 6))
    pixels = pixels_of(image)
    assert (pixels[0, 0].tolist(), pixels[-1, -1].tolist()) == ([1, 2, 3], [4, 5, 6])


def test_an_array_outlives_its_picture() -> None:
    pixels = _noise(64, 64)
    found = [pixels_of(Image.fromarray(pixels)) for _ in range(50)]
    assert all(np.array_equal(one, pixels) for one in found)


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "avif"])
def test_encoded_and_reduced_bytes_do_not_depend_on_the_memory(form: str) -> None:
    pixels, spec = _noise(72, 96), ImageFormat.model_validate({"format": form})
    shared = _shared(pixels)
    assert encode(shared, spec) == encode(pixels, spec)
    assert np.array_equal(Reduction(shared).small, Reduction(pixels).small)
