"""Classes that a manifest names: numbers that stay over runs, and labels that are none of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import Item, Ref
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.classes import class_list, named_items, names_of
from stylebatch.planning.resolve import plan
from tests.support.images import picture
from tests.support.packed import encoded, tar

NAMES = ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "cat\ndog\r\nbird\n\n"),
        ("a.names", "\ufeffcat\n dog \nbird"),
        ("a.json", json.dumps(NAMES)),
        ("a.json", json.dumps({"0": "cat", "2": "bird", "1": "dog"})),
        ("a.json", json.dumps({"dog": 1, "cat": 0, "bird": 2})),
        ("data.yaml", "train: x\nnames: [cat, dog, bird]"),
        ("data.yaml", "names:\n  0: cat\n  1: dog\n  2: bird\n"),
    ],
)
def test_files_of_classes(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert class_list(str(tmp_path / name)) == NAMES


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "cat\n\ndog", "found no name for class 1"),
        ("a.txt", "", "found no names"),
        ("a.txt", "cat\ncat", "found 'cat' twice"),
        ("a.json", '{"0": "cat", "2": "dog"}', "no name for class 1.*without gaps"),
        ("a.json", '{"0": "cat", "00": "dog"}', "found the number 0 twice, of 'cat' and of 'dog'"),
        ("a.json", '{"cat": 0, "0": "dog"}', "found the number 0 twice"),
        ("a.yaml", "0: no\n1: yes", "found 0: False; accepted: .*in quotes"),
        ("a.yaml", "[yes, no]", "found True among the names; accepted: texts, in quotes"),
        ("a.yaml", "0: 1\n1: 0", "found 0: 1; accepted: a number from 0 and a name"),
        ("a.json", "[[1]]", r"found \[1\] among the names"),
        ("a.json", "[", "not valid YAML"),
        ("a.json", "3", "accepted: a list of names"),
    ],
)
def test_broken_files_of_classes_are_refused(
    name: str, text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=f"{name}.*{told}"):
        class_list(str(tmp_path / name))
    with pytest.raises(ManifestError, match=r"nowhere\.txt: cannot be read"):
        class_list(str(tmp_path / "nowhere.txt"))


def test_a_count_keeps_numbers_as_they_are() -> None:
    assert class_list(3) == ("0", "1", "2")
    assert names_of(Counter(["2", "0", ""]), ("0", "1", "2"), "contents") == {
        "2": "2",
        "0": "0",
        "": "",
    }
    with pytest.raises(
        ManifestError,
        match=r"contents: found the label '3' \(1 times\), which is none of `classes`",
    ):
        names_of(Counter(["2", "3"]), ("0", "1", "2"), "contents")


@given(numbers=st.lists(st.integers(0, 4), min_size=1))
def test_numbers_stand_for_classes_where_no_label_is_a_name(numbers: list[int]) -> None:
    used = Counter(map(str, numbers))
    if max(numbers) > 2:
        with pytest.raises(ManifestError, match=r"found the class number [34] .*below 3"):
            names_of(used, NAMES, "contents")
    else:
        assert names_of(used, NAMES, "contents") == {"": ""} | {str(n): NAMES[n] for n in numbers}
    with pytest.raises(ManifestError, match="none of `classes`"):
        names_of(used | Counter(["cat"]), NAMES, "contents")


def test_labels_of_objects_are_classes_too() -> None:
    items = [Item(str(i), Ref("x"), str(i), regions=(Region("2", (0, 0, 1, 1)),)) for i in range(2)]
    found = named_items(items, NAMES, "contents.path")
    assert [(i.label, i.regions[0].label) for i in found] == [("cat", "bird"), ("dog", "bird")]
    with pytest.raises(ManifestError, match="found the class number 2"):
        named_items(items, NAMES[:2], "contents.path")
    assert named_items(items, None, "contents.path") is items


def test_numbers_of_images_are_named_beside_objects_with_names(tmp_path: Path) -> None:
    """As in tars: `cls` has numbers, the objects of the JSON have names."""
    objects = {"objects": [{"bbox": [1, 1, 9, 9], "category": "dog"}]}
    members = {
        "a.png": encoded(1), "a.cls": "0", "a.json": objects,
        "b.png": encoded(2), "b.cls": "1", "b.json": {},
    }  # fmt: skip
    tar(tmp_path / "contents.tar", members)
    path = manifest(tmp_path, (), {"1": "dog", "0": "cat", "2": "bird"})
    data = json.loads(path.read_text())
    data["contents"]["path"] = str(tmp_path / "contents.tar")
    path.write_text(json.dumps(data))
    made = plan(load_spec(path))
    assert made.labels == NAMES
    items = made.images(0)
    assert [item.label for item in items] == ["cat", "dog"]
    assert [region.label for item in items for region in item.regions] == ["dog"]
    path.write_text(json.dumps(data | {"classes": None}))
    assert any(
        "by name, numbers (0, 1) among the names; `classes: {0: NAME, ...}`" in line
        for line in plan(load_spec(path)).lines()
    )


@pytest.mark.parametrize("text", ["{0: cat, 1: dog, 2: bird}", "{2: bird, cat: 0, '1': dog}"])
def test_a_manifest_maps_numbers_to_names(text: str, tmp_path: Path) -> None:
    path = manifest(tmp_path, ("cat", "dog"), None)
    assert load_spec(path, [f"classes={text}"]).classes == NAMES
    with pytest.raises(ManifestError, match="key 1 stands twice, as a number and as text"):
        load_spec(path, ["classes={0x1: cat, '1': dog}"])
    with pytest.raises(ManifestError, match="key True is bool; accepted: text, and whole numbers"):
        load_spec(path, ["classes={yes: 0, 'no': 1}"])


@pytest.mark.parametrize("label", ["10", "0"])
def test_no_number_is_taken_for_a_misspelt_one(label: str) -> None:
    with pytest.raises(ManifestError) as error:
        names_of(Counter([label, "cat"]), ("cat", "1", "100"), "contents")
    assert "misspelt" not in str(error.value)


def manifest(folder: Path, labels: tuple[str, ...], classes: object) -> Path:
    for i, label in enumerate(labels):
        path = folder / "contents" / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, 40, 40).save(path)
    (folder / "styles").mkdir()
    picture(9, 40, 40).save(folder / "styles/s.png")
    data = {
        "contents": {"path": "contents"}, "styles": {"path": "styles"}, "method": {"name": "styleid", "steps": 2},
        "image": {"size": 32}, "output": {"path": str(folder / "out")}, "classes": classes,
    }  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(data))
    return folder / "run.yaml"


def test_two_runs_with_other_labels_have_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "names.txt").write_text("bird\ncat\ndog\n")
    first = plan(load_spec(manifest(tmp_path / "one", ("cat", "dog"), "names.txt")))
    second = plan(load_spec(manifest(tmp_path / "two", ("bird",), ["bird", "cat", "dog"])))
    assert first.labels == second.labels == ("bird", "cat", "dog")
    assert first.identity["classes"] == ["bird", "cat", "dog"]
    assert first.class_numbers["dog"] == 2


def test_a_label_that_is_no_class_is_refused_with_the_next_step(tmp_path: Path) -> None:
    path = manifest(tmp_path / "one", ("cat", "dgo", "dgo"), ["cat", "dog"])
    with pytest.raises(ManifestError) as error:
        plan(load_spec(path))
    assert str(error.value) == (
        "contents.path: found the label 'dgo' (2 times), which is none of `classes`; 'dog' is like it: one of the two may be misspelt; "
        "accepted: cat, dog, or none. "
        "Next: add it to `classes`, or leave such images out, as with `contents.labels`, or objects, with `contents.objects`"
    )
    assert plan(load_spec(path, ['contents.labels=["cat"]'])).labels == ("cat", "dog")


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([2, 1, 0], "classes: 2 among the names; accepted: names as text, in quotes where they are numbers ('2'), a file of names, or "),
        (["a", ""], "classes: '' among the names; accepted: names as text, a file of names, or how many classes there are"),
        ([], "classes: an empty list; accepted: names as text"),
        ({}, "classes: an empty mapping; accepted: the numbers from 0 on, without gaps"),
        ({"0": "cat", "2": "dog"}, "classes: no name for class 1; accepted: the numbers from 0 on, without gaps"),
        ({"0": "cat", "00": "dog"}, "classes: found the number 0 twice, of 'cat' and of 'dog'; accepted: each once"),
        ({"0": ["cat"]}, "classes: found '0': ['cat']; accepted: a number from 0 and a name as text"),
        (2.5, "classes: accepted: a list of names, a mapping of numbers to names, a file of names, or how many classes"),
        (True, "classes: accepted: a list of names"),
    ],
)  # fmt: skip
def test_classes_that_are_no_names_are_told_in_one_line(
    classes: object, told: str, tmp_path: Path
) -> None:
    path = manifest(tmp_path / "one", ("cat",), classes)
    with pytest.raises(ManifestError) as error:
        load_spec(path)
    line, next_step = str(error.value).splitlines()
    assert line.startswith(f"{path}: {told}")
    assert next_step.startswith("Next: ")


def test_a_plan_shows_names_in_place_of_numbers(tmp_path: Path) -> None:
    path = manifest(tmp_path / "one", ("1", "0", "1"), ["cat", "dog"])
    notes = plan(load_spec(path)).notes
    assert "classes of contents: 2 (dog 2, cat 1); captions: none" in notes
    prompts = {"prompts.template": "a picture", "method": {"name": "img2img"}, "styles": None}
    spec = load_spec(path, [f"{key}={json.dumps(value)}" for key, value in prompts.items()])
    assert any("dog 2, cat 1" in note for note in plan(spec).notes)
