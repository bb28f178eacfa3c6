"""Cells as columns are the cells that they stand for, whatever is asked of them, and a plan of them is the same."""

from __future__ import annotations

import csv
import hashlib
import pickle
import random
from array import array
from pathlib import Path

import pytest

from stylebatch.data.rows import Cell, ListedCells, facts_of, with_texts
from stylebatch.data.sources.pairs import PairList, list_pairs, num_repeated
from stylebatch.errors import ManifestError
from stylebatch.planning.identity import rows_digest
from stylebatch.planning.listed_pools import ListedPools


def _both(with_labels: bool, with_captions: bool) -> tuple[ListedCells, list[Cell]]:
    draw = random.Random(3)
    cells = [
        Cell(
            draw.randrange(40),
            draw.randrange(9),
            draw.choice(["", "cat"]) if with_labels else "",
            f"no {number % 7}" if with_captions else "",
            number,
        )
        for number in draw.sample(range(1, 900), 300)
    ]
    numbers = (array("q", (getattr(cell, name) for cell in cells)) for name in ("row", "column", "number"))  # fmt: skip
    texts = (
        tuple(getattr(cell, name) for cell in cells) if given else ()
        for name, given in (("label", with_labels), ("caption", with_captions))
    )
    return ListedCells(*numbers, *texts), cells


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("with_captions", [True, False])
def test_columns_are_the_cells(with_labels: bool, with_captions: bool) -> None:
    columns, cells = _both(with_labels, with_captions)
    assert list(columns) == [columns[place] for place in range(len(columns))] == cells
    assert columns[-1] == cells[-1]
    assert list(columns[40:7:-3]) == cells[40:7:-3]
    assert list(pickle.loads(pickle.dumps(columns))) == cells
    assert list(facts_of(columns)) == list(facts_of(cells))
    assert bool(with_texts(columns)) == (with_labels or with_captions)
    sides = {"max_rows": 8, "max_columns": 4, "max_cells": 12}
    pools, others = ListedPools.sort(columns, **sides), ListedPools.sort(cells, **sides)
    assert pools.num_blocks == others.num_blocks > 3
    assert all(pools.block(i) == others.block(i) for i in range(pools.num_blocks))


def test_a_digest_does_not_depend_on_how_many_rows_are_hashed_at_once() -> None:
    rows = [(f"bild\udcff {i}", "", "ü") for i in range(2345)]
    whole = "".join("\0".join(row) + "\n" for row in rows).encode("utf-8", "surrogateescape")
    assert rows_digest(iter(rows)) == hashlib.sha256(whole).hexdigest()
    assert rows_digest([]) == hashlib.sha256(b"").hexdigest()


def test_a_shuffled_list_with_repeats_is_read_into_columns(tmp_path: Path) -> None:
    draw = random.Random(5)
    rows = [(f"in/{draw.randrange(30):02d} ö.png", f"../st/{draw.randrange(5)}.png") for _ in range(200)]  # fmt: skip
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Style", "Content"), *((s, c) for c, s in rows)])
    found = list_pairs(PairList(str(tmp_path / "pairs.csv")))
    assert [(found.contents[c.row].id, found.styles[c.column].id) for c in found.pairs] == rows
    assert [cell.number for cell in found.pairs] == list(range(1, 201))
    assert not with_texts(found.pairs)
    for side in (found.contents, found.styles):
        assert [item.id for item in side] == sorted({item.id for item in side})
        assert all(item.ref.place == f"{tmp_path}/{item.id}" for item in side)


def test_the_first_row_without_a_style_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("content,style\na.png,s.png\nb.png, \nc.png,\n")
    with pytest.raises(ManifestError, match="row 2: has no `style`"):
        list_pairs(PairList(str(tmp_path / "pairs.csv")))


def test_empty_lines_do_not_count_as_rows(tmp_path: Path) -> None:
    row = '{"content": "a.png", "style": "b.png"}\n'
    (tmp_path / "pairs.jsonl").write_text(f"{row}\n\n{row}\n{row}")
    assert [cell.number for cell in list_pairs(PairList(str(tmp_path / "pairs.jsonl"))).pairs] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("with_texts", [True, False])
@pytest.mark.parametrize("with_extras", [True, False])
def test_repeated_rows_are_counted(with_texts: bool, with_extras: bool) -> None:
    draw = random.Random(5)
    pairs = [(draw.randrange(6), draw.randrange(4)) for _ in range(50)]
    labels = tuple(draw.choice(("", "cat")) for _ in pairs) if with_texts else ()
    extras = tuple((("score", draw.choice("12")),) for _ in pairs) if with_extras else ()
    rows, columns = (array("q", side) for side in zip(*pairs, strict=True))
    cells = ListedCells(rows, columns, range(1, 51), labels, (), extras)
    distinct = {(one.row, one.column, one.label, one.extra) for one in cells}
    assert num_repeated(cells) == len(cells) - len(distinct) > 0
    assert num_repeated(cells[:1]) == 0


def test_a_list_tells_of_repeated_rows(tmp_path: Path) -> None:
    path, once = tmp_path / "pairs.csv", "content,style,score\na.png,s.png,1\nb.png,s.png,1\n"
    path.write_text(once + "a.png,s.png,2\n")
    assert not any("earlier" in note for note in list_pairs(PairList(str(path))).notes)
    path.write_text(once + "./a.png,s.png,1\na.png,s.png,1\n")
    notes = list_pairs(PairList(str(path))).notes
    assert any(note.startswith("pairing: ") and "earlier" in note for note in notes), notes
