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


def test_a_link_back_up_the_tree_does_not_multiply_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert [row.id for row in list_images(tmp_path, "contents")] == ["a/x.png"]


def test_gaps_and_numbers_in_columns_become_labels_not_classes_named_nan(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    table = pa.table({"path": ["a.png", "b.png", "c.png"], "label": [2.0, float("nan"), 10.0]})
    pq.write_table(table, path)
    assert [row.label for row in list_images(path, "contents")] == ["2", "", "10"]


def test_text_that_no_file_can_hold_is_refused_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"path": "a.png", "caption": "half \\ud83d"}\n')
    with pytest.raises(ManifestError, match=r"image 1: .*not valid Unicode"):
        list_images(path, "contents")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / b"b\xff.png".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    with pytest.raises(ManifestError, match="not valid Unicode"):
        list_images(folder, "contents")


def test_a_folder_named_like_rows_and_damaged_parquet_are_explained(tmp_path: Path) -> None:
    folder = tmp_path / "d.csv"
    folder.mkdir()
    with pytest.raises(ManifestError, match=r"d\.csv: cannot be read as csv rows"):
        list_pairs(folder)
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(1000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\0" * 40 + whole[len(whole) // 2 + 40 :])
    with pytest.raises(ManifestError, match="cannot be read as parquet"):
        list_images(path, "contents")
