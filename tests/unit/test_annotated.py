"""COCO, Pascal VOC and YOLO: labels and regions of images, and annotations that are broken named by their place."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.data.sources.regions import Region, label_of
from stylebatch.data.sources.run_lengths import Mask
from stylebatch.data.sources.source import Item
from stylebatch.errors import ManifestError
from stylebatch.spec import join_inputs
from tests.support.packed import encoded


def listed(folder: Path, annotations: object, **options: Any) -> Listing:
    given = SourceOptions(annotations=str(annotations), **options)
    return list_images(open_source(str(folder), "contents", given))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """`a.png`, `sub/b.png` and `c.png`."""
    for i, name in enumerate(("a", "sub/b", "c")):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    return tmp_path / "images"


def by_id(found: Listing) -> dict[str, Item]:
    return {item.id: item for item in found.items}


COCO: dict[str, Any] = {
    "licenses": [{"id": 2, "name": "cc-by-4.0", "url": "u"}],
    "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    "images": [
        {"id": 1, "file_name": "sub/b.png", "width": 48, "height": 40, "license": 2},
        {"id": 2, "file_name": "a.png", "width": 48, "height": 40},
        {"id": 3, "file_name": "c.png", "width": 48, "height": 40},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 30, 20], "segmentation": [[1, 2, 31, 2, 31, 22]]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5], "segmentation": {"counts": [40, 10, 1870], "size": [40, 48]}},
        {"id": 3, "image_id": 2, "category_id": 7, "bbox": [0, 0, 5.5, 5], "keypoints": [1, 1, 2, 0, 0, 0], "num_keypoints": 1},
        {"id": 4, "image_id": 2, "caption": " two cats "},
    ],
}  # fmt: skip


def coco(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(COCO | changes))
    return path


def test_coco_gives_labels_regions_captions_and_licences(images: Path, tmp_path: Path) -> None:
    found = listed(images, coco(tmp_path / "instances.json"))
    assert found.notes == ("contents: read as coco",)
    b, a, c = pickle.loads(pickle.dumps(found.items))
    assert [(i.id, i.label, i.caption, i.license) for i in (b, a, c)] == [
        ("sub/b.png", "dog", "", "cc-by-4.0"),
        ("a.png", "cat", "two cats", ""),
        ("c.png", "", "", ""),
    ]
    assert [(r.label, r.box, [list(p) for p in r.polygons]) for r in b.regions] == [
        ("dog", (1.0, 2.0, 30.0, 20.0), [[1, 2, 31, 2, 31, 22]]),
        ("cat", (0.0, 0.0, 5.0, 5.0), []),
    ]
    assert b.regions[1].mask is not None
    assert b.regions[1].mask.box == (1, 0, 1, 10)
    assert a.regions[0].keypoints == ((1.0, 1.0, 2), (0.0, 0.0, 0))
    assert (b.extra["width"], c.regions) == (48, ())
    assert found.sources.read(b.ref) == encoded(1)


@pytest.mark.parametrize(
    "shape", [{}, {"counts": [40, 10, 1870], "size": [40.0, 48.0]}, {"counts": "X10j1", "size": [40, 48]}]
)  # fmt: skip
def test_masks_of_coco_in_every_form(images: Path, tmp_path: Path, shape: dict[str, Any]) -> None:
    one = COCO["annotations"][0] | {"segmentation": shape, "category_id": 9}
    if "X" in str(shape):
        one["segmentation"] = shape | {"counts": Mask.of(np.eye(40, 48)).counts}
    (region,) = listed(images, coco(tmp_path / "x.json", annotations=[one])).items[0].regions
    assert region.box == (1, 2, 30, 20)
    assert (region.mask is None) == (not shape)


def test_most_images_of_coco_may_be_missing(images: Path, tmp_path: Path) -> None:
    gone = [{"id": 10 + n, "file_name": f"gone{n}.png"} for n in range(30)]
    path = coco(tmp_path / "x.json", images=[*gone, *COCO["images"]])
    assert len(listed(images, path).items) == 33


@pytest.mark.parametrize(
    "changes",
    [
        {"licenses": [{"id": [1]}]},
        {"images": [image | {"license": [1]} for image in COCO["images"]]},
        {"categories": [*COCO["categories"], {"id": [1], "name": "x"}, {"id": 1, "name": ""}]},
    ],
)
def test_odd_ids_of_coco_stand_for_nothing(
    images: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    source = open_source(
        str(images),
        "contents",
        SourceOptions(annotations=str(coco(tmp_path / "x.json", **changes))),
    )
    assert [item.label for item in list_images(source).items] == ["dog", "cat", ""]
    assert [name for one in source.class_lists for _, name in one.names] == ["cat", "dog"]


def annotation(**changes: Any) -> list[dict[str, Any]]:
    return [COCO["annotations"][0] | changes]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"annotations": annotation(category_id=5)}, "annotation 1: category_id: found 5, which no category has"),
        ({"annotations": annotation(image_id=5)}, "annotation 1: image_id: found 5, which no image has"),
        ({"annotations": annotation(bbox=[1, 2, 3])}, "annotation 1: found 3 numbers; accepted: 4"),
        ({"annotations": annotation(bbox=[1, 2, -3, 4])}, "width and height from 0"),
        ({"annotations": annotation(bbox=["1", 2, 3, 4])}, "accepted: a list of numbers"),
        ({"annotations": annotation(segmentation=[[1, 2, 3, 4]])}, "found a polygon of 4 numbers"),
        ({"annotations": annotation(segmentation={"counts": [9], "size": [2, 4]})}, "annotation 1: found run lengths of 9 pixels"),
        ({"annotations": annotation(segmentation={"counts": "04"})}, "annotation 1: found a mask of the size None"),
        ({"annotations": annotation(keypoints=[1, 2])}, "found 2 numbers of keypoints"),
        ({"annotations": annotation(keypoints=[1, 2, 9])}, "0, 1 or 2"),
        ({"annotations": [{}]}, "annotation 1: lacks 'image_id'"),
        ({"annotations": annotation(image_id=[1])}, "which no image has"),
        ({"annotations": [None]}, "annotation 1: "),
    ],
)  # fmt: skip
def test_broken_annotations_of_coco_are_named_or_counted(
    images: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = coco(tmp_path / "x.json", **changes)
    with pytest.raises(ManifestError, match=r"contents\.annotations: .*x\.json: .*" + told):
        listed(images, path)
    found = listed(images, path, damaged="pass_over")
    assert "1 passed over: 1 annotation that cannot be read" in " ".join(found.notes)
    assert all(item.regions == () for item in found.items)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (json.dumps(COCO)[:-40], "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "found no list `images`"),
        ('{"images": [], "annotations": {}}', "`annotations`: found {}; accepted: a list"),
        ('{"images": [{"id": 1}]}', "image 1: .*accepted: an object with `id` and `file_name`"),
        ('{"images": [{"id": 1, "file_name": "../a.png"}]}', "image 1: file_name: .*a path within"),
        ('{"images": [{"id": 1, "file_name": "/a.png"}]}', "image 1: file_name: .*a path within"),
        ('{"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "c.png"}]}', "image 2: .*id 1 twice, of a.png and of c.png"),
    ],
)  # fmt: skip
def test_a_broken_file_of_coco_is_refused(
    images: Path, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ManifestError, match=r"x\.json: .*" + told):
        listed(images, tmp_path / "x.json", damaged="pass_over")


def test_an_image_that_coco_repeats_is_counted(images: Path, tmp_path: Path) -> None:
    repeated = [*COCO["images"], COCO["images"][0] | {"width": 50}, COCO["images"][2]]
    found = listed(images, coco(tmp_path / "x.json", images=repeated))
    assert "contents: 2 passed over: 2 image that is listed again" in found.notes
    assert [(i.id, len(i.regions)) for i in found.items] == [("sub/b.png", 2), ("a.png", 1), ("c.png", 0)]  # fmt: skip


def voc(folder: Path, name: str, *objects: tuple[str, tuple[object, ...]]) -> Path:
    path = folder / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    inner = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for label, b in objects
    )
    path.write_text(
        f"<annotation><filename>{name}.png</filename><size><width>48</width></size>{inner}</annotation>"
    )
    return path


def test_pascal_voc_gives_labels_and_boxes(images: Path, tmp_path: Path) -> None:
    voc(tmp_path / "xml", "a", ("cat", (1, 2, 11, 22)))
    voc(tmp_path / "xml", "sub/b", ("dog", (1, 1, 9, 9)), ("fox", (1, 1, 30, 30)))
    found = by_id(listed(images, tmp_path / "xml"))
    # pixels are counted from 1, and the last one is within
    assert (found["a.png"].label, found["a.png"].regions[0].box) == ("cat", (0, 1, 11, 21))
    assert (found["sub/b.png"].label, len(found["sub/b.png"].regions)) == ("fox", 2)
    assert (found["c.png"].label, found["c.png"].regions) == ("", ())
    assert "contents: 1 image without annotations" in listed(images, tmp_path / "xml").notes


def test_flags_of_voc_are_read_and_boxes_from_0_are_told(images: Path, tmp_path: Path) -> None:
    path = voc(tmp_path / "xml", "a", ("cat", (0, 1, 48, 40)), ("cat", (5, 5, 5, 5)), ("fox", (3, 3, 9, 9)))  # fmt: skip
    parts = path.read_text().split("<object>")
    parts[1] = "<difficult>1</difficult>" + parts[1]
    parts[2] = "<difficult>0</difficult><truncated> 1 </truncated>" + parts[2]
    path.write_text("<object>".join(parts))
    found = listed(images, tmp_path / "xml")
    assert [(r.box, r.flags) for r in found.items[0].regions] == [
        ((-1, 0, 49, 40), (True, False)), ((4, 4, 1, 1), (False, True)), ((2, 2, 7, 7), (False, False)),
    ]  # fmt: skip
    told = "contents: boxes that begin at 0, though Pascal VOC counts pixels from 1: 1; they may be a pixel off"
    assert told in found.notes


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]><annotation>&y;</annotation>'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotation>", "not valid XML"),
        ("", "not valid XML"),
        (BOMB, "document type"),
        ("<a>" * 100 + "</a>" * 100, "nested over 64"),
        ("<kml/>", "found <kml>; accepted: <annotation>"),
        ("<annotation><object/></annotation>", "object 1: found no <name>"),
        ("<annotation><object><name>x</name></object></annotation>", "object 1: found no <bndbox>"),
        ("<annotation><object><name>x</name><bndbox><xmin>1</xmin></bndbox></object></annotation>", "object 1: bndbox"),
    ],
)  # fmt: skip
def test_broken_files_of_voc_are_named_or_counted(
    images: Path, tmp_path: Path, text: str, told: str
) -> None:
    voc(tmp_path / "xml", "a", ("cat", (1, 2, 11, 22)))
    (tmp_path / "xml/c.xml").write_text(text)
    with pytest.raises(ManifestError, match=r"contents\.annotations: .*/c\.xml: .*" + told):
        listed(images, tmp_path / "xml")
    found = listed(images, tmp_path / "xml", damaged="pass_over")
    assert "contents: 1 image whose annotations cannot be read" in found.notes
    assert [i.label for i in found.items] == ["cat", "", ""]


def yolo(folder: Path, **lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in lines.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_yolo_gives_boxes_polygons_and_keypoints(images: Path, tmp_path: Path) -> None:
    lines = {"a": "1 0.5 0.5 0.2 0.4\n", "c": "0 0.1 0.1 0.9 0.1 0.5 0.8\n0 0.5 0.5 0.2 0.4 0.5 0.3 2\n"}  # fmt: skip
    folder = yolo(tmp_path / "labels", **lines)
    found = by_id(listed(images, folder))
    assert [found[name].label for name in ("a.png", "c.png", "sub/b.png")] == ["1", "0", ""]
    box = found["a.png"].regions[0].box
    assert box == pytest.approx((0.4, 0.3, 0.2, 0.4))
    polygon, pose = found["c.png"].regions
    assert (list(polygon.polygons[0]), polygon.is_relative) == ([0.1, 0.1, 0.9, 0.1, 0.5, 0.8], True)  # fmt: skip
    assert pose.keypoints == ((0.5, 0.3, 2),)
    for name, text in (
        ("classes.txt", "cat\ndog\n"),
        ("data.yaml", "names: {0: cat, 1: dog}"),
        ("data.yaml", "names: [cat, dog]\nkpt_shape: [1, 3]"),
    ):
        where = folder if name == "classes.txt" else tmp_path
        (where / name).write_text(text)
        assert by_id(listed(images, folder))["a.png"].label == "dog"
        (where / name).unlink()


def test_keypoints_of_an_even_number_are_told_from_polygons_by_their_shape(
    images: Path, tmp_path: Path
) -> None:
    line = "0 0.5 0.5 0.2 0.4 0.1 0.2 0.3 0.4"
    folder = yolo(tmp_path / "labels", a=line)
    assert by_id(listed(images, folder))["a.png"].regions[0].polygons
    (tmp_path / "data.yaml").write_text("names: [cat]\nkpt_shape: [2, 2]")
    assert by_id(listed(images, folder))["a.png"].regions[0].keypoints == (
        (0.1, 0.2, 2),
        (0.3, 0.4, 2),
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("cat 0.5 0.5 0.2 0.4", "line 1: found the class 'cat'"),
        ("5 0.5 0.5 0.2 0.4", "line 1: found the class 5; accepted: one of 2"),
        ("0 0.5 0.5 0.2", "found a polygon of 3 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.9", "found a polygon of 5 numbers"),
        ("0 0.5 1.5 0.2 0.4", "found 1.5; accepted: fractions"),
        ("0 0.5 nan 0.2 0.4", "found nan; accepted: fractions"),
        ("0 0.5 x 0.2 0.4", "line 1: could not convert"),
        ("\0\0\0", "line 1: found the class"),
    ],
)
def test_broken_lines_of_yolo_are_named_or_counted(
    images: Path, tmp_path: Path, line: str, told: str
) -> None:
    folder = yolo(tmp_path / "labels", a="0 0.5 0.5 0.2 0.4", c=line, classes="cat\ndog")
    with pytest.raises(ManifestError, match=r"contents\.annotations: .*/c\.txt: .*" + told):
        listed(images, folder)
    found = listed(images, folder, damaged="pass_over")
    assert [i.label for i in found.items] == ["cat", "", ""]


def test_annotations_that_fit_nothing_are_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere", "nowhere.json", "images/a.png"):
        with pytest.raises(ManifestError, match=r"contents\.annotations: found .*a COCO file"):
            listed(images, tmp_path / name)
    voc(tmp_path / "xml", "other", ("cat", (1, 2, 11, 22)))
    with pytest.raises(ManifestError, match=r"found no \.xml file for any image of"):
        listed(images, tmp_path / "xml")


def test_annotations_are_relative_to_the_manifest() -> None:
    data = {"contents": {"path": "images", "annotations": "instances.json"}}
    assert join_inputs(data, Path("/m"))["contents"]["annotations"] == "/m/instances.json"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=6))
def test_the_label_of_an_image_is_that_of_most_objects_whatever_their_order(
    objects: list[tuple[str, int]],
) -> None:
    regions = [Region(label, (0.0, 0.0, float(side), 1.0)) for label, side in objects]
    label = label_of(regions)
    assert label == label_of(regions[::-1])
    names = [name for name, _ in objects]
    assert (label == "") == (not objects)
    assert all(names.count(label) >= names.count(other) for other in names)
