"""Folders and rows become the same stable ids, and bad rows say which row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylebatch.data.sources import list_images, list_pairs
from stylebatch.errors import ManifestError


def test_folder_gives_sorted_ids_and_first_level_labels(tmp_path: Path) -> None:
    for name in (
        "b/2.png",
        "b/deep/1.jpg",
        "a/x.JPG",
        "top.webp",
        "a/notes.txt",
        ".hidden/y.png",
        "a/.z.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    rows = list_images(tmp_path, "contents")
    assert [(row.id, row.label) for row in rows] == [
        ("top.webp", ""),
        ("a/x.JPG", "a"),
        ("b/2.png", "b"),
        ("b/deep/1.jpg", "b"),
    ]
    assert all(Path(row.path).is_file() for row in rows)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_of_every_format_read_alike(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"path": "img/ä.jpg", "label": "cat", "caption": "a cat, sitting"},
        {"path": "img/b.jpg", "label": "", "caption": ""},
    ]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    else:
        mark = "," if suffix == "csv" else "\t"
        body = "".join(
            mark.join(f'"{row[c]}"' for c in ("path", "label", "caption")) + "\n" for row in rows
        )
        path.write_text(
            "\ufeff" + mark.join(("path", "label", "caption")) + "\n" + body, encoding="utf-8"
        )
    found = list_images(path, "contents")
    assert [(row.id, row.label, row.caption) for row in found] == [
        ("img/ä.jpg", "cat", "a cat, sitting"),
        ("img/b.jpg", "", ""),
    ]
    assert found[0].path == str(tmp_path / "img/ä.jpg")


def test_pairs_keep_order_and_list_each_image_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "content,style,label,caption\na.jpg,s.jpg,x,one\nb.jpg,s.jpg,,\na.jpg,t.jpg,y,\n"
    )
    contents, styles, pairs = list_pairs(path)
    assert [row.id for row in contents] == ["a.jpg", "b.jpg"]
    assert [row.id for row in styles] == ["s.jpg", "t.jpg"]
    assert [(p.content, p.style, p.label, p.caption) for p in pairs] == [
        (0, 0, "x", "one"),
        (1, 0, "", ""),
        (0, 1, "y", ""),
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("r.csv", "file,label\na.jpg,x\n", r"row 1 has no `path` \(found columns file, label\)"),
        ("r.csv", "path\na.jpg\n\na.jpg\n", "'a.jpg' stands there twice"),
        ("r.csv", "path\n", "no rows"),
        ("r.jsonl", '{"path": "a.jpg"}\n{"path": \n', "line 2 is not valid JSON"),
        ("r.jsonl", "[1]\n", "line 1: found list"),
        ("r.parquet", "not parquet at all", "cannot be read as parquet"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ManifestError, match=expected) as caught:
        list_images(path, "contents")
    assert str(path) in str(caught.value)


def test_pair_without_style_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("content,style\na.jpg,s.jpg\nb.jpg,\n")
    with pytest.raises(ManifestError, match="row 2 has no `style`"):
        list_pairs(path)


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"styles\.path: found no image files"):
        list_images(tmp_path, "styles")
