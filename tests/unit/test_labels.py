"""Labels end where the pixels do: over drawn sizes, crops and orientations, compared with the fitted picture itself."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from stylebatch.data.geometry import FitMode, Transform, transform_of
from stylebatch.data.image_section import ImageSpec
from stylebatch.data.images import Picture, load_image
from stylebatch.data.inputs import load_labelled
from stylebatch.data.label_images import BEYOND, fitted_labels
from stylebatch.data.labels import area_of, fitted
from stylebatch.data.reading import hash_of
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.run_lengths import Mask
from stylebatch.data.sources.source import Item, Ref
from stylebatch.data.view import View
from stylebatch.errors import SampleError

SIDES = st.integers(24, 90)
SIZES = st.integers(8, 64)
MODES = st.sampled_from(["center_crop", "resize"])
FIXED = st.sampled_from(["center_crop", "resize", "pad"])
BLACK = (0, 0, 0)
Drawn = st.DataObject


class Held:
    """Files in memory."""

    def __init__(self, **files: bytes) -> None:
        self.files = files

    def read(self, ref: Ref) -> bytes:
        return self.files[ref.uri]

    def size(self, ref: Ref) -> int | None:
        return len(self.files[ref.uri])


def encoded(pixels: Any, orientation: int = 1, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    made.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def marked(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    """Black, and white in the box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, across, down = box
    pixels[top : top + down, left : left + across] = 255
    return pixels


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int], int]:
    """Width and height in the file, a box of whole pixels in it, and an orientation."""
    width, height = draw(SIDES), draw(SIDES)
    across, down = draw(st.integers(4, width)), draw(st.integers(4, height))
    box = draw(st.integers(0, width - across)), draw(st.integers(0, height - down)), across, down
    return (width, height), box, draw(st.integers(1, 8))


@settings(max_examples=60, deadline=None)
@given(case=cases(), size=st.tuples(SIZES, SIZES), mode=FIXED)
def test_a_marked_box_ends_in_the_transformed_one(
    case: tuple[Any, Any, int], size: tuple[int, int], mode: FitMode
) -> None:
    stored, box, orientation = case
    left, top, across, down = box
    corners = (left, top, left + across, top, left + across, top + down, left, top + down)
    centre = (left + across / 2, top + down / 2, 2)
    item = Item("a", Ref("a"), regions=(Region("x", box, (corners,), (centre,), frame=stored),))
    # orientations that keep the sides cannot be told from the frame: what is annotated is what is displayed
    assume(orientation == 1 or (orientation >= 5 and stored[0] != stored[1]))
    source = Held(a=encoded(marked(*stored, box), orientation))
    image = ImageSpec(mode=mode, min_visibility=0.0, fill=BLACK)
    picture = load_labelled(item, source, size, image)
    light = picture.pixels[..., 0].astype(float)
    rows, columns = np.nonzero(light > 160)
    if not picture.objects:
        assert not light.any()
        return
    (found,) = picture.objects
    assert found.box is not None
    x, y, wide, tall = found.box
    assert 0 <= x <= x + wide <= size[0] + 1e-3
    assert 0 <= y <= y + tall <= size[1] + 1e-3
    for low, extent, places in ((x, wide, columns), (y, tall, rows)):
        if len(places):
            # pixels that are mostly white have their centres in the box
            assert low - 0.5 <= places.min() + 0.5
            assert places.max() + 0.5 <= low + extent + 0.5
    assert area_of(found) == pytest.approx(wide * tall, abs=0.3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.tuples(SIZES, SIZES), mode=FIXED, turned=st.booleans())
def test_a_keypoint_is_half_a_pixel_off_at_most(
    data: Drawn, size: tuple[int, int], mode: FitMode, turned: bool
) -> None:
    width, height = data.draw(SIDES), data.draw(SIDES)
    assume(width != height)
    radius = max(3, math.ceil(1.5 * max(width / size[0], height / size[1])))
    assume(min(width, height) > 2 * radius)
    x = data.draw(st.integers(radius, width - radius))
    y = data.draw(st.integers(radius, height - radius))
    box = (x - radius, y - radius, 2 * radius, 2 * radius)
    orientation = data.draw(st.sampled_from([5, 6, 7, 8])) if turned else 1
    region = Region("x", box, keypoints=((x, y, 2),), frame=(width, height))
    source = Held(a=encoded(marked(width, height, box), orientation))
    image = ImageSpec(mode=mode, min_visibility=0.0, fill=BLACK)
    picture = load_labelled(Item("a", Ref("a"), regions=(region,)), source, size, image)
    assume(picture.objects)
    (found,) = picture.objects
    assert found.box is not None
    whole = fitted([region], _view(picture, (10**4, 10**4)), min_visibility=0.0, name="a")
    assume(whole and found.box == whole[0].box)  # nothing of it was cut
    assume(all(n > 1 for n in found.box[:2]))
    assume(
        all(a + b < side - 1 for a, b, side in zip(found.box[:2], found.box[2:], size, strict=True))
    )
    ((at_x, at_y, seen),) = found.keypoints
    light = picture.pixels[..., 0].astype(float)
    total = light.sum()
    mean_x = (light.sum(axis=0) * (np.arange(size[0]) + 0.5)).sum() / total
    mean_y = (light.sum(axis=1) * (np.arange(size[1]) + 0.5)).sum() / total
    assert seen == 2
    assert abs(at_x - mean_x) < 0.5
    assert abs(at_y - mean_y) < 0.5


def _view(picture: Picture, size: tuple[int, int]) -> View:
    """The picture's view on a larger canvas, where nothing right or below is cut."""
    assert picture.transform is not None
    t = picture.transform
    canvas = Transform(t.crop, t.scaled, t.offset, size)
    return View((picture.original_width, picture.original_height), picture.orientation, canvas)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    size=st.tuples(SIZES, SIZES),
    mode=MODES,
    kind=st.sampled_from(["P", "L", "I;16", "RGB"]),
)
def test_labels_of_an_image_stay_what_they_are_and_where_the_pixels_go(
    data: Drawn, size: tuple[int, int], mode: FitMode, kind: str
) -> None:
    width, height = data.draw(SIDES), data.draw(SIDES)
    orientation = data.draw(st.sampled_from([1, 5, 6, 7, 8]))
    assume(width != height)
    across, down = data.draw(st.integers(2, width)), data.draw(st.integers(2, height))
    box = (
        data.draw(st.integers(0, width - across)),
        data.draw(st.integers(0, height - down)),
        across,
        down,
    )
    inside = marked(width, height, box)[..., 0] > 0
    names = data.draw(
        st.sampled_from([(3, 255), (0, 7), (60_000, 12)] if kind == "I;16" else [(3, 255), (0, 7)])
    )
    labels = np.where(inside, names[0], names[1])
    if kind == "RGB":
        made = Image.fromarray(np.repeat(labels[..., None], 3, axis=2).astype(np.uint8))
    else:
        made = Image.fromarray(labels.astype(np.uint16 if kind == "I;16" else np.uint8))
    if kind == "P":
        made.putpalette([n for i in range(256) for n in (i, 0, 255 - i)])
    source = Held(
        a=encoded(marked(width, height, box), orientation),
        b=encoded(made),
    )
    item = Item("a", Ref("a"), segmentation=Ref("b"))
    picture = load_labelled(item, source, size, ImageSpec(mode=mode))
    with Image.open(io.BytesIO(picture.segmentation)) as opened:
        found = np.asarray(opened)
        assert opened.size == size
        assert opened.mode == ("I;16" if kind == "I;16" else kind)
        if kind == "P":
            assert opened.getpalette() == made.getpalette()
    flat = found[..., 0] if kind == "RGB" else found
    assert set(np.unique(flat).tolist()) <= set(names)
    light = picture.pixels[..., 0].astype(int)
    # where the picture is not in between, it says which label it is
    assert (flat[light == 255] == names[0]).mean() > 0.8 if (light == 255).sum() > 30 else True
    assert (flat[light == 0] == names[1]).mean() > 0.8 if (light == 0).sum() > 30 else True
    assert picture.files[1] == ("a: segmentation", hash_of(source.files["b"]))


def test_label_images_of_the_displayed_size_are_not_turned_again() -> None:
    stored = marked(40, 20, (0, 0, 10, 20))
    upright = np.asarray(Image.fromarray(stored).transpose(Image.Transpose.ROTATE_270))
    source = Held(a=encoded(stored, 6), b=encoded(upright[..., 0]), c=encoded(stored[..., 0]))
    found = [
        load_labelled(Item("a", Ref("a"), segmentation=Ref(name)), source, (10, 20), ImageSpec())
        for name in "bc"
    ]
    assert found[0].segmentation == found[1].segmentation
    with Image.open(io.BytesIO(found[0].segmentation)) as opened:
        assert np.array_equal(np.asarray(opened) > 128, found[0].pixels[..., 0] > 128)


def test_a_padded_picture_has_the_label_that_losses_ignore() -> None:
    view = View((20, 10), 1, Transform((0, 0, 20, 10), (40, 20), (0, 10), (40, 40)))
    made = fitted_labels(encoded(np.full((10, 20), 3, np.uint8)), view, "x")
    with Image.open(io.BytesIO(made)) as opened:
        found = np.asarray(opened)
    assert set(found[:10].ravel()) == set(found[30:].ravel()) == {BEYOND["uint8"]}
    assert set(found[10:30].ravel()) == {3}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"no image", "cannot be read as an image"),
        (encoded(np.zeros((10, 11), np.uint8)), "11 x 10 pixels; accepted: the proportions of its image, 20 x 10"),
        (encoded(Image.new("LA", (20, 10))), "of the mode LA; accepted: images that keep labels"),
        (encoded(Image.fromarray(np.full((10, 20), 70_000, np.int32)), kind="TIFF"), "beyond 16 bits"),
        (encoded(np.zeros((10, 20), np.uint8))[:-30], "cannot be read as an image"),
    ],
)  # fmt: skip
def test_what_is_no_image_of_labels_fails_the_sample(data: bytes, told: str) -> None:
    view = View((20, 10), 1, transform_of((20, 10), (8, 8), "center_crop"))
    with pytest.raises(SampleError, match=f"x: .*({told})") as error:
        fitted_labels(data, view, "x")
    assert error.value.code == "segmentation"


def inside(x: float, y: float, polygon: list[tuple[float, float]]) -> bool:
    """Even-odd rule."""
    found = False
    for place, (ax, ay) in enumerate(polygon):
        bx, by = polygon[place - 1]
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            found = not found
    return found


@settings(max_examples=60, deadline=None)
@given(
    radii=st.lists(st.floats(5, 60), min_size=3, max_size=12),
    middle=st.tuples(st.floats(-20, 60), st.floats(-20, 60)),
    seed=st.integers(0, 10**6),
)
def test_a_cut_polygon_covers_what_the_whole_one_covers_within_the_picture(
    radii: list[float], middle: tuple[float, float], seed: int
) -> None:
    turns = [2 * math.pi * i / len(radii) for i in range(len(radii))]
    star = [
        (middle[0] + r * math.cos(t), middle[1] + r * math.sin(t))
        for r, t in zip(radii, turns, strict=True)
    ]
    region = Region("x", polygons=(tuple(n for point in star for n in point),))
    view = View((40, 30), 1, Transform((0, 0, 40, 30), (40, 30), (0, 0), (40, 30)))
    found = fitted([region], view, min_visibility=0.0, name="x")
    points = np.random.default_rng(seed).uniform(0.01, 0.99, (60, 2)) * (40, 30)
    for x, y in points.tolist():
        whole = inside(x, y, star)
        cut = any(
            inside(x, y, list(zip(p[::2], p[1::2], strict=True)))
            for one in found
            for p in one.polygons
        )
        assert whole == cut or _is_near(x, y, star)
    for one in found:
        assert all(0 <= n <= 40 for p in one.polygons for n in p[::2])
        assert all(0 <= n <= 30 for p in one.polygons for n in p[1::2])


def _is_near(x: float, y: float, polygon: list[tuple[float, float]]) -> bool:
    """Whether a point is so near to an edge that rounding decides."""
    for place, (ax, ay) in enumerate(polygon):
        bx, by = polygon[place - 1]
        length = math.hypot(bx - ax, by - ay)
        if abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) < 0.01 * max(length, 1.0):
            return True
    return False


def view(width: int = 100, height: int = 60, side: int = 30) -> View:
    return View((width, height), 1, transform_of((width, height), (side, side), "center_crop"))


def test_of_what_is_cut_a_share_must_be_left() -> None:
    # of a picture of 100 x 60 the middle 60 columns are seen
    half = Region("half", (10, 0, 20, 20))
    tenth = Region("tenth", (2, 0, 20, 20))
    out = Region("out", (0, 0, 20, 20))
    found = {
        share: [
            one.label for one in fitted([half, tenth, out], view(), min_visibility=share, name="x")
        ]
        for share in (0.0, 0.1, 0.11, 0.5, 0.51)
    }
    assert found == {
        0.0: ["half", "tenth"], 0.1: ["half", "tenth"], 0.11: ["half"], 0.5: ["half"], 0.51: [],
    }  # fmt: skip


def test_fractions_and_annotations_of_other_sizes_are_put_on_the_picture() -> None:
    regions = [
        Region("fraction", (0.25, 0.25, 0.5, 0.5), is_relative=True),
        Region("half size", (12.5, 7.5, 25, 15), frame=(50, 30)),
        Region("same size", (25, 15, 50, 30), frame=(100, 60)),
        Region("no size", (25, 15, 50, 30)),
    ]
    found = fitted(regions, view(), min_visibility=0.0, name="x")
    assert {one.box for one in found} == {(2.5, 7.5, 25.0, 15.0)}
    with pytest.raises(
        SampleError, match="x: its objects are those of a picture of 60 x 50 pixels"
    ) as error:
        fitted(
            [Region("other", (0, 0, 1, 1), frame=(60, 50))], view(), min_visibility=0.0, name="x"
        )
    assert error.value.code == "objects"


def test_what_is_annotated_beside_the_picture_is_not_in_its_padding() -> None:
    padded = View((40, 20), 1, transform_of((40, 20), (40, 40), "pad"))
    over = Region(
        "x", (10, -8, 20, 40), ((10, -8, 30, -8, 30, 32, 10, 32),), ((20, -4, 2), (20, 4, 2))
    )
    (found,) = fitted([over], padded, min_visibility=0.0, name="x")
    assert found.box == (10.0, 10.0, 20.0, 20.0)
    assert area_of(found) == 400
    assert found.keypoints == ((0.0, 0.0, 0), (20.0, 14.0, 2))


def test_objects_without_box_have_one_around_what_is_seen_of_them() -> None:
    polygon = Region("polygon", polygons=((30.0, 10.0, 50.0, 10.0, 50.0, 30.0),))
    points = Region("points", keypoints=((30, 10, 2), (50, 30, 1), (0, 0, 0)))
    nothing = Region("nothing", keypoints=((0, 0, 0),))
    found = fitted([polygon, points, nothing], view(), min_visibility=0.1, name="x")
    assert [(one.label, one.box) for one in found] == [
        ("polygon", (5.0, 5.0, 10.0, 10.0)),
        ("points", (5.0, 5.0, 10.0, 10.0)),
    ]
    assert found[1].keypoints == ((5.0, 5.0, 2), (15.0, 15.0, 1), (0.0, 0.0, 0))
    assert [area_of(one) for one in found] == [50.0, 100.0]


def test_a_picture_that_is_decoded_smaller_has_its_labels_in_place() -> None:
    source = Held(a=encoded(marked(80, 60, (20, 15, 40, 30))))
    picture = load_image(Ref("a"), source, 32, name="a")
    assert picture.transform is not None
    small = transform_of((40, 30), (32, 32), "center_crop").for_source_of((40, 30), (80, 60))
    points = np.array([[20.0, 15.0], [60.0, 45.0]])
    assert np.allclose(small.points(points), picture.transform.points(points))


@settings(max_examples=60, deadline=None)
@given(case=cases(), size=st.tuples(SIZES, SIZES), mode=FIXED, scale=st.sampled_from([1, 2]))
def test_masks_are_fitted_as_label_images_are(
    case: tuple[Any, Any, int], size: tuple[int, int], mode: FitMode, scale: int
) -> None:
    stored, box, orientation = case
    pixels = marked(*stored, box)[..., 0] // 255
    # annotations of a picture of twice the size
    large = np.kron(pixels, np.ones((scale, scale), np.uint8))
    region = Region("x", None, mask=Mask.of(large))
    region = replace(region, box=region.mask.box if region.mask else None, frame=large.shape[::-1])
    assume(orientation == 1 or (orientation >= 5 and stored[0] != stored[1] and scale == 1))
    source = Held(a=encoded(marked(*stored, box), orientation), b=encoded(pixels, orientation))
    image = ImageSpec(mode=mode, min_visibility=0.0, fill=BLACK)
    item = Item("a", Ref("a"), regions=(region,), segmentation=Ref("b"))
    picture = load_labelled(item, source, size, image)
    with Image.open(io.BytesIO(picture.segmentation)) as opened:
        expected = np.asarray(opened) == 1
    if scale == 1:
        assert any(expected.ravel()) == bool(picture.objects)
    for found in picture.objects:
        assert found.mask is not None
        if scale == 1:
            assert np.array_equal(found.mask.pixels == 1, expected)
        assert area_of(found) == found.mask.pixels.sum() > 0


def test_objects_beside_the_picture_are_told_and_those_that_are_cut_are_not() -> None:
    source = Held(a=encoded(marked(60, 40, (0, 0, 4, 4))))
    boxes = [(0, 0, 4, 4), (-9, 2, 9, 9), (61, 2, 9, 9), (30, 20, 5, 5), (30, 20, 0, 5)]
    item = Item("a", Ref("a"), regions=tuple(Region("x", box) for box in boxes))
    picture = load_labelled(item, source, (20, 20), ImageSpec())
    assert len(picture.objects) == 1
    assert picture.notes == (
        "a: 3 of 5 objects are outside the picture or without area, and left out",
    )
