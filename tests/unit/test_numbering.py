"""Class numbers: those of the source, whatever its labels and in whatever order it lists them, and one line that says so."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.data.sources.source import ClassList
from stylebatch.manifest import load_spec
from stylebatch.planning.numbering import class_names, numbering
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from tests.support.images import picture
from tests.support.packed import encoded

NAMES = st.lists(
    st.sampled_from(["cat", "Dog", "ant", "10", "9", "straße", "zebra", "fox", "cat "]),
    unique=True,
    min_size=1,
    max_size=8,
)


def of(where: str, *names: str, **by_number: str) -> ClassList:
    pairs = by_number.items() if by_number else enumerate(names)
    return ClassList(where, tuple((int(str(n).strip("n")), name) for n, name in pairs))


@given(NAMES, st.data())
def test_a_source_keeps_its_numbers_and_its_unused_names(names: list[str], data: Any) -> None:
    used = set(data.draw(st.lists(st.sampled_from(names), min_size=1)))
    found = numbering(used | {""}, lists=[of("data.yaml", *names)])
    assert found.names == tuple(names)
    assert found.words == f"classes: {len(names)}, numbered as data.yaml does"
    # a resume compares by name alone where the order tells as much: outputs of earlier versions have no other
    assert found.is_plain == (tuple(names) == class_names(used))


@given(NAMES, NAMES, st.data())
def test_a_growing_output_only_adds_classes(before: list[str], names: list[str], data: Any) -> None:
    used = set(data.draw(st.lists(st.sampled_from([*before, *names]), min_size=1)))
    grown = numbering(used, lists=[of("data.yaml", *names)], before=tuple(before)).names
    assert grown[: len(before)] == tuple(before)
    assert sorted(grown) == sorted({*before, *names})
    assert [n for n in grown[len(before) :]] == [n for n in names if n not in before]
    # what is recorded of a generation is what it is planned with again, whatever the source says now
    again = numbering(used, lists=[of("", *grown)], before=tuple(before))
    assert again.names == grown


@pytest.mark.parametrize(
    ("lists", "names", "words"),
    [
        ([], "cat dog", "by name"),
        ([of("a.yaml", "dog", "cat")], "dog cat", "as a.yaml does"),
        ([of("a.json", n1="dog", n90="cat")], "dog cat", "in the order of a.json"),
        ([of("a.json", "dog", "dog", "cat")], "dog cat", "in the order of a.json"),
        ([of("a", "dog", "cat"), of("b", "dog", "cat", "fox")], "dog cat fox", "as a does"),
        ([of("a", "dog", "cat"), of("b", "cat", "dog")], "dog cat", "as a does; b numbers them otherwise"),
        ([of("a", "dog"), of("b", "cat"), of("c", "cat")], "dog cat", "as a does; b and 1 more number them otherwise"),
        ([of("a", "fox")], "fox cat dog", "as a does"),
    ],
)  # fmt: skip
def test_one_line_says_how(lists: list[ClassList], names: str, words: str) -> None:
    found = numbering({"dog", "cat"}, lists=lists)
    assert found.names == tuple(names.split())
    assert found.words == f"classes: {len(found.names)}, numbered {words}"
    told = numbering({"dog", "cat"}, given=("cat", "dog"), lists=lists).words
    assert told.startswith("classes: 2, numbered as `classes` says")
    assert ("otherwise" in told) == bool(lists)


def test_numbers_without_names_say_what_becomes_of_them() -> None:
    assert numbering({"10", "9", ""}).words == (
        "classes: 2, numbered in the order of their numbers, so that 9 becomes 0; `classes: 11` keeps them"
    )
    assert numbering({"1", "0"}).words == "classes: 2, numbered as they are"
    assert "keeps" not in numbering({"-1", "5"}).words
    assert numbering({""}, lists=[of("a", "cat")]).words == ""


def lists_of(uri: Path, **options: Any) -> list[ClassList]:
    source = open_source(str(uri), "contents", SourceOptions(**options))
    list_images(source)
    list_images(source)  # what a first listing learned is not kept
    return source.class_lists


def test_yolo_and_coco_number_their_classes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(encoded(0))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("2 0.5 0.5 0.1 0.1")
    (tmp_path / "labels/classes.txt").write_text("\ufeffzebra\n\n ant \r\n")
    yolo = {"annotations": str(tmp_path / "labels")}
    assert lists_of(tmp_path / "images", **yolo) == [of("classes.txt", n0="zebra", n2="ant")]
    (tmp_path / "labels/classes.txt").unlink()
    (tmp_path / "data.yaml").write_text("names: {2: ant, 0: zebra, 1: fox}")
    assert [sorted(one.names) for one in lists_of(tmp_path / "images", **yolo)] == [
        [(0, "zebra"), (1, "fox"), (2, "ant")]
    ]
    categories = [{"id": 90, "name": "ant"}, {"id": 7, "name": "zebra"}, {"id": "x", "name": "fox"}]
    random.Random(3).shuffle(categories)
    found = {"images": [{"id": 1, "file_name": "a.png"}], "categories": categories}
    (tmp_path / "x.json").write_text(json.dumps(found))
    coco = {"annotations": str(tmp_path / "x.json")}
    assert lists_of(tmp_path / "images", **coco) == [of("x.json", n7="zebra", n90="ant")]


def hub(folder: Path, name: str, names: list[str], labels: list[int]) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"image": [{"bytes": encoded(i), "path": None} for i, _ in enumerate(labels)]}
    made = datasets.Dataset.from_dict(rows | {"label": labels}, features=features)
    folder.mkdir(exist_ok=True)
    made.to_parquet(str(folder / f"{name}.parquet"))
    made.save_to_disk(str(folder / "saved" / name))


def test_class_labels_of_all_files_are_known_once(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    hub(folder, "a", ["zebra", "ant", "fox"], [1, 1, -1])
    hub(folder, "b", ["zebra", "ant", "fox"], [2])
    hub(folder, "c", ["ant", "zebra"], [0])
    assert lists_of(folder) == [of("a.parquet", "zebra", "ant", "fox"), of("c.parquet", "ant", "zebra")]  # fmt: skip
    (saved,) = lists_of(folder / "saved/a")
    assert saved.names == of("", "zebra", "ant", "fox").names


def planned(folder: Path, **changes: Any) -> Plan:
    (folder / "styles").mkdir(exist_ok=True)
    picture(9, 40, 40).save(folder / "styles/s.png")
    data = {
        "contents": {"path": "hub"}, "styles": {"path": "styles"}, "method": {"name": "styleid", "steps": 2},
        "image": {"size": 32}, "output": {"path": str(folder / "out")},
    } | changes  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(data))
    return plan(load_spec(folder / "run.yaml"))


def test_a_plan_says_how_classes_are_numbered(tmp_path: Path) -> None:
    hub(tmp_path / "hub", "train", ["zebra", "ant", "fox"], [1, 1])
    found = planned(tmp_path)
    assert (found.labels, found.class_numbers["ant"]) == (("zebra", "ant", "fox"), 1)
    assert "classes: 3, numbered as train.parquet does" in found.lines()
    assert found.identity["classes"] == ["zebra", "ant", "fox"]
    hub(tmp_path / "hub", "val", ["fox", "ant"], [0])
    found = planned(tmp_path, split="source")
    assert found.labels == ("zebra", "ant", "fox")
    line = "classes: 3, numbered as train.parquet does; val.parquet numbers them otherwise"
    assert line in found.lines()
    found = planned(tmp_path, contents={"path": "hub", "split": "val"}, classes=["ant", "fox"])
    assert "classes: 2, numbered as `classes` says; val.parquet numbers them otherwise" in found.lines()  # fmt: skip
    hub(tmp_path / "sorted", "train", ["ant", "zebra"], [1, 0])
    # a plan as before, so that what was begun by names goes on
    assert "classes" not in planned(tmp_path, contents={"path": "sorted"}).identity


def test_a_class_that_the_source_does_not_know_may_be_misspelt() -> None:
    lists = [of("data.yaml", "cat", "dog")]
    told = numbering({"cat"}, given=("cat", "dgo", "fox"), lists=lists).words
    assert told.endswith("; 'dgo' (did you mean 'dog'?) and 1 more are not among its names")
    assert "among" not in numbering({"cat", "cow"}, given=("cow", "dog", "cat"), lists=lists).words
    assert "among" not in numbering({"cat"}, given=("cow", "cat")).words
