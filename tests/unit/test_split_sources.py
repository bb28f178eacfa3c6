"""Where splits come from: folders, files and columns of sources; which are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.sources.listing import list_contents
from stylebatch.data.sources.splitting import SplitBy
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.spec import SplitSpec
from stylebatch.spec.output import OutputFormat
from stylebatch.spec.splits import short_form
from tests.support.generations import generation
from tests.support.images import write_inputs
from tests.support.packed import encoded, tar
from tests.support.tables import PAIRINGS, manifest, table, tables


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/1.png", "test/dog/9.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(1))
    (tmp_path / "notes").mkdir()
    listed = list_contents(ContentSpec(path=str(tmp_path)), SplitBy(source=True))
    assert {(item.id, item.split, item.label) for item in listed.items} == {
        ("train/cat/1.png", "train", "cat"),
        ("train/dog/2.png", "train", "dog"),
        ("val/cat/1.png", "val", "cat"),
        ("test/dog/9.png", "test", "dog"),
    }
    (tmp_path / "stray.png").write_bytes(encoded(2))
    with pytest.raises(ManifestError, match=r"1 image beside the folders .*stray.png"):
        list_contents(ContentSpec(path=str(tmp_path)), SplitBy(source=True))


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train2017", "val2017", "extra"), {"extra", "train", "validation"}),
        (("train2017", "train"), {"train", "train2017"}),
        (("train2014", "train2017"), {"train2014", "train2017"}),
    ],
)
def test_folders_of_coco_are_splits(
    tmp_path: Path, eps_folder: Path, folders: tuple[str, ...], splits: set[str]
) -> None:
    write_inputs(tmp_path)
    for number, folder in enumerate(folders):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / f"set/{folder}/{number}.png").write_bytes(encoded(number))
    sections = {"contents": {"path": "set"}, "styles": {"path": "styles"}}
    spec = load_spec(manifest(tmp_path, eps_folder, **sections, split="source"))
    assert set(plan(spec).summary()["splits"]) == splits


def test_files_of_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        tar(tmp_path / f"{split}-00000.tar", {f"{i}.png": encoded(i) for i in range(count)})
    listed = list_contents(ContentSpec(path=str(tmp_path)), SplitBy(source=True))
    assert Counter(item.split for item in listed.items) == {"train": 3, "val": 2}
    assert len({item.id for item in listed.items}) == 5
    for item in listed.items:
        assert listed.sources.read(item.ref).startswith(b"\x89PNG")


def test_all_splits_are_read_as_one_where_that_is_said(tmp_path: Path) -> None:
    for split in ("train", "val"):
        members = {f"{i}.png": encoded(i) for i in range(3)} | {"x.txt": "lost"}
        tar(tmp_path / f"{split}-00000.tar", members)
        for number in range(3):
            path = tmp_path / "folder" / split / f"{'cat' if number else 'dog'}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(1))
    with pytest.raises(ManifestError, match="read them as one with `split: all`"):
        list_contents(ContentSpec(path=str(tmp_path), kind="webdataset"))
    found = list_contents(ContentSpec(path=str(tmp_path), split="all", kind="webdataset", limit=4))
    assert [item.split for item in found.items] == [""] * 4
    assert len({item.id for item in found.items}) == 4
    assert found.notes[0] == "contents: read as webdataset, all splits (train, val) as one"
    assert "contents: 4 of 6 images taken (limit: 4)" in found.notes
    folder = list_contents(ContentSpec(path=str(tmp_path / "folder"), split="all"))
    assert Counter(item.label for item in folder.items) == {"cat": 4, "dog": 2}
    tar(tmp_path / "more/0.tar", {"0.png": encoded(0)})
    for spec, told in (
        (ContentSpec(path=str(tmp_path / "more"), split="all"), "has no splits"),
        (
            ContentSpec(path=str(tmp_path), split="all", kind="webdataset"),
            "found 1 file beside those of the splits train, val, such as more/0.tar",
        ),
    ):
        with pytest.raises(ManifestError, match=told):
            list_contents(spec)


def test_what_is_told_of_a_split_names_it(tmp_path: Path) -> None:
    for split, lost in (("train", 2), ("val", 1), ("test", 1)):
        members: dict[str, Any] = {"0.png": encoded(0), "0.cls": split}
        tar(tmp_path / f"{split}-0.tar", members | {f"lost{i}.txt": "x" for i in range(lost)})
    spec = ContentSpec(path=str(tmp_path), labels=("test", "train"))
    found = list_contents(spec, SplitBy(source=True))
    assert [item.split for item in found.items] == ["test", "train"]
    assert list(found.notes) == [
        "contents: read as webdataset, split by split",
        "contents (test, val, each): 1 passed over: 1 .txt, without an image beside it",
        "contents (train): 2 passed over: 2 .txt, without an image beside it",
        "contents (val): 0 of 1 image taken (labels: [test, train])",
        "contents (val): no image of it is left, so that it is not made",
    ]


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(1))
    for split in ("train", "val"):
        document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(document))
    spec = ContentSpec(path=str(tmp_path), annotations=str(tmp_path / "instances_*.json"))
    with pytest.raises(ManifestError, match=r"'a.png' is in the splits train and val; accepted: e"):
        list_contents(spec, SplitBy(source=True))
    both = spec.model_copy(update={"split": "all"})
    with pytest.raises(ManifestError, match=r"'a.png' is in the splits train and val; accepted: e"):
        list_contents(both)


def test_limits_and_labels_hold_for_each_split(tmp_path: Path) -> None:
    for name in ("train/cat/1", "train/cat/2", "train/dog/1", "val/cat/1", "val/cat/2"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(1))
    found = list_contents(
        ContentSpec(path=str(tmp_path), labels=("cat", "dog"), limit_per_class=1),
        SplitBy(source=True),
    )
    assert [item.id for item in found.items] == ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png"]  # fmt: skip


def test_a_column_names_the_split(tmp_path: Path, eps_folder: Path) -> None:
    members: dict[str, Any] = {}
    for i, fold in enumerate(("train", "val", "train", "val")):
        members |= {f"{i}.png": encoded(i), f"{i}.json": {"label": "cat", "fold": fold}}
    tar(tmp_path / "a.tar", members)
    table(tmp_path / "styles.csv", ["s.jpg"])
    path = manifest(tmp_path, eps_folder, contents={"path": "a.tar"}, split={"column": "fold"})
    resolved = plan(load_spec(path))
    assert resolved.axes[0].splits == ("train", "validation") * 2
    with pytest.raises(ManifestError, match=r"0.png: found no column 'flod'; accepted: .*fold"):
        plan(load_spec(path, ["split.column=flod"]))
    members["3.json"] = {"fold": None}
    tar(tmp_path / "a.tar", members)
    with pytest.raises(ManifestError, match=r"3.png: fold: found 'None'"):
        plan(load_spec(path))


def test_a_column_of_a_table_names_the_split(tmp_path: Path, eps_folder: Path) -> None:
    names = [f"{i}.jpg" for i in range(6)]
    folds = ["train", "test", "train", "Validation", "train", "train"]
    table(tmp_path / "contents.csv", names, label=["cat"] * 6, fold=folds)
    table(tmp_path / "styles.csv", ["s.jpg"])
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, split={"column": "fold"})))
    counts = {name: one["num_samples"] for name, one in resolved.summary()["splits"].items()}
    assert counts == {"train": 4, "validation": 1, "test": 1}
    table(tmp_path / "contents.csv", names, fold=["0", "1", "2", "0", "1", "fold/2"])
    with pytest.raises(
        ManifestError, match=r"split: contents: found 'fold/2'; accepted: 1 to 64 letters"
    ):
        plan(load_spec(tmp_path / "run.yaml"))


@pytest.mark.parametrize("carry", [[], ["other"], ["fold", "other"], None])
@pytest.mark.parametrize("kind", ["table", "jsonl", "folder", "beside", "tar", "parquet", "saved"])
def test_a_column_that_is_not_carried_names_the_split(
    kind: str, carry: list[str] | None, tmp_path: Path, eps_folder: Path
) -> None:
    """Whatever `carry` says, which decides about the records alone."""
    folds = ["train", "val", "train", "val", "train", "test"]
    rows = [{"fold": fold, "other": n} for n, fold in enumerate(folds)]
    path = _with_columns(tmp_path / "source", kind, rows)
    table(tmp_path / "styles.csv", ["s.jpg"])
    section: dict[str, Any] = {"path": str(path)} | ({} if carry is None else {"carry": carry})
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, contents=section, split={"column": "fold"})))  # fmt: skip
    expected = ["train", "validation", "train", "validation", "train", "test"]
    assert list(resolved.axes[0].splits) == expected
    assert {one.column for one in resolved.carried} == set(["fold", "other"] if carry is None else carry)  # fmt: skip


def _with_columns(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """Pictures with these columns, in one of the forms that bring some."""
    import datasets
    from PIL import Image

    folder.mkdir()
    names = [f"{n}.png" for n in range(len(rows))]
    if kind in ("parquet", "saved"):
        values = {name: [row[name] for row in rows] for name in rows[0]}
        pictures = [Image.new("RGB", (8, 8)) for _ in rows]
        made = datasets.Dataset.from_dict({"image": pictures, **values})
        if kind == "parquet":
            made.to_parquet(str(folder / "a.parquet"))
            return folder / "a.parquet"
        made.save_to_disk(str(folder / "saved"))
        return folder / "saved"
    if kind == "tar":
        members: dict[str, Any] = {}
        for number, row in enumerate(rows):
            members |= {f"{number}.png": encoded(number), f"{number}.json": row}
        return tar(folder / "a.tar", members)
    for number, name in enumerate(names):
        (folder / name).write_bytes(encoded(number))
        if kind == "beside":
            (folder / f"{number}.json").write_text(json.dumps(rows[number]))
    if kind == "table":
        table(folder / "t.csv", names, **{name: [str(row[name]) for row in rows] for name in rows[0]})  # fmt: skip
        return folder / "t.csv"
    first = "path" if kind == "jsonl" else "file_name"
    lines = "".join(f"{json.dumps({first: name} | row)}\n" for name, row in zip(names, rows, strict=True))  # fmt: skip
    if kind == "jsonl":
        (folder / "t.jsonl").write_text(lines)
        return folder / "t.jsonl"
    if kind == "folder":
        (folder / "metadata.jsonl").write_text(lines)
    return folder


# what is refused


def test_a_column_of_one_value_for_each_image_is_refused(tmp_path: Path, eps_folder: Path) -> None:
    """By what people mean by such a column, not by what is wrong with the name of one."""
    names = [f"{i}.jpg" for i in range(30)]
    table(tmp_path / "contents.csv", names, url=[f"a/{i}" for i in range(30)], n=[str(i % 20) for i in range(30)])  # fmt: skip
    table(tmp_path / "styles.csv", ["s.jpg"])
    path = manifest(tmp_path, eps_folder, split={"column": "url"})
    with pytest.raises(
        ManifestError,
        match=r"found 30 values of url in 30 images, such as a/0, .*up to 20 splits. Next: .*fractions",
    ):
        plan(load_spec(path))
    assert len(plan(load_spec(path, ["split.column=n"])).summary()["splits"]) == 20


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({}, "one of the three"),
        ({"valdation": 0.2}, "did you mean 'validation'"),
        ({"validation": 0}, "above 0"),
        ({"validation": 0.8, "test": 0.4}, "add up to 1.2"),
        ({"train": 0.5, "test": 0.4}, "exactly 1"),
        ({"val": 0.1, "validation": 0.1}, "each split once"),
        ({"a/b": 0.1}, "letters, digits or _"),
        ({"all": 0.1}, "not `all`"),
        ({"source": True, "column": "x"}, "one of the three"),
        ({"column": "x", "seed": 3}, "draw nothing"),
    ],
)
def test_splits_that_cannot_be_are_refused(value: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        SplitSpec.model_validate_json(json.dumps(short_form(value)))


def test_a_split_without_anything_is_refused_with_a_way_out(
    tmp_path: Path, eps_folder: Path
) -> None:
    tables(tmp_path, 3, 2)
    path = manifest(tmp_path, eps_folder, split={"validation": 0.01})
    with pytest.raises(ManifestError, match=r"split.validation: found none of 3 contents") as error:
        plan(load_spec(path))
    seed = str(error.value).partition("`seed: ")[2].partition("`")[0]
    assert plan(load_spec(path, [f"split.seed={seed}"])).summary()["splits"]["validation"]


def test_splits_that_are_misunderstood_are_refused(tmp_path: Path, eps_folder: Path) -> None:
    write_inputs(tmp_path)
    folders = {"contents": {"path": "contents"}, "styles": {"path": "styles"}}
    told = r"look like no splits.*Next: .*`split: {validation: 0\.2}`.*`contents\.annotations`.*`kind: coco`"
    with pytest.raises(ManifestError, match=told):
        plan(load_spec(manifest(tmp_path, eps_folder, **folders, split="source")))
    inner = folders | {"contents": {"path": "contents", "split": "source"}}
    with pytest.raises(ManifestError, match=r"found 'source'.*`split: source` beside `contents`"):
        plan(load_spec(manifest(tmp_path, eps_folder, **inner)))
    both = folders | {"contents": {"path": "contents", "split": "cat"}}
    meant = folders | {"contents": {"path": "contents", "split": {"validation": 0.2}}}
    with pytest.raises(ManifestError, match=r"contents.split: .*beside `contents`"):
        load_spec(manifest(tmp_path, eps_folder, **meant))
    with pytest.raises(ManifestError, match="reads one split alone"):
        load_spec(manifest(tmp_path, eps_folder, **both, split="source"))
    table(tmp_path / "contents.csv", ["a.jpg"])
    tables = folders | {"contents": {"path": "contents.csv"}}
    with pytest.raises(ManifestError, match="has no splits"):
        plan(load_spec(manifest(tmp_path, eps_folder, **tables, split="source")))
    sections = PAIRINGS["images x prompts"] | {"contents": {"path": "contents"}}
    split = {"validation": 0.2, "styles": True}
    with pytest.raises(ManifestError, match=r"split.styles: method img2img has no styles"):
        load_spec(manifest(tmp_path, eps_folder, **sections, split=split))


@pytest.mark.parametrize("kind", get_args(OutputFormat))
def test_splits_of_an_output_have_any_names(
    kind: OutputFormat, tmp_path: Path, eps_folder: Path
) -> None:
    write_inputs(tmp_path)
    rows = [{"content_id": f"{i}.png"} for i in range(4)]
    generation(tmp_path / "first", rows, kind, splits=["v", "train2", "v", "val"])
    image = "image" if kind == "parquet" else None
    sections = {"contents": {"path": "first", "image": image}, "styles": {"path": "styles"}}
    for told in ({"validation", "train2", "v"}, {"train2", "v"}):
        resolved = plan(load_spec(manifest(tmp_path, eps_folder, **sections, split="source")))
        assert resolved.summary()["splits"].keys() == told
        shutil.rmtree(tmp_path / "first")
        generation(tmp_path / "first", rows[:3], kind, splits=["v", "train2", "v"])


DOCUMENTED = re.findall(
    r"```yaml\n(.*?)```",
    (Path(__file__).parents[2] / "docs/splits.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.mark.parametrize("example", DOCUMENTED, ids=range(len(DOCUMENTED)))
def test_documented_splits_are_made(example: str, tmp_path: Path, eps_folder: Path) -> None:
    members: dict[str, Any] = {}
    for i in range(30):
        path = tmp_path / "splits" / ("train", "val")[i % 2] / "cat" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(1))
        members |= {f"{i}.png": encoded(1), f"{i}.json": {"fold": ("train", "val")[i % 2]}}
    tar(tmp_path / "shards/a.tar", members)
    tables(tmp_path, 60, 20)
    if "outputs/first" in example:
        rows = [{"content_id": f"{i}.png"} for i in range(30)]
        generation(tmp_path / "outputs/first", rows, splits=["train", "test"] * 15)
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, **yaml.safe_load(example))))
    assert {"train", "validation"} <= resolved.summary()["splits"].keys()
