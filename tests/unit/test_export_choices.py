"""What an export or a join takes of splits, classes and contents: balanced within, disjoint between, nothing twice."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.cli import main
from stylebatch.errors import ManifestError
from stylebatch.export.export import export, repair_export
from stylebatch.export.export_options import ExportOptions
from stylebatch.folder import Folder
from stylebatch.store.output_record import read_run
from stylebatch.store.verify import verify
from tests.support.exported import rendered, rows_of
from tests.support.generations import generation
from tests.support.runs import digests

ALIKE = ("cat/1.png", "cat/1.jpg", "Cat/1.png", "cat/01.png", "ü/1.png", "1.png")


@settings(max_examples=10, deadline=None)
@given(
    splits=st.lists(st.sampled_from(["train", "validation", "fold_2"]), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.5]),
)
def test_classes_are_balanced_within_each_split(splits: list[str], seed: int, share: float) -> None:
    """And originals are mixed into each in the same share."""
    draw = random.Random(seed)
    rows = [
        {"label": draw.choice(("cat", "Cat", "dog", "")), "content_id": draw.choice(ALIKE)}
        for _ in splits
    ]
    if not any(row["label"] for row in rows):
        return
    with tempfile.TemporaryDirectory() as folder:
        source = generation(Path(folder) / "source", rows, splits=splits)
        before = Counter((split, row["label"]) for split, row in zip(splits, rows, strict=True))
        result = export([source], Path(folder) / "out", ExportOptions(balance="label", originals=share))  # fmt: skip
        found = rows_of(Path(folder) / "out")
    stylised = [row for row in found if not row.get("is_original")]
    now = Counter((row["split"], row["label"]) for row in stylised)
    least: dict[str, int] = {}
    for (split, label), count in before.items():
        if label:
            least[split] = min(least.get(split, count), count)
    assert now == {key: least[key[0]] for key in before if key[1]}
    assert all(f"{count} of each label" in " ".join(result.told) for count in least.values())
    for split in least:
        count = sum(row["split"] == split for row in stylised)
        added = sum(row["split"] == split for row in found) - count
        assert added == int(share * count + 0.5)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Outputs of the same contents in other styles; the first three contents are in other splits."""
    splits = [["train", "validation"] * 3, ["validation", "train", "validation", "validation", "train", "validation"]]  # fmt: skip
    for number, of_output in enumerate(splits):
        rows = [{"content_id": name, "style_id": f"{number}.jpg"} for name in ALIKE]
        generation(tmp_path / f"out{number}", rows, splits=of_output, name=f"n{number}")
    return tmp_path / "out0", tmp_path / "out1"


def test_a_content_in_two_splits_is_not_joined(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError,
        match=r"out0 and .*out1 cannot be joined: cat/1.png is in split train of the first, and in split validation of the other, and so "
        r"2 others; .* `--split train`, or render one of them with the `split` of the other",
    ):
        export(two, tmp_path / "both")
    assert not (tmp_path / "both").exists()
    words = [*map(str, two), "--output", str(tmp_path / "both")]
    assert main(["merge", *words]) == 2
    assert main(["merge", *words, "--split", "train"]) == 0
    rows = rows_of(tmp_path / "both")
    assert Counter((row["split"], row["content_id"]) for row in rows) == {
        ("train", name): 1 for name in (*ALIKE[::2], ALIKE[1])
    } | {("train", ALIKE[4]): 2}
    assert list(verify(tmp_path / "both")) == []


def _knows(output: Path, **bytes_of: str) -> None:
    """What a run remembers of the bytes of its contents."""
    files = {f"content {name}": text for name, text in sorted(bytes_of.items())}
    table = pa.table({"file": list(files), "xxh3": list(files.values())})
    (output / "inputs").mkdir()
    pq.write_table(table, output / "inputs/files.parquet")


@pytest.mark.parametrize(
    ("first", "second", "is_joined"),
    [
        ({"a": "1", "b": "2"}, {"a": "3", "b": "4"}, True),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "4"}, False),
        ({"a": "1", "b": "2"}, {"a": "9", "c": "1"}, False),
        ({"a": "1", "b": "2"}, {}, False),
        ({}, {"a": "1"}, False),
        ({}, {"c": "1"}, True),
    ],
)
def test_contents_are_known_by_their_bytes_where_both_outputs_know_them(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], is_joined: bool
) -> None:
    """Folders of other pictures may have the same names, and one picture several names."""
    names = list(first or {"a": "", "b": ""}), list(second or {"a": "", "b": ""})
    outputs = []
    for number, (known, split) in enumerate(((first, "train"), (second, "validation"))):
        rows = [{"content_id": name, "style_id": f"{number}.jpg"} for name in names[number]]
        outputs.append(
            generation(tmp_path / f"o{number}", rows, splits=[split] * len(rows), name=f"n{number}")
        )
        if known:
            _knows(outputs[-1], **known)
    if not is_joined:
        with pytest.raises(ManifestError, match="in split train of the first"):
            export(outputs, tmp_path / "both")
        return
    told = " ".join(export(outputs, tmp_path / "both").told)
    alike = len(first.keys() & second.keys())
    assert ("2 contents of one name with other bytes in each output" in told) == (alike == 2)
    assert len(rows_of(tmp_path / "both")) == len(names[0]) + len(names[1])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_originals_of_joined_outputs_do_not_repeat_where_one_knows_no_bytes(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    outputs = []
    for number in range(2):
        rows = [{"content_id": f"{i}.png", "style_id": f"{number}.jpg"} for i in range(8)]
        outputs.append(generation(tmp_path / f"o{number}", rows, name=f"n{number}"))
    _knows(outputs[0], **{f"{i}.png": str(i) for i in range(8)})
    export([outputs[number] for number in order], tmp_path / "both", ExportOptions(originals=0.5))
    added = [row["content_id"] for row in rows_of(tmp_path / "both") if row["is_original"]]
    assert sorted(added) == [f"{i}.png" for i in range(8)]


def test_originals_of_one_name_are_each_an_original(tmp_path: Path) -> None:
    outputs = []
    for number in range(2):
        rows = [{"content_id": "a", "style_id": f"{number}{style}.jpg"} for style in range(2)]
        outputs.append(generation(tmp_path / f"o{number}", rows, name=f"n{number}"))
        _knows(outputs[-1], a=str(number))
    told = " ".join(export(outputs, tmp_path / "both", ExportOptions(originals=0.5)).told)
    assert "2 originals added, of 2 contents" in told
    export(outputs, tmp_path / "joined")
    told = " ".join(
        export([tmp_path / "joined"], tmp_path / "more", ExportOptions(originals=0.5)).told
    )
    assert "2 originals added, of contents of 1 name, up to 2 of one name" in told


def test_an_output_without_splits_is_all_train(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Its contents must not meet those that another one validates with."""
    rows = [{"content_id": name, "style_id": "x.jpg", "split": "train"} for name in ALIKE]
    plain = generation(tmp_path / "plain", rows)
    with pytest.raises(ManifestError, match=r"cat/1.jpg is in split validation of the first, and in split train"):  # fmt: skip
        export([two[0], plain], tmp_path / "both")
    others = [row | {"content_id": f"other/{row['content_id']}"} for row in rows]
    export([two[0], generation(tmp_path / "others", others)], tmp_path / "both")
    assert len(rows_of(tmp_path / "both")) == 12


def test_generations_are_known_by_their_originals(tmp_path: Path) -> None:
    """Samples of samples of one content are of that content, whatever they are called."""
    made = [
        generation(
            tmp_path / split,
            [{"content_id": f"{split}-00000.tar/0.jpg", "origin_id": "cat.png", "style_id": split}],
            splits=[split],
            name=split,
        )
        for split in ("train", "test")
    ]
    with pytest.raises(ManifestError, match=r"joined: cat.png is in split train .* split test"):
        export(made, tmp_path / "both")


def test_a_sample_of_several_outputs_is_taken_once(tmp_path: Path) -> None:
    """Of a copy that grew what is new; what differs in anything that is learned from stays."""
    rows = [{"content_id": name, "style_id": "s.jpg"} for name in ALIKE]
    first = generation(tmp_path / "first", rows)
    copied = tmp_path / "copied"
    shutil.copytree(first, copied)
    other = [*reversed(rows), {"content_id": "new.png", "style_id": "s.jpg"}]
    # pictures are those of the places: the first is the last now, and so no copy
    grown = generation(tmp_path / "grown", [*rows, *other[6:]], name="grown")
    twice = [rows[0] | {"label": "Cat"}, rows[1], rows[1]]
    relabelled = generation(tmp_path / "relabelled", twice, name="relabelled")
    result = export([first, copied, grown, relabelled], tmp_path / "all")
    found = rows_of(tmp_path / "all")
    assert result.told == ("13 samples of several outputs taken once",)
    assert [(row["content_id"], row["label"]) for row in found] == [
        *((name, "cat") for name in ALIKE),
        ("new.png", "cat"),
        ("cat/1.png", "Cat"),
        ("cat/1.jpg", "cat"),
    ]
    assert list(verify(tmp_path / "all")) == []
    whole = digests(tmp_path / "all")
    next((tmp_path / "all/data").iterdir()).unlink()
    repair_export(tmp_path / "all")
    assert digests(tmp_path / "all") == whole


def test_splits_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"content_id": f"{n}.png"} for n in range(9)]
    names = ("train", "validation", "Fold_3")
    source = generation(tmp_path / "source", rows, splits=[names[n % 3] for n in range(9)])
    drop = tmp_path / "keys.txt"
    drop.write_text("000000001\n000010000\n")  # of train, and of validation
    words = ["export", str(source), "--to", "files", "--output", str(tmp_path / "out"), "--drop", str(drop)]  # fmt: skip
    assert main([*words, "--split", "val", "--split", "Fold_3"]) == 0
    assert "Validation and Fold_3 alone, of all splits" in capsys.readouterr().out
    assert Counter(row["split"] for row in rows_of(tmp_path / "out")) == {"validation": 2, "Fold_3": 3}  # fmt: skip
    told = read_run(Folder.at(tmp_path / "out")).export
    assert told is not None
    assert told.splits == ["val", "Fold_3"]
    assert main([*words, "--split", "fold_3"]) == 2
    assert "did you mean 'Fold_3'? accepted: train, validation, Fold_3" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_shared_inputs_are_loaded_by_split(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No content that is validated with is among the inputs of `train`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"content_id": name, "style_id": "s.jpg"} for name in ALIKE]
    splits = ["train", "validation", "validation_2"] * 2
    source = generation(tmp_path / "source", rows, kind, splits=splits, shares_inputs=True)
    export([source], tmp_path / "out")
    for split, name in zip(splits, ALIKE, strict=True):
        loaded = datasets.load_dataset(str(tmp_path / "out"), "inputs", split=split)
        told = [one.get("json") or one for one in loaded]
        contents = {one["id"] for one in told if one["kind"] == "content"}
        assert name in contents
        assert len(contents) == 2


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "files"])
def test_originals_have_no_options_and_do_not_count_in_means(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = rendered(tmp_path / "source", kind)
    plain = export([source], tmp_path / "plain")
    mixed = export([source], tmp_path / "out", ExportOptions(originals=1.0))
    assert mixed.report.quality == pytest.approx(plain.report.quality)
    rows = rows_of(tmp_path / "out")
    drawn = ("gamma", "tau", "steps", "seed", "sites", "inject")
    for row in rows:
        assert {row[name] is None for name in drawn} == {row["is_original"]}
        assert row["label"]
        assert row["width"] == 24
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    found = [(one.get("json") or one)["gamma"] for one in loaded]
    assert sorted(found, key=str) == [0.75] * 18 + [None] * 18
    text = (tmp_path / "out/gallery.html").read_text()
    assert "seed None" not in text
    again = export([tmp_path / "out"], tmp_path / "again", ExportOptions(where="gamma > 0.5"))
    assert again.told[:2] == (
        "18 of 36 samples fulfil gamma > 0.5",
        "18 samples left out, since a value that is asked for is missing (null) there",
    )


def test_texts_that_stand_for_numbers_are_told(tmp_path: Path) -> None:
    """A number that some inputs lack is a text in all records, "" for those."""
    rows = [{"content_id": f"{n}.png", "age": str(n or "")} for n in range(9)]
    source = generation(tmp_path / "source", rows)
    for where in ("age > 3", "age::int > 3", "age IN (3, 4)"):
        with pytest.raises(
            ManifestError, match=r"a column of texts is `try_cast\(COLUMN AS double"
        ):
            export([source], tmp_path / "out", ExportOptions(where=where))
    result = export([source], tmp_path / "out", ExportOptions(where="try_cast(age AS double) > 3"))
    assert len(rows_of(tmp_path / "out")) == 5
    assert result.told[1].startswith(
        "1 sample left out, since a value that is asked for is missing"
    )
