"""How pictures are fitted: sizes of their own, padding, linear light, and what a header tells without pixels."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylebatch.data.fit_modes import FitMode, FixedMode, NativeMode
from stylebatch.data.geometry import MOST_AREA, fitted_size, transform_of
from stylebatch.data.image_section import ImageSpec, SourceOptions
from stylebatch.data.images import Pixels, fit, load_image
from stylebatch.data.inputs import load_input
from stylebatch.data.pictures import linear_light
from stylebatch.data.pictures.decoding import decode_into
from stylebatch.data.pictures.header import HEAD_BYTES, displayed_size
from stylebatch.data.source_sizes import sizes_of
from stylebatch.data.sources.coco import CocoImages
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.source import Item, Ref, Sources
from stylebatch.manifest import load_spec
from stylebatch.planning.picture_sizes import size_words
from stylebatch.planning.resolve import plan
from tests.support.images import picture

sides = st.integers(1, 20_000)


@given(
    sides,
    sides,
    st.sampled_from(["fit", "keep"]),
    st.integers(1024, 2**21),
    st.sampled_from([8, 32, 64]),
)
def test_a_picture_gets_a_size_of_about_its_proportions_and_the_area(
    width: int, height: int, mode: NativeMode, area: int, multiple: int
) -> None:
    found = fitted_size((width, height), mode, area, multiple)
    assert all(side > 0 and side % multiple == 0 for side in found)
    assert fitted_size((height, width), mode, area, multiple) == found[::-1]
    area = max(area, multiple**2)
    assert math.prod(found) <= (area if mode == "keep" else MOST_AREA * area)
    if mode == "keep":
        kept = all(
            side == multiple or abs(side - own) <= multiple / 2
            for side, own in zip(found, (width, height), strict=True)
        )
        assert kept or width * height >= area - multiple * (width + height + multiple)
        return
    assert math.prod(found) * MOST_AREA >= area / 2
    # no side is further off than one multiple from that of the exact proportions
    cells = math.prod(found) / multiple**2
    exact = math.sqrt(cells * width / height), math.sqrt(cells * height / width)
    if min(exact) >= 1:
        assert all(abs(side / multiple - own) <= 1 for side, own in zip(found, exact, strict=True))


@pytest.mark.parametrize(
    ("source", "mode", "expected"),
    [
        ((3000, 2000), "fit", (576, 384)),
        ((2000, 3000), "fit", (384, 576)),
        ((4000, 3000), "fit", (576, 448)),
        ((1920, 1080), "fit", (704, 384)),
        ((700, 690), "fit", (512, 512)),
        ((700, 690), "keep", (704, 704)),
        ((60, 40), "keep", (64, 64)),
        ((6000, 4000), "keep", (576, 384)),
    ],
)
def test_sizes_of_a_model_of_512(
    source: tuple[int, int], mode: NativeMode, expected: tuple[int, int]
) -> None:
    area = 704 * 704 if source == (700, 690) else 512 * 512
    assert fitted_size(source, mode, area if mode == "keep" else 512 * 512, 64) == expected


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 90), st.integers(8, 90), st.data())
def test_padding_keeps_the_whole_picture_in_the_middle(
    width: int, height: int, wide: int, tall: int, data: st.DataObject
) -> None:
    transform = transform_of((width, height), (wide, tall), "pad")
    left, top, right, bottom = transform.padding
    assert min(transform.padding) >= 0
    assert max(abs(left - right), abs(top - bottom)) <= 1
    # one side is filled whole
    assert min(left + right, top + bottom) == 0
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    ((column, row),) = transform.points(np.array([[x + 0.5, y + 0.5]]))
    assert left <= column <= wide - right
    assert top <= row <= tall - bottom


def test_padded_pixels_are_the_fill_and_the_rest_is_the_picture(tmp_path: Path) -> None:
    picture(3, 90, 60).save(tmp_path / "a.png")
    spec = ImageSpec(mode="pad", fill=(255, 0, 7))
    found = _loaded(tmp_path / "a.png", 64, spec)
    whole = fit(picture(3, 90, 60), (64, 43), "resize")
    assert (found[:10] == (255, 0, 7)).all()
    assert (found[53:] == (255, 0, 7)).all()
    assert np.array_equal(found[10:53], whole)


def test_a_mask_is_padded_with_nothing(tmp_path: Path) -> None:
    picture(3, 90, 60).save(tmp_path / "a.png")
    Image.new("L", (90, 60), 255).save(tmp_path / "m.png")
    files = LocalFiles("", "")
    item = Item("a.png", Ref(str(tmp_path / "a.png")), mask=Ref(str(tmp_path / "m.png")))
    image = ImageSpec(mode="pad", fill=(255, 255, 255), linear=True)
    mask = load_input(item, files, 64, image).mask
    assert mask is not None
    assert sorted(np.unique(mask)) == [0, 255]
    assert (mask[10:53] == 255).all()
    assert not mask[:10].any()


def test_fine_detail_keeps_its_light(tmp_path: Path) -> None:
    """Black and white lines send half the light, which is code 188; the mean of codes is 128."""
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::2] = 255
    Image.fromarray(lines).save(tmp_path / "lines.png")
    codes, light = (
        _loaded(tmp_path / "lines.png", 16, ImageSpec(linear=linear))[4:-4].mean()
        for linear in (False, True)
    )
    assert abs(codes - 127.5) < 2
    assert abs(light - 188) < 2


@pytest.mark.parametrize(("width", "height"), [(40, 210), (97, 33), (31, 30)])
def test_bands_of_linear_light_leave_no_seam(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(5, 120, 130)
    whole = linear_light.resized_in_light(image, (width, height), lambda part: part)
    monkeypatch.setattr(linear_light, "BAND_PIXELS", 1)
    banded = linear_light.resized_in_light(image, (width, height), lambda part: part)
    off = np.abs(np.asarray(whole, int) - np.asarray(banded, int))
    assert off.max() <= 1
    assert off.mean() < 0.001


def test_what_is_usual_stays_out_of_identities() -> None:
    assert ImageSpec().fitting == {"mode": "center_crop"}
    assert ImageSpec(mode="resize", max_pixels=5000).fitting == {"mode": "resize"}
    assert ImageSpec(mode="pad", linear=True).fitting == {
        "mode": "pad", "linear": True, "fill": [128, 128, 128]
    }  # fmt: skip
    assert ImageSpec(mode="keep", max_pixels=5000).fitting == {"mode": "keep", "max_pixels": 5000}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_header_tells_the_size_that_decoding_gives(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    options: Mapping[str, object] = {} if kind == "GIF" else {"exif": exif}
    Image.effect_noise((700, 300), 90).convert("RGB").save(buffer, kind, **options)
    data = buffer.getvalue()
    decoded = decode_into(data, "a", lambda found: (found.width, found.height))
    assert displayed_size(data, is_whole=True) == decoded
    if kind in ("JPEG", "PNG"):  # of the others the first bytes do not tell
        assert displayed_size(data[:HEAD_BYTES], is_whole=False) == decoded
        assert len(data) > HEAD_BYTES or kind == "JPEG"
    else:
        assert displayed_size(data[:HEAD_BYTES], is_whole=False) is None


@given(
    st.binary(max_size=64),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\0\0\1\0", b"RIFF"]),
)
def test_a_header_of_anything_is_a_size_or_none(data: bytes, start: bytes) -> None:
    found = displayed_size(start + data, is_whole=True)
    assert found is None or min(found) >= 1


def test_sizes_are_read_in_order_and_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    for number, (width, height) in enumerate([(90, 60), (60, 90), (64, 64)]):
        picture(number, width, height).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    files = LocalFiles("", "contents")
    names = ["2.png", "broken.jpg", "0.png", "gone.png", "1.png"]
    items = [Item(name, Ref(str(tmp_path / name), source="contents")) for name in names]
    found, counts = sizes_of(items, Sources.of(files))
    assert found == [((64, 64),), (None,), ((90, 60),), (None,), ((60, 90),)]
    assert (counts["read"], counts["unread"], counts["known"]) == (3, 2, 0)


def test_sizes_of_coco_are_those_of_the_files_which_may_be_turned(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 96)).save(tmp_path / "a.jpg", exif=turned)
    Image.new("RGB", (64, 96)).save(tmp_path / "b.jpg")
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 96},
        {"id": 2, "file_name": "b.jpg", "width": 32, "height": 48},
    ]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images, "annotations": []}))
    options = SourceOptions(annotations=str(tmp_path / "instances.json"))
    source = CocoImages(str(tmp_path), "contents", options)
    found, counts = sizes_of(list(source.items()), Sources.of(source))
    assert found == [((96, 64),), ((64, 96),)]
    assert (counts["known"], counts["read"], counts["unread"]) == (0, 2, 0)


def test_a_picture_that_is_not_as_listed_loses_its_rims_and_says_so(tmp_path: Path) -> None:
    picture(1, 90, 60).save(tmp_path / "a.png")
    item, files = Item("a.png", Ref(str(tmp_path / "a.png"))), LocalFiles("", "")
    image = ImageSpec(mode="fit")
    whole = load_input(item, files, ((96, 64),), image, ((90, 60),))
    assert whole.notes == ()
    turned = load_input(item, files, ((64, 96),), image, ((60, 90),))
    assert turned.pixels.shape == (96, 64, 3)
    assert turned.notes == ("a.png: 90 x 60 pixels, planned as 60 x 90 pixels: its middle is used",)
    assert np.array_equal(turned.pixels, fit(picture(1, 90, 60), (64, 96), "center_crop"))


FITTED = (Path(__file__).parents[2] / "docs/fitting.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", FITTED, re.DOTALL))
def test_an_example_gives_the_size_that_it_says(tmp_path: Path, example: str) -> None:
    for side in ("contents", "styles"):
        (tmp_path / side).mkdir()
        picture(1, 96, 64).save(tmp_path / side / "a.png")
    sources = "contents: {path: contents}\nstyles: {path: styles}\noutput: {path: out}\n"
    (tmp_path / "run.yaml").write_text(example + sources, encoding="utf-8")
    resolved = plan(load_spec(tmp_path / "run.yaml"))
    assert f"px: {size_words(resolved.sample_sizes)}" in re.sub(r"\n", " px", example)


def test_a_plan_tells_of_a_fill_that_is_not_used(tmp_path: Path) -> None:
    for side in ("contents", "styles"):
        (tmp_path / side).mkdir()
        picture(1, 96, 64).save(tmp_path / side / "a.png")
    image = "image: {size: 128, mode: fit, fill: [0, 0, 0]}\n"
    sources = "contents: {path: contents}\nstyles: {path: styles}\noutput: {path: out}\n"
    (tmp_path / "run.yaml").write_text(image + sources, encoding="utf-8")
    spec = load_spec(tmp_path / "run.yaml")
    assert any(note.startswith("image.fill is not used") for note in plan(spec).notes)
    padded = load_spec(tmp_path / "run.yaml", ["image.mode=pad"])
    assert not any("image.fill" in note for note in plan(padded).notes)


def test_a_plan_tells_of_pictures_that_are_stretched(tmp_path: Path) -> None:
    for side, sizes in (("contents", [(50, 40), (96, 64), (70, 64)]), ("styles", [(64, 64)])):
        (tmp_path / side).mkdir()
        for number, size in enumerate(sizes):
            picture(number, *size).save(tmp_path / side / f"{number}.png")
    sources = "contents: {path: contents}\nstyles: {path: styles}\noutput: {path: out}\n"
    (tmp_path / "run.yaml").write_text(f"image: {{mode: keep}}\n{sources}", encoding="utf-8")
    told = [n for n in plan(load_spec(tmp_path / "run.yaml")).notes if "stretched" in n]
    (note,) = told
    assert note.startswith(
        "contents that are stretched by more than 10%, since sides are multiples of 32 px: 1 of 3; most of all 0.png, from 50 x 40 px "
        "to 64 x 32 px (60%)"
    )
    for mode in ("pad", "center_crop"):
        padded = plan(load_spec(tmp_path / "run.yaml", [f"image.mode={mode}"]))
        assert not any("stretched" in note for note in padded.notes)


def test_a_plan_tells_of_pictures_that_will_fail_for_their_size(tmp_path: Path) -> None:
    for side, sizes in (("contents", [(400, 7), (8, 8), (1, 1)]), ("styles", [(64, 64)])):
        (tmp_path / side).mkdir()
        for number, size in enumerate(sizes):
            Image.new("RGB", size).save(tmp_path / side / f"{number}.png")
    sources = "contents: {path: contents}\nstyles: {path: styles}\noutput: {path: out}\n"
    (tmp_path / "run.yaml").write_text(f"image: {{mode: fit}}\n{sources}", encoding="utf-8")
    (note,) = [n for n in plan(load_spec(tmp_path / "run.yaml")).notes if "side under" in n]
    assert note.startswith("contents with a side under 8 px: 2 of 3, such as 0.png (400 x 7 px)")
    large = load_spec(tmp_path / "run.yaml", ["contents.min_side=8"])
    assert not any(note.startswith("contents with a side") for note in plan(large).notes)


def test_the_table_of_modes_is_whole() -> None:
    named = re.findall(r"^\| `(\w+)`", FITTED, re.MULTILINE)
    assert named == [*get_args(FixedMode), *get_args(NativeMode)] == list(get_args(FitMode))


def _loaded(path: Path, size: int, image: ImageSpec) -> Pixels:
    return load_image(Ref(str(path)), LocalFiles("", ""), size, image, name="a").pixels
