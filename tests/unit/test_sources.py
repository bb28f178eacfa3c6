"""Folders and rows become the same stable ids, and bad rows say which row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.data.sources.pairs import ListedPairs, PairList, list_pairs
from stylebatch.errors import ManifestError


def images(path: Path, field: str = "contents") -> Listing:
    return list_images(open_source(str(path), field))


def pairs_of(path: Path) -> ListedPairs:
    return list_pairs(PairList(str(path)))


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
    rows = images(tmp_path).items
    assert [(row.id, row.label) for row in rows] == [
        ("top.webp", ""),
        ("a/x.JPG", "a"),
        ("b/2.png", "b"),
        ("b/deep/1.jpg", "b"),
    ]
    assert all(Path(row.ref.place).is_file() for row in rows)


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
    found = images(path).items
    assert [(row.id, row.label, row.caption) for row in found] == [
        ("img/ä.jpg", "cat", "a cat, sitting"),
        ("img/b.jpg", "", ""),
    ]
    assert found[0].ref.place == str(tmp_path / "img/ä.jpg")


def test_pairs_keep_order_and_list_each_image_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "content,style,label,caption\na.jpg,s.jpg,x,one\nb.jpg,s.jpg,,\na.jpg,t.jpg,y,\n"
    )
    found = pairs_of(path)
    assert [row.id for row in found.contents] == ["a.jpg", "b.jpg"]
    assert [row.id for row in found.styles] == ["s.jpg", "t.jpg"]
    assert [(c.row, c.column, c.label, c.caption) for c in found.pairs] == [
        (0, 0, "x", "one"),
        (1, 0, "", ""),
        (0, 1, "y", ""),
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("r.csv", "file,label\na.jpg,x\n", r"header has no `path` \(found columns file, label\)"),
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
        images(path)
    assert str(path) in str(caught.value)


def test_pair_without_style_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("content,style\na.jpg,s.jpg\nb.jpg,\n")
    with pytest.raises(ManifestError, match="row 2: has no `style`"):
        pairs_of(path)


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"styles\.path: found no image files"):
        images(tmp_path, "styles")


def test_a_link_back_up_the_tree_does_not_multiply_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert [row.id for row in images(tmp_path).items] == ["a/x.png"]


def test_gaps_and_numbers_in_columns_become_labels_not_classes_named_nan(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    table = pa.table({"path": ["a.png", "b.png", "c.png"], "label": [2.0, float("nan"), 10.0]})
    pq.write_table(table, path)
    assert [row.label for row in images(path).items] == ["2", "", "10"]


def test_text_that_no_file_can_hold_is_refused_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"path": "a.png", "caption": "half \\ud83d"}\n')
    with pytest.raises(ManifestError, match=r"row 1: caption: .*not valid Unicode"):
        images(path)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / b"b\xff.png".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    with pytest.raises(ManifestError, match="not valid Unicode"):
        images(folder)


def test_a_folder_named_like_rows_and_damaged_parquet_are_explained(tmp_path: Path) -> None:
    folder = tmp_path / "d.csv"
    folder.mkdir()
    with pytest.raises(ManifestError, match=r"d\.csv: cannot be read as csv rows"):
        pairs_of(folder)
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(1000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\0" * 40 + whole[len(whole) // 2 + 40 :])
    with pytest.raises(ManifestError, match="cannot be read as parquet"):
        images(path)


def test_what_a_folder_passes_over_is_told(tmp_path: Path) -> None:
    for name in ("train/a.png", "val/b.png", "bird/c.PSD", "x.mpo", "noext", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "run1" / "metadata").mkdir(parents=True)
    (tmp_path / "run1" / "metadata" / "train-00000_stats.json").write_text("{}")
    (tmp_path / "run1" / "contact_sheet.png").write_bytes(b"x")
    listed = images(tmp_path)
    assert [row.id for row in listed.items] == [
        "train/a.png",
        "val/b.png",
    ]
    for told in (
        "4 passed over",
        "1 .psd (such as bird/c.PSD)",
        "1 .mpo",
        "1 without suffix",
        "1 hidden",
        "without any image that is read: bird",
        "earlier outputs of this program are passed over: run1",
        "train, val become classes",
    ):
        assert told in " ".join(listed.notes)


@pytest.mark.parametrize("inside", ["", "data", "metadata", "metadata/train-00000.parquet"])
def test_an_output_is_no_source_of_images(tmp_path: Path, inside: str) -> None:
    output = tmp_path / "first"
    for name in ("data/a.png", "metadata/train-00000.parquet", "contact_sheet.png"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"x")
    (output / "run.json").write_text('{"experiment": "of somebody else"}')
    if not inside:
        assert len(images(output, "styles").items) == 2
    (output / "run.json").write_text('{"digest": "", "identity": {}, "plan": {}}')
    with pytest.raises(ManifestError, match=r"contents\.path: .* belongs to first, an output"):
        images(output / inside)
