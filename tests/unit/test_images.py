"""Decoding what people really have in their folders, fitting, and encoding."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import time
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from stylebatch.data.image_section import ImageFormat
from stylebatch.data.images import encode, fit, load_image, load_picture
from stylebatch.data.pictures.decoding import MAX_PIXELS, decode
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.source import Ref
from stylebatch.errors import SampleError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quadrants(width: int = 24, height: int = 16) -> Image.Image:
    """Red, green over blue, white."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    draw.rectangle((0, height // 2, width // 2 - 1, height), fill=BLUE)
    draw.rectangle((width // 2, height // 2, width, height), fill=WHITE)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> NDArray[np.uint8]:
    image = decode(data, "file")
    assert image.mode == "RGB"
    return np.asarray(image)


def png_header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that stops after claiming a size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + chunk(b"IDAT", b"x\x9c")
    )


def failure(data: bytes, where: str = "folder/picture.jpg") -> SampleError:
    with pytest.raises(SampleError) as caught:
        decode(data, where)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = quadrants()
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180], 4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    stored = upright
    for turn in undo.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless: dict[str, Any] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }.get(kind, {})
    found = decoded(encoded(stored, kind, exif=exif, **lossless))
    assert found.shape == (16, 24, 3)
    assert np.abs(found.astype(int) - np.asarray(upright).astype(int)).max() <= (
        16 if kind == "JPEG" else 0
    )


@pytest.mark.parametrize(("alpha", "expected"), [(255, 0), (0, 255), (102, 153)])
def test_alpha_is_composited_over_white(alpha: int, expected: int) -> None:
    for mode, colour in (("RGBA", (0, 0, 0, alpha)), ("LA", (0, alpha))):
        found = decoded(encoded(Image.new(mode, (8, 8), colour)))
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_palette_with_transparency_shows_white_where_transparent() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE] + [0] * 750)
    image.paste(1, (8, 0, 16, 16))
    for kind in ("PNG", "GIF"):
        found = decoded(encoded(image, kind, transparency=0))
        assert tuple(found[4, 2]) == WHITE
        assert tuple(found[4, 12]) == BLUE


def test_palette_with_partial_transparency_per_entry() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE] + [0] * 750)
    image.paste(1, (8, 0, 16, 16))
    found = decoded(encoded(image, "PNG", transparency=bytes([51, 255])))
    assert np.abs(found[4, 2].astype(int) - (255, 204, 204)).max() <= 1
    assert tuple(found[4, 12]) == BLUE


def test_rgb_with_a_transparent_colour_key() -> None:
    found = decoded(encoded(quadrants(), "PNG", transparency=RED))
    assert tuple(found[2, 2]) == WHITE
    assert tuple(found[2, 20]) == GREEN


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = decoded(encoded(image, kind))
    assert np.abs(found.astype(int) - RED).max() <= 3


def test_16_bit_greyscale_is_scaled_by_its_range_not_clipped() -> None:
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = decoded(encoded(Image.fromarray(levels)))
    assert np.array_equal(found[..., 0], found[..., 2])
    assert np.abs(found[..., 0].astype(float) - levels / 257.0).max() <= 0.51


def test_dark_16_bit_picture_stays_dark() -> None:
    levels = np.full((16, 16), 200, dtype=np.uint16)  # 200 of 65535 is black, not light grey
    assert decoded(encoded(Image.fromarray(levels))).max() <= 1


@pytest.mark.parametrize(
    ("mode", "colour", "expected"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)]
)
def test_greyscale_and_bilevel_become_three_equal_channels(
    mode: str, colour: int, expected: int
) -> None:
    found = decoded(encoded(Image.new(mode, (8, 8), colour)))
    assert found.shape == (8, 8, 3)
    assert (found == expected).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(
        frames[0],
        kind,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert (decoded(data) == RED).all()


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".jpg"), ("JPEG", ".png"), ("GIF", ".webp"), ("WEBP", ".txt")]
)
def test_wrong_extension_is_decoded_by_content(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encoded(quadrants(), kind))
    picture = load_picture(path, 32)
    assert picture.pixels.shape == (32, 32, 3)
    assert (picture.original_width, picture.original_height) == (24, 16)


def test_original_size_is_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(quadrants(40, 20), "JPEG", exif=exif))
    picture = load_picture(path, 32)
    assert (picture.original_width, picture.original_height) == (20, 40)


def test_missing_file_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"gone\.jpg: no such file") as caught:
        load_picture(tmp_path / "gone.jpg", 32)
    assert caught.value.code == "missing"


def test_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.write_bytes(b"")
    with pytest.raises(SampleError, match="zero bytes") as caught:
        load_picture(path, 32)
    assert caught.value.code == "decode"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_truncated_files_are_errors_not_half_grey_pictures(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert failure(data[: int(len(data) * share)]).code == "decode"


def test_corrupted_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        original = np.frombuffer(encoded(quadrants(), kind), dtype=np.uint8)
        for _ in range(40):
            damaged = original.copy()
            damaged[rng.integers(0, len(damaged), 6)] = rng.integers(0, 256, 6)
            with contextlib.suppress(SampleError):
                assert decode(damaged.tobytes(), "file").mode == "RGB"


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am a text file\n",
        b"\x00" * 64,
        b"\xff\xd8\xff",
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_picture_is_said_to_be_none(data: bytes) -> None:
    error = failure(data, "notes.jpg")
    assert error.code == "decode"
    assert "not an image that can be identified" in str(error)


def test_header_that_claims_10_gigapixels_is_refused_at_once_without_memory() -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    error = failure(png_header(100_000, 100_000))
    assert error.code == "too_large"
    assert str(MAX_PIXELS) in str(error)
    assert time.monotonic() - started < 2.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_size_just_over_the_bound_is_refused() -> None:
    assert failure(png_header(20_000, 10_001)).code == "too_large"


def test_size_within_the_stated_bound_is_not_called_too_large() -> None:
    header = png_header(10_000, MAX_PIXELS // 10_000, depth=1)
    assert failure(header).code == "decode"  # the file ends, that is all


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (7, 7), (300, 7)])
def test_tiny_sides_are_too_small(width: int, height: int) -> None:
    error = failure(encoded(Image.new("RGB", (width, height))))
    assert error.code == "too_small"
    assert f"{width} x {height} pixels; accepted: at least 8 per side" in str(error)


def test_smallest_accepted_side() -> None:
    assert decoded(encoded(Image.new("RGB", (8, 8)))).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("width", "height", "left", "top"),
    [(13, 8, 2, 0), (11, 8, 2, 0), (9, 8, 0, 0), (8, 13, 0, 2), (8, 15, 0, 4), (8, 8, 0, 0)],
)
def test_centre_crop_rounds_half_to_even(width: int, height: int, left: int, top: int) -> None:
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    picture = np.stack([columns, rows, columns * 0], axis=-1).astype(np.uint8)
    found = fit(Image.fromarray(picture), 8)
    assert np.array_equal(found, picture[top : top + 8, left : left + 8])


@pytest.mark.parametrize("mode", ["center_crop", "resize"])
@pytest.mark.parametrize(("width", "height"), [(31, 57), (57, 31), (512, 9), (64, 64), (20, 20)])
def test_fit_gives_square_uint8_of_the_size(
    mode: Literal["center_crop", "resize"], width: int, height: int
) -> None:
    found = fit(quadrants(width, height), 64, mode)
    assert found.shape == (64, 64, 3)
    assert found.dtype == np.uint8


def test_resize_keeps_the_whole_picture_and_crop_its_middle() -> None:
    wide = quadrants(200, 20)
    whole, middle = fit(wide, 32, "resize"), fit(wide, 32, "center_crop")
    assert tuple(whole[2, 2]) == tuple(middle[2, 2]) == RED
    strip = Image.new("RGB", (300, 100), RED)
    strip.paste(GREEN, (100, 0, 200, 100))
    assert (fit(strip, 50, "center_crop") == GREEN).all()
    assert tuple(fit(strip, 50, "resize")[25, 2]) == RED


def test_fit_is_lanczos_of_the_crop() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 41, 3), dtype=np.uint8))
    cropped = ImageOps.fit(image, (40, 40), Image.Resampling.LANCZOS, centering=(0.0, 0.5))
    assert np.array_equal(
        fit(image, 64), np.asarray(cropped.resize((64, 64), Image.Resampling.LANCZOS))
    )


FORMATS = [
    ImageFormat(format="jpg"),
    ImageFormat(format="jpg", quality=1),
    ImageFormat(format="jpg", quality=100),
    ImageFormat(format="png"),
    ImageFormat(format="webp"),
    ImageFormat(format="webp", quality=100),
    ImageFormat(format="avif"),
    ImageFormat(format="avif", quality=100),
]


NAMES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}


@pytest.mark.parametrize("spec", FORMATS, ids=lambda spec: f"{spec.format}-{spec.quality}")
def test_encoding_is_deterministic_and_carries_no_metadata(spec: ImageFormat) -> None:
    pixels = fit(quadrants(), 64)
    data = encode(pixels, spec)
    assert data == encode(pixels.copy(), spec)
    image = Image.open(io.BytesIO(data))
    assert image.format == NAMES[spec.format]
    assert image.size == (64, 64)
    assert image.mode == "RGB"
    assert not image.getexif()


@pytest.mark.parametrize(
    "spec",
    [ImageFormat(format="png"), ImageFormat(format="webp", quality=100)],
    ids=lambda spec: str(spec.format),
)
def test_lossless_formats_return_the_pixels(spec: ImageFormat) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    assert np.array_equal(decoded(encode(pixels, spec)), pixels)


def test_jpg_keeps_full_colour_resolution() -> None:
    image = Image.open(io.BytesIO(encode(fit(quadrants(), 64), ImageFormat())))
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_quality_matters_for_lossy_formats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("jpg", "webp", "avif"):
        assert len(encode(pixels, ImageFormat(format=kind, quality=30))) < len(
            encode(pixels, ImageFormat(format=kind, quality=95))
        )


def test_a_file_too_large_to_read_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(8 << 40)
    with pytest.raises(SampleError, match="accepted: at most") as caught:
        load_picture(path, 64)
    assert caught.value.code == "too_large"


def test_a_path_that_no_file_can_have_is_a_failed_sample(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="row 7: cannot be read"):
        load_image(Ref(f"{tmp_path}/a\0b.png"), LocalFiles("", ""), 64, name="row 7")
