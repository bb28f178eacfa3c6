"""Pictures as people have them: colour profiles, odd metadata, odd values, files that are none, and what they may cost."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from stylebatch.data.images import load_picture
from stylebatch.data.pictures.colour import colour_of_profile
from stylebatch.data.pictures.decoding import Decoded, decode, decode_into
from stylebatch.data.pictures.icc import SRGB_XY, gray_profile, rgb_profile
from stylebatch.errors import SampleError
from tests.support.encodings import COLOURS, P3, P3_XY, chunk, encoded, tiff

ADOBE = rgb_profile(2.19921875, (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = COLOURS.convert("L")


def found(data: bytes) -> NDArray[np.int64]:
    return np.asarray(decode(data, "file")).astype(np.int64)


def notes(data: bytes, truncated: Literal["refuse", "accept"] = "refuse") -> tuple[str, ...]:
    def noted(decoded: Decoded) -> tuple[str, ...]:
        return decoded.notes

    return decode_into(data, "file", noted, truncated=truncated)


def managed(data: bytes, profile: bytes) -> NDArray[np.int64]:
    """What LittleCMS shows of a picture's own values."""
    shown = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
    )  # fmt: skip
    return np.asarray(shown).astype(np.int64)


def cmyk_profile() -> bytes:
    """A printer of plain inks: a table of 5 steps for each, in L*a*b*."""
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = (1 - inks[:, :3] * 0.9) * (1 - inks[:, 3:] * 0.95)
    lightness = 255 * light.mean(axis=1) ** 0.5
    table = np.stack(
        [lightness, 128 + 80 * (light[:, 0] - light[:, 1]), 128 + 80 * (light[:, 1] - light[:, 2])],
        1,
    )
    unity = b"".join(struct.pack(">i", one << 16) for one in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 5, 0]) + unity + ramp * 4
    lut += table.clip(0, 255).astype(np.uint8).tobytes() + ramp * 3
    head = bytearray(gray_profile(2.2))
    head[12:24] = b"prtrCMYKLab "
    start = 132 + 12 * 3
    words = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"a\0" + bytes(80)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    body = lut + bytes(-len(lut) % 4)
    places = (start, start + len(body), start + len(body) + len(words))
    parts = ((b"A2B0", body), (b"desc", words), (b"wtpt", white))
    tags = b"".join(
        name + struct.pack(">II", place, len(value))
        for (name, value), place in zip(parts, places, strict=True)
    )
    whole = bytes(head[:128]) + struct.pack(">I", 3) + tags + body + words + white
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.mark.parametrize("profile", [ADOBE, P3], ids=["adobe", "p3"])
def test_a_profile_gives_the_colours_of_a_managed_viewer_in_every_format(profile: bytes) -> None:
    for kind, options in (
        ("JPEG", {"quality": 98}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {}),
        ("AVIF", {}),
    ):
        data = encoded(COLOURS, kind, icc_profile=profile, **options)
        wanted = managed(data, profile)
        assert np.abs(found(data) - wanted).max() <= 1, kind
        assert np.abs(found(data) - found(encoded(COLOURS, kind, **options))).max() > 10, kind
        assert notes(data) == ()


def test_cmyk_grey_lab_and_palettes_have_profiles_too() -> None:
    printer, dot_gain = cmyk_profile(), gray_profile(1.4)
    for kind in ("JPEG", "TIFF"):
        data = encoded(COLOURS.convert("CMYK"), kind, icc_profile=printer)
        assert notes(data) == ()
        assert np.abs(found(data) - managed(data, printer)).max() <= 1
    grey = encoded(GREY, "TIFF", icc_profile=dot_gain)
    assert np.abs(found(grey) - managed(grey, dot_gain)).max() <= 1
    deep = encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), icc_profile=dot_gain)
    assert np.abs(found(deep) - found(grey)).max() <= 1
    lab = ImageCms.profileToProfile(
        COLOURS, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert isinstance(lab, Image.Image)
    assert np.abs(found(encoded(lab, "TIFF")) - np.asarray(COLOURS)).mean() < 2
    palette = COLOURS.quantize(32)
    whole = encoded(palette.convert("RGB"), icc_profile=P3)
    assert np.array_equal(found(encoded(palette, icc_profile=P3)), found(whole))


def test_a_profile_of_srgb_leaves_every_pixel_alone() -> None:
    """So do PNG's marks of sRGB, as most programs write them, and a grey picture tagged sRGB."""
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        assert np.array_equal(
            found(encoded(COLOURS, kind, icc_profile=SRGB)), found(encoded(COLOURS, kind))
        )
    assert np.array_equal(found(encoded(GREY, icc_profile=SRGB)), found(encoded(GREY)))
    usual = with_chunks(
        encoded(COLOURS), (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", numbers(SRGB_XY))
    )
    assert np.array_equal(found(usual), np.asarray(COLOURS))
    exact = with_chunks(encoded(COLOURS), (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000)))
    assert np.array_equal(found(exact), np.asarray(COLOURS))


def test_broken_and_foreign_profiles_are_noted_and_the_values_stand() -> None:
    rng, plain = np.random.default_rng(0), encoded(COLOURS)
    link = ADOBE[:12] + b"link" + ADOBE[16:]
    black = ADOBE.replace(
        ADOBE[ADOBE.find(b"XYZ \0\0\0\0", 200) :][:20], b"XYZ \0\0\0\0" + bytes(12)
    )
    broken = [ADOBE[: int(cut)] for cut in rng.integers(1, len(ADOBE) - 30, 12)]
    broken += [
        rng.bytes(4000),
        b"x",
        link,
        gray_profile(1.0),
        cmyk_profile(),
        ADOBE[:200] + rng.bytes(300),
    ]
    for profile in broken:
        data = encoded(COLOURS, icc_profile=profile)
        assert np.array_equal(found(data), found(plain))
        assert "its colour profile is not used" in notes(data)[0]
        assert "\n" not in notes(data)[0]
    decode(encoded(COLOURS, icc_profile=black), "file")  # whatever it makes of the colours
    parts = encoded(COLOURS, "JPEG", icc_profile=ADOBE + bytes(90_000))
    second = parts.rfind(b"\xff\xe2", 0, parts.rfind(b"ICC_PROFILE"))
    (length,) = struct.unpack_from(">H", parts, second + 2)
    lost = parts[:second] + parts[second + 2 + length :]
    assert "incomplete" in notes(lost)[0]
    assert np.array_equal(found(lost), found(encoded(COLOURS, "JPEG")))


def test_threads_share_transforms_and_fitting_commutes_with_them(tmp_path: Path) -> None:
    large = COLOURS.resize((640, 480), Image.Resampling.BICUBIC)
    (tmp_path / "a.png").write_bytes(encoded(large, icc_profile=P3))
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda _: load_picture(tmp_path / "a.png", 64).pixels, range(32)))
    assert all(np.array_equal(one, several[0]) for one in several)
    colour = colour_of_profile(P3, "RGB")
    assert colour is not None
    first = colour.to_srgb(large.crop((80, 0, 560, 480))).resize((64, 64), Image.Resampling.LANCZOS)
    assert np.abs(several[0].astype(int) - np.asarray(first)).mean() < 0.5


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Behind the header."""
    return png[:33] + b"".join(chunk(*one) for one in chunks) + png[33:]


def numbers(xy: tuple[float, ...]) -> bytes:
    return struct.pack(">8I", *(round(value * 100_000) for value in xy))


def test_gamma_and_primaries_of_a_png_count() -> None:
    linear = with_chunks(encoded(COLOURS), (b"gAMA", struct.pack(">I", 100_000)))
    assert np.abs(found(linear) - managed(encoded(COLOURS), rgb_profile(1.0, SRGB_XY))).max() <= 1
    wide = with_chunks(
        encoded(COLOURS), (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", numbers(P3_XY))
    )
    assert np.abs(found(wide) - managed(encoded(COLOURS), P3)).max() <= 2
    for absurd in (
        (b"gAMA", bytes(4)),
        (b"gAMA", b"ab"),
        (b"cHRM", bytes(32)),
        (b"gAMA", b"\xff" * 4),
    ):
        data = with_chunks(encoded(COLOURS), (b"cHRM", bytes(32)), absurd)
        assert np.array_equal(found(data), np.asarray(COLOURS))


def test_what_a_png_says_beside_its_pixels_never_costs_them() -> None:
    plain = encoded(COLOURS)
    wrong_sum = struct.pack(">I", 5) + b"tEXta\0bcd" + b"XXXX"
    bomb = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(40_000_000))
    odd = [
        with_chunks(plain, (b"iTXt", bomb)),
        with_chunks(plain, (b"zTXt", b"k\0\0no deflate")),
        with_chunks(plain, (b"iCCP", b"no end"), (b"eXIf", b"II"), (b"sRGB", b"")),
        with_chunks(plain, (b"tEXt", b"k\0" + bytes(3_000_000))),
        plain[:33] + wrong_sum + plain[33:],
        plain[:-12] + wrong_sum + plain[-12:],
        plain[:-5],
        plain[:-12],
        plain[:-12] + struct.pack(">I", 9999) + b"tEXtcut off",
    ]
    for data in odd:
        assert np.array_equal(found(data), np.asarray(COLOURS))
    big = encoded(COLOURS, icc_profile=P3 + bytes(3_000_000))
    assert np.array_equal(found(big), found(encoded(COLOURS, icc_profile=P3)))
    for cut in (0.3, 0.9):
        with pytest.raises(SampleError, match="truncated"):
            decode(plain[: int(len(plain) * cut)], "file")


def exif(kind: int, value: bytes, *more: bytes) -> bytes:
    entries = [struct.pack("<HHI", 274, kind, 1) + value.ljust(4, b"\0"), *more]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)


def test_orientation_is_read_from_odd_metadata_and_nothing_is_refused_for_it() -> None:
    turned = COLOURS.transpose(Image.Transpose.ROTATE_90)
    width_as_text = struct.pack("<HHI4s", 0x100, 2, 4, b"abc\0")
    says_six = [
        exif(3, b"\6"),
        exif(4, b"\6"),
        exif(1, b"\6"),
        exif(2, b"6"),
        exif(3, b"\6", width_as_text),
    ]
    says_six.append(says_six[0] + bytes(60_000))
    says_nothing = [
        exif(5, b"\6"),
        exif(3, b"\11"),
        b"Exif\0\0junk",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ]
    says_nothing += [b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 65535) + bytes(40), b"Exif\0\0"]
    for kind in ("JPEG", "WEBP"):
        upright, lying = encoded(COLOURS, kind), encoded(turned, kind)
        for metadata in says_six:
            data = encoded(turned, kind, exif=metadata)
            assert np.array_equal(found(data), np.rot90(found(lying), -1))
        for metadata in says_nothing:
            assert np.array_equal(found(encoded(COLOURS, kind, exif=metadata)), found(upright))
    for metadata in says_six:
        png = with_chunks(encoded(turned), (b"eXIf", metadata[6:]))
        assert np.array_equal(found(png), np.asarray(COLOURS))
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    assert np.array_equal(found(encoded(turned, pnginfo=text)), np.asarray(COLOURS))
    in_tiff = encoded(turned, "TIFF", tiffinfo={700: xmp}, compression="tiff_lzw")
    assert np.array_equal(found(in_tiff), np.asarray(COLOURS))


def test_segments_that_pillow_refuses_cost_no_jpeg_and_no_avif() -> None:
    jpeg = encoded(COLOURS, "JPEG")
    for kind, body in (
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xEE, b"Adobe"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\xff"),
    ):
        segment = struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body
        assert np.array_equal(found(jpeg[:2] + segment + jpeg[2:]), found(jpeg))
    two = encoded(COLOURS, "MPO", save_all=True, append_images=[COLOURS.rotate(180)])
    assert np.abs(found(two) - np.asarray(COLOURS)).mean() < 8
    assert np.array_equal(found(two.replace(b"MPF\0", b"MPF\1")), found(two))
    avif = bytearray(encoded(COLOURS, "AVIF", exif=b"Exif\0\0" + tiff((305, 2, 4, 0x414141))))
    place = avif.rindex(b"II*\0")
    avif[place : place + 4] = b"zzzz"
    assert np.array_equal(found(bytes(avif)), found(encoded(COLOURS, "AVIF")))


def numeric(values: NDArray[Any], scale: float, odd: tuple[float, ...], dtype: str) -> bytes:
    scaled = (values * scale).astype(dtype)
    scaled.flat[: len(odd)] = odd
    return encoded(Image.fromarray(scaled), "TIFF")


def test_odd_values_change_nothing_but_themselves() -> None:
    ramp = np.tile(np.linspace(0.1, 0.9, 48), (48, 1))
    whole = np.round(ramp * 255) / 255
    wanted = ramp * 255
    strange: tuple[float, ...] = (np.nan, np.inf, -np.inf, 1e30, -1e30, -5.0)
    for scale in (1, 255, 65535):
        for odd in ((), (scale * 1.0001,), *((one,) for one in strange), (*strange, 1e9, 3e5)):
            shown = found(numeric(ramp, scale, odd, "float32"))[..., 0]
            off = np.abs(shown - wanted)
            assert off.flat[len(odd) :].max() <= 1, (scale, odd)
    for scale, odd in ((255, (2**31 - 1,)), (65535, (-(2**31), 2**31 - 1)), (255, (-1, 70_000))):
        shown = found(numeric(whole, scale, odd, "int32"))[..., 0]
        assert np.abs(shown - wanted).flat[len(odd) :].max() <= 1, (scale, odd)
    ringing = np.where(ramp > 0.5, 1.03, 0.0)
    assert found(numeric(ringing, 1, (), "float32")).max() == 255
    for scale in (4, 1e7):
        assert 60 < found(numeric(ramp, scale, (), "float32")).mean() < 200
    assert (found(numeric(ramp * 0, 1, (), "float32")) == 0).all()
    assert (found(numeric(ramp * 0 + 0.5, 1, (), "float32")) == 128).all()
    with pytest.raises(SampleError, match="no value in it is a finite number"):
        decode(numeric(ramp * np.nan, 1, (), "float32"), "file")


def test_jpeg_that_ends_early_is_taken_where_that_is_asked_for() -> None:
    whole = encoded(COLOURS, "JPEG", quality=95)
    for cut in (len(whole) - 2, len(whole) - 1, len(whole) * 2 // 3):
        with pytest.raises(SampleError, match=r"image\.truncated: accept"):
            decode(whole[:cut], "file")
        assert "ends early" in notes(whole[:cut], "accept")[0]
    shown = np.asarray(decode(whole[:-2], "file", truncated="accept"))
    assert np.array_equal(shown, np.asarray(decode(whole, "file", truncated="accept")))
    large = encoded(COLOURS.resize((256, 192)), "JPEG", quality=95)
    half = np.asarray(decode(large[: len(large) // 2], "file", truncated="accept")).astype(int)
    assert np.array_equal(half[:32], found(large)[:32])
    assert (half[-16:] == 128).all()
    for other in ("PNG", "WEBP", "GIF", "TIFF"):
        data = encoded(COLOURS, other)
        with pytest.raises(SampleError):
            decode(data[: len(data) // 2], "file", truncated="accept")
