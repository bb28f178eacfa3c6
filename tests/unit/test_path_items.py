"""Items as columns are the items that they stand for, and what is hashed of them is the same."""

from __future__ import annotations

import pickle
import random
from array import array
from pathlib import Path

import pytest

from stylebatch.data.arrow_columns import constant_column, number_column, numbers_of, text_column
from stylebatch.data.rows import ListedCells, facts_of
from stylebatch.data.sources.pairs import PairList, list_pairs
from stylebatch.data.sources.path_items import PathItems, with_facts
from stylebatch.data.sources.source import Item, Ref
from stylebatch.errors import ManifestError
from stylebatch.planning import identity
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.identity import columns_digest, rows_digest

NAMES = [f"in/{i:02d} ö.png" for i in range(20)]
ODD = ["/abs/a=1.png", "s3://bucket/b.png", "https://user:word@host/a.png?token=abcdef", *NAMES]


def _expected(name: str, id_: str) -> Item:
    whole = name.startswith("/") or "://" in name
    return Item(id_, Ref(name, "", "pairing") if whole else Ref("/table", name, "pairing"))


@pytest.mark.parametrize("names", [NAMES, sorted(ODD)])
def test_columns_are_the_items(names: list[str]) -> None:
    items, order = PathItems.sorted(text_column(names), "/table", "pairing")
    assert [item.id for item in items] == sorted(item.id for item in items)
    assert list(items) == [_expected(names[i], item.id) for i, item in zip(order, items, strict=True)]  # fmt: skip
    assert "word" not in "".join(item.id for item in items)
    for one in (slice(3, 9), slice(None, None, 7), slice(9, 2, -2), slice(5, 5)):
        assert list(items[one]) == list(items)[one]
    assert items[-1] == list(items)[-1]
    assert list(pickle.loads(pickle.dumps(items))) == list(items)
    assert not with_facts(items)
    assert with_facts(list(items)) == list(items)
    with pytest.raises(IndexError):
        items[len(names)]


def test_a_digest_of_columns_is_that_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "COLUMNS_AT_ONCE", 7)
    items, _ = PathItems.sorted(text_column(NAMES), "/table", "pairing")
    axis, objects = ImageAxis("content", items), ImageAxis("content", tuple(items))
    assert axis.bare_ids is not None
    assert objects.bare_ids is None
    assert identity._digest_of_axis(axis) == identity._digest_of_axis(objects)
    split = axis.in_splits(("train",) * len(NAMES))
    assert split.bare_ids is None  # the digest is of their splits too
    draw = random.Random(2)
    rows, columns = (array("q", (draw.randrange(5000) for _ in range(30))) for _ in range(2))
    for labels in ((), tuple(draw.choice(["", "käse"]) for _ in range(30))):
        cells = ListedCells(rows, columns, range(1, 31), labels)
        facts = ((str(row), str(column), *texts) for row, column, *texts in facts_of(cells))
        assert identity._digest_of_cells(cells) == rows_digest(facts)
    assert columns_digest([text_column([])]) == rows_digest([])


def test_columns_of_arrow_hold_what_they_were_made_of() -> None:
    texts = ["", "ö", "a" * 300, "\0"]
    assert text_column(texts).to_pylist() == texts
    assert constant_column("ü", 3).to_pylist() == ["ü"] * 3
    assert constant_column("", 0).to_pylist() == text_column([]).to_pylist() == []
    numbers = numbers_of(text_column(["b", "a"]).dictionary_encode().indices)
    assert numbers_of(number_column(numbers.astype("int64"))).tolist() == [0, 1]


def test_a_list_names_the_first_row_with_an_unknown_name(tmp_path: Path) -> None:
    rows = [f"{i % 7}.png,s{i % 3}.png,{'' if i % 2 else 'cat'},{i}" for i in range(40)]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["content,style,label,shot", *rows]))
    source = PairList(str(path))
    found = list_pairs(source)
    assert [found.contents[cell.row].id for cell in found.pairs] == [f"{i % 7}.png" for i in range(40)]  # fmt: skip
    assert [(cell.label, cell.extra) for cell in found.pairs] == [
        ("" if i % 2 else "cat", (("shot", str(i)),)) for i in range(40)
    ]
    assert source.types == {"shot": "int64"}
    path.write_text("content,style\na.png,s.png\n" + "b.png,\n" * 2)
    with pytest.raises(ManifestError, match="row 2: has no `style`"):
        list_pairs(PairList(str(path)))
