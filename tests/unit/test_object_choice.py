"""Objects of chosen classes, and none that no detector could learn from: what is left out is counted, whatever the source."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.data.sources.object_choice import Sifter
from stylebatch.data.sources.regions import Region, label_of
from stylebatch.data.sources.run_lengths import Mask
from stylebatch.data.sources.source import Item, Ref
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.words import counted
from tests.support.images import picture
from tests.support.packed import encoded, tar

CLASSES = ("cat", "cats", "Cat", "dog")
NUMBERS = st.sampled_from([-30.0, -5.0, 0.0, 0.5, 19.5, 20.0, 40.0])
SIDES = st.sampled_from([0.0, 0.25, 5.0, 30.0, 60.0])
FRAMES = st.sampled_from([None, (20, 20), (40, 20)])
TRIANGLE = ((1.0, 1.0, 5.0, 1.0, 5.0, 6.0),)
REGIONS = st.builds(
    Region, st.sampled_from(CLASSES), st.none() | st.tuples(NUMBERS, NUMBERS, SIDES, SIDES), st.sampled_from([(), TRIANGLE]), frame=FRAMES,
)  # fmt: skip


def inside(region: Region) -> bool:
    """By pixels a quarter wide: whether any of the box is in the picture."""
    if region.box is None or region.frame is None:
        return True
    steps = [i / 4 + 0.125 for i in range(-200, 400)]
    return all(
        any(low < n < low + extent and 0 < n < side for n in steps)
        for low, extent, side in zip(region.box[:2], region.box[2:], region.frame, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(st.lists(REGIONS, max_size=4), min_size=1, max_size=4),
    wanted=st.none() | st.sets(st.sampled_from(CLASSES), min_size=1),
)
def test_what_is_left_is_of_the_chosen_and_can_be_seen(
    images: list[list[Region]], wanted: set[str] | None
) -> None:
    options = SourceOptions(objects=None if wanted is None else tuple(sorted(wanted)))
    source = open_source("images", "contents", options.model_copy(update={"kind": "coco"}))
    items = [
        Item(str(i), Ref("x"), label_of(regions), regions=tuple(regions))
        for i, regions in enumerate(images)
    ]
    sifter = Sifter(source)
    found = sifter.sifted(items)
    assert [item.id for item in found] == [item.id for item in items]
    lost: Counter[str] = Counter()
    for item, before in zip(found, images, strict=True):
        chosen = [r for r in before if wanted is None or r.label in wanted]
        lost["class"] += len(before) - len(chosen)
        assert item.label == label_of(chosen if wanted is not None else before)
        flat = [r for r in chosen if r.box is not None and not r.box[2] * r.box[3]]
        gone = [r for r in flat if not r.polygons]
        out = [r for r in chosen if r not in flat and not inside(r)]
        lost["flat"] += len(gone)
        lost["out"] += len(out)
        left = [r for r in chosen if r not in gone and r not in out]
        assert [r.label for r in item.regions] == [r.label for r in left]
        assert all(r.box is None or (r.box[2] and r.box[3]) for r in item.regions)
    known = {region.label for before in images for region in before}
    if wanted is not None and not wanted <= known:
        with pytest.raises(ManifestError, match=r"contents\.objects: .*found '.*', which is no class"):  # fmt: skip
            sifter.end()
        return
    told = " ".join(sifter.end())
    assert (f"{counted(lost['class'], 'object')} of other classes" in told) == bool(lost["class"])
    assert (f"{lost['flat']} without area" in told) == bool(lost["flat"])
    assert (f"{lost['out']} outside their image" in told) == bool(lost["out"])


def test_a_flat_box_beside_a_mask_is_that_of_the_mask() -> None:
    mask = Mask.of(np.pad(np.ones((3, 5)), 2))
    source = open_source("images", "contents", SourceOptions(kind="coco"))
    item = Item("0", Ref("x"), "cat", regions=(Region("cat", (4.0, 4.0, 0.0, 3.0), mask=mask),))
    (region,) = Sifter(source).sifted([item])[0].regions
    assert region.box == (2, 2, 5, 3)


def yolo(folder: Path, split: str, **lines: str) -> None:
    for name, text in lines.items():
        path = folder / "images" / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(len(name)))
        path = folder / "labels" / split / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "styles").mkdir(exist_ok=True)
    picture(9, 40, 40).save(folder / "styles/s.png")
    (folder / "data.yaml").write_text("names: [person, dog, car, cat]")


BOX = "0.5 0.5 0.2 0.2\n"


def listed(folder: Path, *objects: str, **options: Any) -> Listing:
    given = SourceOptions(annotations=str(folder / "labels"), objects=objects or None, **options)
    return list_images(open_source(str(folder / "images"), "contents", given))


def test_two_of_the_classes_of_yolo_are_kept(tmp_path: Path) -> None:
    yolo(tmp_path, "train", a=f"0 {BOX}0 {BOX}3 {BOX}", bb=f"0 {BOX}", ccc=f"1 {BOX}3 0.5 0.5 0 0\n")  # fmt: skip
    found = listed(tmp_path, "cat", "dog")
    assert [(item.label, len(item.regions)) for item in found.items] == [("cat", 1), ("", 0), ("dog", 1)]  # fmt: skip
    assert found.notes[-2:] == (
        "contents: 3 objects of other classes left out (person 3), among them all of 1 image",
        "contents: objects that cannot be used are left out: 1 without area (such as in train/ccc.png)",
    )
    yolo(tmp_path / "mixed", "train", a=f"0 {BOX}3 {BOX}")
    told = listed(tmp_path / "mixed", "cat").notes
    assert "contents: 1 object of other classes left out (person 1)" in told
    # the labels of images follow, and may be asked for
    assert [i.id for i in listed(tmp_path, "cat", "dog", labels=("cat",)).items] == ["train/a.png"]  # fmt: skip
    with pytest.raises(ManifestError) as error:
        listed(tmp_path, "cat", "Dog")
    assert str(error.value).endswith(
        "found 'Dog', which is no class of its objects; did you mean 'dog'? accepted: person, dog, car, cat"
    )


def test_a_plan_has_the_chosen_classes_in_the_order_of_the_source(tmp_path: Path) -> None:
    # in the second split no object is a dog
    yolo(tmp_path, "train", a=f"0 {BOX}3 {BOX}", bb=f"1 {BOX}", ccc=f"0 {BOX}")
    yolo(tmp_path, "val", a=f"0 {BOX}3 {BOX}", bb=f"3 {BOX}", ccc=f"0 {BOX}")
    data = {
        "contents": {"path": "images", "annotations": "labels", "objects": ["cat", "dog"]}, "styles": {"path": "styles"},
        "image": {"size": 32}, "output": {"path": str(tmp_path / "out")}, "split": "source",
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    found = plan(load_spec(tmp_path / "run.yaml"))
    assert found.labels == ("dog", "cat")
    assert "classes: 2, numbered in the order of data.yaml" in found.lines()
    assert "contents: 4 objects of other classes left out (person 4), among them all of 2 images" in found.lines()  # fmt: skip
    every = load_spec(tmp_path / "run.yaml", ["contents.objects=null"])
    assert plan(every).identity != found.identity
    two = load_spec(tmp_path / "run.yaml", ['classes=["cat","dog"]'])
    assert plan(two).class_numbers == {"cat": 0, "dog": 1}
    more = load_spec(tmp_path / "run.yaml", ['classes=["cat","dog","person"]'])
    assert not any("not among" in line for line in plan(more).lines())
    others = {"classes": ["cat", "dog"], "contents.objects": None}
    refused = load_spec(tmp_path / "run.yaml", [f"{k}={json.dumps(v)}" for k, v in others.items()])
    with pytest.raises(ManifestError, match=r"found the label 'person' .*`contents\.objects`"):
        plan(refused)


def test_objects_of_tars_are_chosen_while_labels_of_images_stay(tmp_path: Path) -> None:
    objects = {"bbox": [[1, 2, 9, 9], [0, 0, 8, 8]], "category": ["cat", "dog"]}
    members = {"a.png": encoded(0), "a.json": {"label": "indoor", "objects": objects}}
    tar(tmp_path / "t.tar", members)
    source = open_source(str(tmp_path / "t.tar"), "contents", SourceOptions(objects=("dog",)))
    (item,) = list_images(source).items
    assert (item.label, [r.label for r in item.regions]) == ("indoor", ["dog"])
    tar(tmp_path / "u.tar", {"a.png": encoded(0)})
    source = open_source(str(tmp_path / "u.tar"), "contents", SourceOptions(objects=("dog",)))
    with pytest.raises(ManifestError, match="accepted: none: it has none"):
        list_images(source)
