"""Paths of data sets with annotations that are a folder off, and annotations that lie unused, are told with what is meant."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylebatch.data.sources.listing import Listing
from stylebatch.errors import ManifestError
from tests.support.layouts import BOX, coco, labels, listed, put


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deep=st.lists(st.sampled_from(["train", "a", "b c"]), max_size=2), form=st.sampled_from(["yolo", "voc"]))  # fmt: skip
def test_a_path_that_is_a_folder_off_is_told_and_what_is_told_works(
    tmp_path_factory: pytest.TempPathFactory, deep: list[str], form: str
) -> None:
    root = tmp_path_factory.mktemp("off") / "set"
    inner = "/".join([*deep, "1"])
    put(root, f"images/{inner}.jpg")
    path = root / f"labels/{inner}.{'txt' if form == 'yolo' else 'xml'}"
    path.parent.mkdir(parents=True)
    path.write_text(f"0 {BOX}" if form == "yolo" else "<annotation/>")
    (root / "readme.txt").write_text("about")
    places = [root, root / "images", root / "/".join(["images", *deep[:1]])]
    for images, xml in itertools.product(places, (root, root / "labels")):
        found = as_meant(images, xml)
        assert len(found.items) == 1
        assert "without annotations" not in " ".join(found.notes)


def as_meant(images: Path, xml: Path) -> Listing:
    """What is listed, if need be by the paths that an error tells."""
    try:
        return listed(images, xml)
    except ManifestError as error:
        message = str(error)
    meant = re.search(r"did you mean `([^`]*)`", message)
    assert meant is not None, message
    told = dict(part.split(": ") for part in meant[1].split(", "))
    return listed(Path(told.get("path", str(images))), Path(told.get("annotations", str(xml))))


@pytest.mark.parametrize(
    ("path", "name", "meant"),
    [("", "1.jpg", "images"), ("", "train/1.jpg", "images"), ("images/train", "train/1.jpg", "images"), ("", "x/1.jpg", None)],
)  # fmt: skip
def test_images_that_coco_lists_elsewhere_are_told(
    tmp_path: Path, path: str, name: str, meant: str | None
) -> None:
    put(tmp_path, "images/1.jpg", "images/train/1.jpg", a__json=coco(name, "gone.jpg"))
    hint = f"did you mean `path: {tmp_path / meant}`" if meant else r"jpg; accepted: the folder"
    with pytest.raises(ManifestError, match=f"found none of the images that .*{hint}"):
        listed(tmp_path / path, tmp_path / "a.json")


def test_the_folder_of_the_split_is_meant(tmp_path: Path) -> None:
    put(tmp_path, "train2017/1.jpg", "val2017/1.jpg", a__json=coco("1.jpg"))
    (tmp_path / "a.json").rename(tmp_path / "instances_val2017.json")
    with pytest.raises(ManifestError, match=f"did you mean `path: {tmp_path}/val2017`"):
        listed(tmp_path, tmp_path / "instances_val2017.json")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"annotations___instances_x__json": coco("1.jpg")}, "annotations/instances_x.json"),
        ({"annotations___instances_train__json": "{}", "annotations___instances_val__json": "{}"}, "annotations"),
        ({"annotations___instances_a__json": "{}", "annotations___captions_a__json": "{}"}, "annotations/instances_a.json"),
        ({"Annotations___1__xml": "<annotation/>"}, "Annotations"),
        ({"labels___train___1__txt": BOX}, "labels"),
        ({"_annotations__coco__json": coco("1.jpg")}, "_annotations.coco.json"),
    ],
)  # fmt: skip
def test_annotations_that_lie_there_unused_are_told(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    put(tmp_path, "images/1.jpg", "images/2.jpg", **files)
    notes = " ".join(listed(tmp_path).notes)
    say = f"for its objects say `path: {tmp_path}/images` and `annotations: {tmp_path}/{told}`"
    assert f"{told} is there and not used; {say}" in notes
    assert "the only class is images, which seems to be the name of a folder" in notes
    assert "not used" not in " ".join(listed(tmp_path, kind="folder").notes)
    assert {i.label for i in listed(tmp_path, label_from=0).items} == {""}


def test_annotations_beside_the_images_of_each_split_are_told(tmp_path: Path) -> None:
    put(tmp_path, "train/1.jpg", train____annotations__coco__json=coco("1.jpg"))
    told = "train/_annotations.coco.json is there and not used; for its objects say `kind: coco`"
    assert told in " ".join(listed(tmp_path).notes)
    assert labels(listed(tmp_path, kind="coco")) == {"train/1.jpg": "cat"}


@pytest.mark.parametrize(
    ("path", "files", "told"),
    [
        ("yolo/train/images", {"yolo___train___labels___1__txt": f"0 {BOX}"}, "yolo/train/labels"),
        ("yolo/images/train", {"yolo___labels___train___1__txt": f"0 {BOX}"}, "yolo/labels/train"),
        ("voc/JPEGImages", {"voc___Annotations___1__xml": "<annotation/>"}, "voc/Annotations"),
    ],
)
def test_annotations_beside_the_folder_of_images_are_told(
    tmp_path: Path, path: str, files: dict[str, str], told: str
) -> None:
    put(tmp_path, f"{path}/1.jpg", **files)
    notes = " ".join(listed(tmp_path / path).notes)
    assert f"for its objects say `annotations: {tmp_path / told}`" in notes
    assert "not used" not in " ".join(listed(tmp_path / path, kind="folder").notes)
    assert "not used" not in " ".join(listed(tmp_path / path, tmp_path / told).notes)


def test_folders_of_classes_are_no_doubt(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "images/2.jpg", "labels/3.jpg", package__json="{}")
    assert listed(tmp_path).notes[1:] == (
        "contents: 1 passed over, since they are not read: 1 .json (such as package.json)",
    )
