"""CSV that is read by columns gives what the strict reader gives: the same rows, notes and refusals, whatever people typed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.tables import tidy_delimited
from stylebatch.data.tables.reader import Table
from stylebatch.data.tables.table_columns import Columns
from stylebatch.data.tables.tidy_delimited import UntidyError
from stylebatch.errors import ManifestError

COLUMNS = Columns(("content", "style"), ("label", "caption"), carries=True)
Found = tuple[list[tuple[int, dict[str, str]]], list[str], str]

CELLS = st.one_of(
    st.text(st.sampled_from("ab7/. \"',;|\t\r\n\0\x1cö\u3000"), max_size=6),
    st.sampled_from(["a.png", "s 1.png", "", " ", "nan", "NULL", "07", '"q"', 'say ""x""', "ﬃ"]),
)
NAMES = st.sampled_from(
    ["content", "style", " Style", "label", "lable", "caption", "x", "", '"content"', "Content "]
)


def _read(path: Path) -> Found:
    """Rows before an error, notes, and the error."""
    table = Table(str(path), COLUMNS)
    rows = []
    try:
        for row in table.rows():
            rows.append(row)
    except ManifestError as error:
        return rows, [], str(error)
    return rows, table.notes(), ""


def _untidy(*_: object) -> Iterator[None]:
    raise UntidyError
    yield


def _assert_readers_agree(path: Path) -> Found:
    found = _read(path)
    with patch.object(tidy_delimited, "read_tidy", _untidy):
        assert found == _read(path)
    return found


@settings(max_examples=400, deadline=None)
@given(
    names=st.one_of(st.just(["content", "style", "x"]), st.lists(NAMES, min_size=1, max_size=5)),
    rows=st.lists(st.lists(CELLS, max_size=5), max_size=6),
    mark=st.sampled_from(",,,;\t|"),
    end=st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, None]),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    start=st.sampled_from(["", "", "", "\n", "sep=;\n"]),
)
def test_both_readers_agree_on_what_people_type(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    rows: list[list[str]],
    mark: str,
    end: str,
    quoting: int | None,
    encoding: str,
    start: str,
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"pairs.{'tsv' if mark == chr(9) else 'csv'}"
    file = io.StringIO()
    if quoting is None:  # by hand: nothing is escaped
        file.write("".join(mark.join(row) + end for row in (names, *rows)))
    else:
        csv.writer(file, delimiter=mark, quoting=quoting, lineterminator=end).writerows(
            (names, *rows)
        )
    path.write_bytes((start + file.getvalue()).encode(encoding, "replace"))
    _assert_readers_agree(path)


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1), new=st.binary(max_size=3), cut=st.integers(0, 4))
def test_both_readers_agree_on_a_damaged_list(
    tmp_path_factory: pytest.TempPathFactory, place: float, new: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("tables") / "pairs.csv"
    rows = "".join(f'in/{i}.png,"st, {i % 3}.png",cat,\n' for i in range(12))
    data = f"content,style,label,note\n{rows}".encode()
    at = int(place * len(data))
    path.write_bytes(data[:at] + new + data[at + cut :])
    _assert_readers_agree(path)


def test_a_fault_behind_many_tidy_rows_is_named_by_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidy_delimited, "PIECE_BYTES", 64)
    path = tmp_path / "pairs.csv"
    rows = [f"in/{i}.png,st/{i % 3}.png" for i in range(40)]
    for fault, words in (
        ("a.png,b.png,c.png", "row 30: found 3 cells"),
        ('a.png,"b.png', "row 30 (line 31), column 2: a quote is never closed"),
        ("a.png", "row 30: found 1 cell"),
        ("a\0.png,b.png", "row 30: content: found a NUL character"),
    ):
        path.write_text("\n".join(["content,style", *rows[:29], fault, *rows[30:]]))
        found, _, error = _assert_readers_agree(path)
        assert words in error
        assert [number for number, _ in found] == list(range(1, 30))


@pytest.mark.parametrize("place", [0, 1, 7])
def test_a_mark_that_files_one_behind_the_other_leave_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(tidy_delimited, "PIECE_BYTES", 64)
    path = tmp_path / "pairs.csv"
    rows = [f"{chr(0xFEFF) * (i == place)}{i}.png,s.png" for i in range(12)]
    path.write_text("\n".join(["content,style", *rows]))
    found, _, _ = _assert_readers_agree(path)
    assert found[place][1]["content"] == f"\ufeff{place}.png"


@pytest.mark.parametrize(
    "text",
    [
        "content,style\na.png,s.png\nb.png,t.png\n",
        "\ufeffcontent;style\r\n a.png ;s.png\r\n\r\nb.png;t.png",
        ',content,"style"\n0,a.png,"s.png"\n1,"b.png",t.png\n',
        'style|content|caption\ns.png|a.png|"a ""tall"", ship"\nt.png|b.png|\n',
    ],
)
def test_tidy_tables_need_no_strict_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode())
    _assert_readers_agree(path)
    monkeypatch.delattr(tidy_delimited, "read_strictly")
    rows, _, error = _read(path)
    assert not error
    assert [(row["content"], row["style"]) for _, row in rows] == [
        ("a.png", "s.png"),
        ("b.png", "t.png"),
    ]
