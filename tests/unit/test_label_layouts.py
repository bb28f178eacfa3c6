"""Data sets with annotations as people have them: nested, by split, described by a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.data.image_section import ContentSpec, SourceOptions
from stylebatch.data.sources.kinds import kind_of, open_source
from stylebatch.data.sources.layouts import labels_beside
from stylebatch.data.sources.listing import list_contents
from stylebatch.data.sources.splitting import SplitBy
from stylebatch.errors import ManifestError
from tests.support.layouts import BOX, PNG, coco, labels, listed, put, roboflow

# yolo


def test_labels_may_lie_as_deep_as_their_images(tmp_path: Path) -> None:
    put(tmp_path, "images/train/a/1.jpg", "images/train/b/c/2.png", "images/val/a/1.jpg")
    put(
        tmp_path, labels___train___a___1__txt=f"0 {BOX}", labels___train___b___c___2__txt=f"1 {BOX}"
    )
    put(tmp_path, labels___val___a___1__txt=f"1 {BOX}", labels___classes__txt="cat\ndog\n")
    found = listed(tmp_path / "images", tmp_path / "labels")
    assert labels(found) == {
        "train/a/1.jpg": "cat", "train/b/c/2.png": "dog", "val/a/1.jpg": "dog"
    }  # fmt: skip
    assert "the splits train, val are read as one; `split: train`" in " ".join(found.notes)
    assert not any("become classes" in note for note in found.notes)
    one = listed(tmp_path / "images", tmp_path / "labels", split="val")
    assert labels(one) == {"val/a/1.jpg": "dog"}
    spec = ContentSpec(path=str(tmp_path / "images"), annotations=str(tmp_path / "labels"))
    both = list_contents(spec, SplitBy(source=True))
    assert {(item.id, item.split) for item in both.items} == {
        ("train/a/1.jpg", "train"), ("train/b/c/2.png", "train"), ("val/a/1.jpg", "val")
    }  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
def test_an_export_of_roboflow_is_read_by_its_description(tmp_path: Path, named: bool) -> None:
    root = roboflow(tmp_path / "export")
    annotations = root / "data.yaml" if named else None
    found = listed(root, annotations, split="val")
    assert found.notes[0] == "contents: read as yolo"
    assert labels(found) == {"valid/images/valid.v1.rf.jpg": "dog", "valid/images/deep/b.png": "cat"}  # fmt: skip
    with pytest.raises(ManifestError, match=r"splits train, val, test; .*Next: add `split: train`"):
        listed(root, annotations)
    with pytest.raises(ManifestError, match=r"contents\.split: .*'valid'; accepted: train, val, "):
        listed(root, annotations, split="valid")
    given = {} if annotations is None else {"annotations": str(annotations)}
    both = list_contents(ContentSpec(path=str(root), **given), SplitBy(source=True))
    assert sorted(item.split for item in both.items) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    assert {item.label for item in both.items} == {"cat", "dog"}
    for item in both.items:
        assert both.sources.read(item.ref) == PNG


@pytest.mark.parametrize(
    "path",
    ["valid/images", "./valid/images/", "../valid/images", "/content/project-3/valid/images", "..\\valid\\images", "[valid/images]"],
)  # fmt: skip
def test_a_description_may_begin_its_paths_anywhere(tmp_path: Path, path: str) -> None:
    root = roboflow(tmp_path / "export", val=path if path[0] == "[" else f"'{path}'")
    assert len(listed(root, split="val").items) == 2


def test_a_description_never_leads_outside(tmp_path: Path) -> None:
    put(tmp_path, "valid/images/secret.png")
    root = tmp_path / "export"
    put(root, "train/images/1.png", train___labels___1__txt=f"0 {BOX}")
    put(root, data__yaml="train: ../train/images\nval: ../valid/images\nnames: [cat]")
    assert labels(listed(root)) == {"train/images/1.png": "cat"}
    put(root, data__yaml="train: ../valid/images\nnames: [cat]")
    with pytest.raises(ManifestError, match=r"found train: \.\./valid/images; accepted: folders"):
        listed(root)


def test_a_split_within_another_is_of_one_alone(tmp_path: Path) -> None:
    """As `train: images` beside `val: images/val`: nothing that is measured on was seen."""
    put(tmp_path, "images/1.png", "images/a/2.png", "images/val/3.png", "images/value/4.png")
    put(tmp_path, labels___1__txt=f"0 {BOX}", labels___val___3__txt=f"0 {BOX}")
    put(tmp_path, data__yaml="train: images\nval: images/val\nnames: [cat]")
    train = listed(tmp_path, split="train")
    assert set(labels(train)) == {"images/1.png", "images/a/2.png", "images/value/4.png"}
    assert "contents: images/val is of split val, and left out of train" in train.notes
    assert set(labels(listed(tmp_path, split="val"))) == {"images/val/3.png"}
    both = list_contents(ContentSpec(path=str(tmp_path)), SplitBy(source=True))
    assert sorted(item.split for item in both.items) == ["train"] * 3 + ["val"]
    assert "contents (train): 2 images without annotations" in both.notes
    put(tmp_path, data__yaml="train: [images/a, images]\nval: images/val\nnames: [cat]")
    assert labels(listed(tmp_path, split="train")) == labels(train)


def test_other_files_of_that_name_are_no_description(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", data__yaml="hyperparameters: {train: 3}")
    assert kind_of(str(tmp_path)) == "folder"
    put(tmp_path, data__yaml="names: [")
    assert kind_of(str(tmp_path)) == "folder"


@given(
    st.lists(st.sampled_from(["images", "a", "train", "labels"]), max_size=4),
    st.sampled_from(["x.jpg", "x.y.png", "images.webp"]),
)
def test_labels_stand_beside_the_last_folder_of_images(folders: list[str], name: str) -> None:
    found = labels_beside("/".join([*folders, name]))
    assert found.endswith(f"{name.rpartition('.')[0]}.txt")
    back = found.split("/")[:-1]
    changed = [i for i, folder in enumerate(folders) if back[i] != folder]
    last = max((i for i, folder in enumerate(folders) if folder == "images"), default=None)
    assert changed == ([] if last is None else [last])


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("train.txt", ["./images/train/1.jpg", "images/train/b/2.png"]),
        ("lists/train.txt", ["/data/set/images/train/1.jpg", "../set/images/train/b/2.png"]),
        ("images/train.txt", ["train\\1.jpg", "", "  train/b/2.png ", "train/b/2.png"]),
    ],
)
def test_a_description_may_name_lists_of_images(
    tmp_path: Path, file: str, lines: list[str]
) -> None:
    put(tmp_path, "images/train/1.jpg", "images/train/b/2.png", "images/train/unlisted.jpg", "images/val/3.jpg")  # fmt: skip
    put(tmp_path, labels___train___1__txt=f"1 {BOX}", labels___train___b___2__txt=f"0 {BOX}")
    put(tmp_path, labels___val___3__txt=f"0 {BOX}")
    (tmp_path / "lists").mkdir()
    (tmp_path / file).write_text("\r\n".join(reversed(lines)), encoding="utf-8-sig")
    put(tmp_path, data__yaml=f"train: ../{file}\nval: images/val\nnames: [cat, dog]\n")
    found = listed(tmp_path, split="train")
    assert labels(found) == {"images/train/1.jpg": "dog", "images/train/b/2.png": "cat"}
    assert [found.sources.read(item.ref) for item in found.items] == [PNG, PNG]
    assert ("1 image that is listed again" in " ".join(found.notes)) == (len(lines) == 4)
    both = list_contents(ContentSpec(path=str(tmp_path)), SplitBy(source=True))
    assert [(i.id, i.split) for i in both.items][2:] == [("images/val/3.jpg", "val")]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "found no image"),
        ("elsewhere/1.jpg\n/etc/passwd\n", "found no folder of 2 images"),
        ("images/gone.jpg\nelsewhere/1.jpg\n", "1 listed image in a folder that is not there"),
        ("images/1.jpg\nimages/notes.md\n", r"1 \.md"),
    ],
)
def test_a_list_that_leads_nowhere_is_told(tmp_path: Path, lines: str, told: str) -> None:
    put(tmp_path, "images/1.jpg", labels___1__txt=f"0 {BOX}", labels___gone__txt=f"0 {BOX}")
    put(tmp_path, train__txt=lines, data__yaml="train: train.txt\nnames: [cat]\n")
    if "found" in told:
        with pytest.raises(ManifestError, match=rf"contents\.annotations: .*train\.txt: {told}"):
            listed(tmp_path)
    else:
        found = listed(tmp_path)
        assert re.search(told, " ".join(found.notes))
        # one that is missing fails its samples, as any missing picture
        assert len(found.items) == 1


# coco


def coco_2017(root: Path) -> Path:
    put(root, "train2017/1.jpg", "train2017/2.jpg", "val2017/1.jpg", "test2017/9.jpg")
    put(root, annotations___instances_train2017__json=coco("1.jpg", "2.jpg"))
    put(root, annotations___instances_val2017__json=coco("1.jpg", label="dog"))
    for split in ("train2017", "val2017"):
        for family in ("captions", "person_keypoints"):
            put(root, **{f"annotations___{family}_{split}__json": coco("1.jpg")})
    return root


def test_the_folders_of_coco_are_one_run_with_splits(tmp_path: Path) -> None:
    root = coco_2017(tmp_path / "coco")
    spec = ContentSpec(path=str(root), annotations=str(root / "annotations"))
    both = list_contents(spec, SplitBy(source=True))
    assert [(item.id, item.split, item.label) for item in both.items] == [
        ("train2017/1.jpg", "train", "cat"), ("train2017/2.jpg", "train", "cat"), ("val2017/1.jpg", "val", "dog"),
    ]  # fmt: skip
    for item in both.items:
        assert both.sources.read(item.ref) == PNG
    assert labels(listed(root, root / "annotations", split="Val")) == {"val2017/1.jpg": "dog"}
    with pytest.raises(ManifestError, match=r"splits train, val; .*`split: train`, or read them"):
        listed(root, root / "annotations")
    pattern = root / "annotations/captions_*.json"
    assert len(listed(root, pattern, split="train").items) == 1


def test_coco_finds_its_files_where_the_kind_alone_is_named(tmp_path: Path) -> None:
    root = coco_2017(tmp_path / "coco")
    put(root, **{"package__json": "{}"})
    found = listed(root, kind="coco", split="val")
    assert labels(found) == {"val2017/1.jpg": "dog"}
    assert "contents: annotations of annotations/instances_val2017.json" in found.notes
    spec = ContentSpec(path=str(root), kind="coco")
    both = list_contents(spec, SplitBy(source=True))
    assert [item.split for item in both.items] == ["train", "train", "val"]
    assert not any(note.endswith(" of ") for note in both.notes), both.notes
    named = list_contents(
        ContentSpec(path=str(root), annotations=str(root / "annotations")), SplitBy(source=True)
    )
    assert named.items == both.items


@pytest.mark.parametrize(
    ("image", "file", "name", "id_"),
    [
        ("images/1.jpg", "annotations/instances.json", "1.jpg", "images/1.jpg"),
        ("images/1.jpg", "annotations/instances.json", "images/1.jpg", "images/1.jpg"),
        ("1.jpg", "_annotations.coco.json", "1.jpg", "1.jpg"),
        ("valid/1.jpg", "valid/_annotations.coco.json", "1.jpg", "valid/1.jpg"),
        ("images/1.jpg", "annotations/instances_val.json", "1.jpg", "images/1.jpg"),
    ],
)
def test_images_of_coco_are_found_from_the_root(
    tmp_path: Path, image: str, file: str, name: str, id_: str
) -> None:
    put(tmp_path, image, **{file.replace("/", "___").replace(".", "__"): coco(name)})
    found = listed(tmp_path, kind="coco")
    assert labels(found) == {id_: "cat"}
    assert found.sources.read(found.items[0].ref) == PNG


def test_names_of_coco_may_begin_with_the_folder_of_the_split(tmp_path: Path) -> None:
    put(tmp_path, "train/a.jpg", "val/b.jpg")
    put(tmp_path, ann___instances_train__json=coco("train/a.jpg"))
    put(tmp_path, ann___instances_val__json=coco("val/b.jpg"))
    for split, name in (("train", "train/a.jpg"), ("val", "val/b.jpg")):
        assert labels(listed(tmp_path, tmp_path / "ann", split=split)) == {name: "cat"}


def test_years_of_coco_are_kept_apart(tmp_path: Path) -> None:
    put(tmp_path, "train2014/1.jpg", "train2017/1.jpg")
    for year in ("2014", "2017"):
        put(tmp_path, **{f"annotations___instances_train{year}__json": coco("1.jpg")})
    assert open_source(
        str(tmp_path), "contents", SourceOptions(annotations=str(tmp_path / "annotations"))
    ).splits() == ["train2014", "train2017"]


@pytest.mark.parametrize("images", ["{}", "images/{}", "{}/images", ""])
def test_images_of_a_split_are_found_where_they_are(tmp_path: Path, images: str) -> None:
    for split in ("train", "val"):
        folder = images.format(split)
        name = "1.jpg" if folder else f"{split}-1.jpg"
        put(tmp_path, f"{folder}/{name}".lstrip("/"))
        put(tmp_path, **{f"labels___{split}__json": coco(name)})
    found = listed(tmp_path, tmp_path / "labels", split="val")
    assert [found.sources.read(item.ref) for item in found.items] == [PNG]


def test_annotations_may_stand_beside_the_images_of_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        put(tmp_path, f"{split}/1.jpg", **{f"{split}____annotations__coco__json": coco("1.jpg")})
    found = listed(tmp_path, tmp_path / "*/_annotations.coco.json", split="valid")
    assert [item.id for item in found.items] == ["valid/1.jpg"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("captions_train.json", "keypoints_train.json"), "captions_.*, keypoints_.*; accepted: files of one kind"),
        (("a.json", "b.json"), r"found a\.json, b\.json; accepted: files of one kind"),
        (("instances_train.json", "Instances_Train.JSON"), "accepted: a file for each split"),
    ],
)  # fmt: skip
def test_files_that_tell_no_splits_are_refused(
    tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    put(tmp_path, "1.jpg")
    for name in names:
        put(tmp_path, **{f"labels___{name.replace('.', '__')}": coco("1.jpg")})
    with pytest.raises(ManifestError, match=rf"contents\.annotations: .*{told}"):
        listed(tmp_path, tmp_path / "labels")


@pytest.mark.parametrize(("split", "by"), [("all", SplitBy()), (None, SplitBy(source=True))])
def test_the_files_that_coco_finds_are_told_of_each_split(
    tmp_path: Path, split: str | None, by: SplitBy
) -> None:
    for name in ("train", "valid"):
        put(tmp_path, f"{name}/1.jpg", **{f"{name}___annotations__json": coco("1.jpg")})
    listing = list_contents(ContentSpec(path=str(tmp_path), kind="coco", split=split), by)
    assert listing.notes[1:] == (
        "contents (train): annotations of train/annotations.json",
        "contents (valid): annotations of valid/annotations.json",
    )


def test_annotations_of_an_output_tell_no_originals(tmp_path: Path) -> None:
    run = json.dumps({"digest": "", "identity": {}, "plan": {}})
    put(tmp_path, "out/images/train/cat/1--s--000000001.jpg", out___run__json=run)
    put(tmp_path, out___annotations___instances__json=coco("cat/1--s--000000001.jpg"))
    spec = ContentSpec(
        path=f"{tmp_path}/out/images/train",
        annotations=f"{tmp_path}/out/annotations/instances.json",
        kind="coco",
    )
    assert len(list_contents(spec).items) == 1
    told = rf"contents\.annotations: .*{tmp_path}/out, an output, .*`path: {tmp_path}/out`"
    put(tmp_path, "out/cat/1--s--000000001.jpg", out___data__yaml="{names: [cat], train: cat}")
    put(tmp_path, **{"out___cat___1--s--000000001__txt": "0 .5 .5 .1 .1"})
    for kind in ("coco", "yolo"):  # which find the files themselves
        found = ContentSpec(path=f"{tmp_path}/out", kind=kind)
        assert len(list_contents(found).items) == 1
        with pytest.raises(ManifestError, match=told):
            list_contents(found, SplitBy(origins=True))
    with pytest.raises(ManifestError, match=told):
        list_contents(spec, SplitBy(origins=True))


def test_a_broken_description_is_told(tmp_path: Path) -> None:
    put(tmp_path, "train/1.jpg", data__yaml="train: [images")
    with pytest.raises(ManifestError, match=r"contents\.annotations: .*data\.yaml"):
        listed(tmp_path, tmp_path / "data.yaml")


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_annotations_that_are_not_given_are_asked_for(tmp_path: Path, kind: str) -> None:
    put(tmp_path, "1.jpg")
    with pytest.raises(ManifestError, match=r"contents\.annotations: .*is missing.*; accepted: "):
        listed(tmp_path, kind=kind)
    put(tmp_path, Annotations___1__xml="<annotation/>")
    told = rf"is missing \(.*`annotations: {tmp_path}/Annotations`.*\); accepted: "
    with pytest.raises(ManifestError, match="named as one of COCO" if kind == "coco" else told):
        listed(tmp_path, kind=kind)
