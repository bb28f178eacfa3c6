"""Folders of images with what stands beside them: sidecars, tables of metadata, levels that are classes, splits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError


def listed(path: object, **options: Any) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))


def files(folder: Path, *names: str, **texts: str) -> Path:
    """Empty files, and texts by name (`__` for a dot, `___` for a slash)."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for name, text in texts.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def told(found: Listing) -> list[tuple[str, str, str, str]]:
    return [(i.id, i.label, i.caption, i.license) for i in found.items]


def test_files_of_img2dataset_have_captions_and_no_class_named_by_their_shard(
    tmp_path: Path,
) -> None:
    names = [f"0000{s}/0000{s}000{i}.jpg" for s in range(2) for i in range(2)]
    files(tmp_path, *names, "00000.parquet", "00000_stats.json", "00001_stats.json")
    for name in names[:3]:
        path = (tmp_path / name).with_suffix(".json")
        path.write_text(json.dumps({"caption": f"of {name}", "license": "cc0-1.0", "key": "k"}))
    (tmp_path / names[3]).with_suffix(".txt").write_text("a text\n")
    found = listed(tmp_path)
    assert told(found) == [
        *((name, "", f"of {name}", "cc0-1.0") for name in names[:3]),
        (names[3], "", "a text", ""),
    ]
    assert "3 passed over" in found.notes[1]
    assert [i.label for i in listed(tmp_path, label_from=1).items] == ["00000"] * 2 + ["00001"] * 2


def test_sidecars_of_a_class_folder_name_it_or_leave_it(tmp_path: Path) -> None:
    files(
        tmp_path, "cat/1.png", "cat/2.png", "cat/3.png",
        cat___1__cls="tabby", cat___2__json='{"label": "lion", "caption": ["x", "y"]}',
        cat___notes__txt="to do", cat___3__txt="0 0.5 0.5 0.2 0.2\n",
    )  # fmt: skip
    found = listed(tmp_path)
    assert [(i.label, i.caption) for i in found.items] == [
        ("tabby", ""),
        ("lion", "x"),
        ("cat", ""),
    ]
    notes = " ".join(found.notes)
    assert "1 passed over, since they are not read: 1 .txt (such as cat/notes.txt)" in notes
    assert ".txt of numbers alone are no captions: 1;" in notes
    assert {i.label for i in listed(tmp_path, label_from=1).items} == {"cat"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_gives_labels_captions_and_licences(tmp_path: Path, suffix: str) -> None:
    files(tmp_path, "a.png", "sub/b.png", "c.png")
    rows = [
        {"file_name": "./a.png", "label": "cat", "text": "one", "license": "cc0-1.0", "height": 3},
        {"file_name": "sub/b.png", "label": "", "text": "two, three", "license": "", "height": 3},
        {"file_name": "gone.png", "label": "dog", "text": "", "license": "", "height": 3},
    ]
    path = tmp_path / f"metadata.{suffix}"
    if suffix == "csv":
        lines = [",".join(rows[0]), *(",".join(f'"{v}"' for v in row.values()) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines))
    found = listed(tmp_path, caption="text")
    assert told(found) == [
        ("a.png", "cat", "one", "cc0-1.0"),
        ("c.png", "", "", ""),
        ("sub/b.png", "sub", "two, three", ""),
    ]
    notes = " ".join(found.notes)
    for note in (
        "1 row of metadata without an image that is there, such as gone.png",
        "1 image without a row",
    ):
        assert note in notes
    # c.png has none: numbers with gaps are texts
    assert found.sources.by_field["contents"].types == {"height": "string"}


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("file,label\na.png,x\n", {}, r"metadata\.csv: the header has no `file_name`"),
        ("file_name,lable\na.png,x\n", {}, r"metadata\.csv: the header: found column `lable`; did you mean `label`"),
        ("file_name,label\na.png,x\n", {"caption": "text"}, r"has no `text`"),
        ("file_name,label\na.png,x\na.png,y\n", {}, r"row 2: file_name: found 'a\.png' for the second time"),
        ("file_name,label\na.png,x,z\n", {}, r"row 1: found 3 cells"),
        ("file_name,label\n../a.png,x\n", {}, r"row 1: file_name: found '\.\./a\.png'"),
        ("file_name,label\n,x\n", {}, r"row 1: file_name: found ''"),
        ("file_name,label\nb.png,x\n", {}, r"contents\.path: .*and no image that is named there, such as b\.png"),
    ],
)  # fmt: skip
def test_metadata_that_is_not_as_meant_is_named_by_file_and_row(
    tmp_path: Path, text: str, options: dict[str, str], expected: str
) -> None:
    files(tmp_path, "a.png", metadata__csv=text)
    with pytest.raises(ManifestError, match=expected):
        listed(tmp_path, **options)


def test_two_tables_of_metadata_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "a.png", metadata__csv="file_name\na.png\n", metadata__jsonl="{}")
    with pytest.raises(ManifestError, match=r"found metadata\.csv and metadata\.jsonl"):
        listed(tmp_path)


def test_a_key_that_no_sidecar_has_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "a.png", a__json='{"fine": "x"}')
    assert listed(tmp_path, label="fine").items[0].label == "x"
    with pytest.raises(ManifestError, match=r"contents\.label: .*'fin' in any .*'fine'\?"):
        listed(tmp_path, label="fin")


def test_levels_and_splits_say_which_folder_is_the_class(tmp_path: Path) -> None:
    files(tmp_path, "train/cat/x/1.png", "train/dog/2.png", "val/cat/3.png")
    labels = {n: [i.label for i in listed(tmp_path, label_from=n).items] for n in range(4)}
    assert labels == {
        0: ["", "", ""],
        1: ["train", "train", "val"],
        2: ["cat", "dog", "cat"],
        3: ["x", "", ""],
    }
    found = listed(tmp_path, split="train")
    assert [(i.id, i.label) for i in found.items] == [
        ("train/cat/x/1.png", "cat"),
        ("train/dog/2.png", "dog"),
    ]
    for wrong in ("test", "..", "train/cat"):
        with pytest.raises(ManifestError, match=r"contents\.split: .*accepted: .*\(train, val\)"):
            listed(tmp_path, split=wrong)


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60), kind=st.sampled_from(["txt", "json", "cls"]))
def test_no_sidecar_costs_an_image(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "sidecars"
    files(folder, "a.png")
    for other in folder.glob("a.[tjc]*"):
        os.unlink(other)
    for start in (b"", b'{"caption": "'):
        _costs_nothing(folder, f"a.{kind}", start + data)
    _costs_nothing(folder, "a.json", b'{"label": "\\ud83d\\u0000x"}')


def _costs_nothing(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    (item,) = listed(folder).items
    for text in (item.label, item.caption, item.license):
        text.encode()
        assert "\0" not in text
