"""Tables arrive whole or are refused by file, row and column; nothing of them is lost or turned into Python notation in silence."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.data.sources.pairs import PairList, list_pairs
from stylebatch.data.tables.reader import Table
from stylebatch.data.tables.table_columns import Columns
from stylebatch.errors import ManifestError

COLUMNS = Columns(("path",), ("label", "caption"))
NAMES = {
    "path": ("path", " Path", "PATH "),
    "label": ("label", "Label"),
    "caption": ("caption", " CAPTION"),
}
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), max_size=12
)
ROWS = st.lists(st.tuples(TEXTS.filter(str.strip), TEXTS, TEXTS), min_size=1, max_size=6)


def _rows(path: Path) -> list[dict[str, str]]:
    return [row for _, row in Table(str(path), COLUMNS).rows()]


def _written(
    suffix: str, names: list[str], rows: list[tuple[str, ...]], draw: st.DataObject
) -> bytes:
    """A table as some program writes it."""
    if suffix == "jsonl":
        text = "".join(
            json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=draw.draw(st.booleans()))
            + "\n"
            for row in rows
        )
    else:
        mark = draw.draw(st.sampled_from(",;\t"))
        file = io.StringIO()
        writer = csv.writer(
            file,
            delimiter=mark,
            quoting=csv.QUOTE_ALL,
            lineterminator=draw.draw(st.sampled_from(["\n", "\r\n"])),
        )
        writer.writerows([names, *rows])
        text = file.getvalue()
    return text.encode(draw.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]), draw=st.data())
def test_every_text_arrives_from_every_format(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, ...]],
    suffix: str,
    draw: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"rows.{suffix}"
    names = [draw.draw(st.sampled_from(NAMES[column])) for column in COLUMNS.known]
    unused = ["x", *(str(i) for i in range(len(rows)))]
    if suffix == "parquet":
        kinds = [
            draw.draw(st.sampled_from([pa.string(), pa.large_string(), pa.binary()])) for _ in names
        ]
        columns = [
            pa.array(texts).cast(kind)
            for texts, kind in zip(zip(*rows, strict=True), kinds, strict=True)
        ]
        pq.write_table(
            pa.table(dict(zip(names, columns, strict=True)) | {"x": pa.array(unused[1:])}),
            path,
            row_group_size=2,
        )
    else:
        wide = [(*row, i) for row, i in zip(rows, unused[1:], strict=True)]
        path.write_bytes(_written(suffix, [*names, "x"], wide, draw))
    table = Table(str(path), COLUMNS)
    try:
        found = [tuple(row.values()) for _, row in table.rows()]
    except ManifestError as error:
        assert "looks like a row" in str(error)  # noqa: PT017 - a text of several lines may look so
        return
    assert found == [tuple(text.strip() for text in row) for row in rows]
    assert "columns passed over: x" in " ".join(table.notes())


@settings(max_examples=150, deadline=None)
@given(
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
    place=st.floats(0, 1, exclude_max=True),
    new=st.binary(max_size=3),
    cut=st.integers(0, 3),
)
def test_a_damaged_table_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, place: float, new: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"rows.{suffix}"
    rows = [{"path": f"a{i}.png", "label": "cat", "caption": 'a "tall", ship'} for i in range(3)]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        file = io.StringIO()
        writer = csv.DictWriter(file, rows[0], delimiter="\t" if suffix == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(file.getvalue())
    data = path.read_bytes()
    at = int(place * len(data))
    path.write_bytes(data[:at] + new + data[at + cut :])
    try:
        found = _rows(path)
    except ManifestError as error:
        assert str(path) in str(error)  # noqa: PT017 - either of two ends is right
        return
    assert all(row.keys() == {"path", "label", "caption"} for row in found)


HEAD = "path,label,caption\n"
SLIPS = {
    "surplus cell": ("r.csv", HEAD + "a.png,cat,black, white\n", "row 1: found 4 cells.*'white' stands beyond"),
    "short row": ("r.csv", HEAD + "a.png,cat,x\nb.png\n", "row 2: found 1 cell"),
    "open quote": ("r.csv", HEAD + 'a.png,cat,"x\nb.png,dog,y\n', r"row 1 \(line 2\), column 3: a quote is never closed"),
    "text after a quote": ("r.csv", HEAD + 'a.png,"cat" x,y\n', r"row 1 \(line 2\), column 2: text follows the closing quote"),
    "swallowed row": ("r.csv", HEAD + 'a.png,cat,"x\nb.png,dog,y"\n', "row 1, column 3: the quoted cell runs on"),
    "misspelt": ("r.csv", "path,lable\na.png,x\n", "found column `lable`; did you mean `label`"),
    "misspelt plural": ("r.csv", "path,lables\na.png,x\n", "found column `lables`; did you mean `label`"),
    "plural": ("r.jsonl", '{"path": "a.png", "captions": "x"}\n', "row 1: found column `captions`; did you mean `caption`"),
    "twice": ("r.csv", "path,label,Label \na.png,x,y\n", "found column `label` twice"),
    "key twice": ("r.jsonl", '{"path": "a.png", "label": "x", "label": "y"}\n', "row 1: found column `label` twice"),
    "no header": ("r.csv", "a.png,cat,x\n", "header has no `path`.*first row must name the columns"),
    "no name": ("r.csv", "path,label,\na.png,cat,x\n", "row 1: column 3 has no name"),
    "a number without a name": ("r.csv", "path,label,\na.png,cat,7\n", "row 1: column 3 has no name"),
    "list": ("r.jsonl", '{"path": "a.png", "label": ["x"]}\n', "row 1: label: found list"),
    "boolean": ("r.jsonl", '{"path": "a.png", "label": true}\n', "row 1: label: found true"),
    "array": ("r.jsonl", '[{"path": "a.png"}]', "line 1: found list, the beginning of a JSON array"),
    "deep": ("r.jsonl", '{"path": "a.png", "x": ' + "[" * 100_000 + "\n", "line 1 is nested too deeply"),
    "NUL": ("r.csv", HEAD + "a.png,c\0t,x\n", "row 1: label: found a NUL"),
    "spreadsheet": ("r.csv", "PK\3\4", "spreadsheet; export it as CSV"),
    "empty": ("r.csv", "\n", "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_are_refused_where_they_stand(tmp_path: Path, slip: str) -> None:
    name, text, message = SLIPS[slip]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ManifestError, match=message) as caught:
        _rows(path)
    assert str(path) in str(caught.value)


def test_what_spreadsheets_and_data_frames_add_is_no_slip(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    row = {"path": "a.png", "label": "cat", "caption": "one; two"}
    for text in (
        'sep=;\nPath;Label;Caption\na.png;cat;"one; two"\n',
        ",path,label,caption\n0,a.png,cat,one; two\n",
        HEAD.strip() + ",,\r\n\r\na.png,cat,one; two,,\r\n,,,,\r\n",
        "path,height,label,license_url,caption\na.png,9,cat,u,one; two\n",
    ):
        path.write_text(text)
        assert _rows(path) == [row], text


def test_numbers_keep_their_digits_and_columns_nobody_uses_do_no_harm(tmp_path: Path) -> None:
    lines, table = tmp_path / "r.jsonl", tmp_path / "r.parquet"
    lines.write_text(f'{{"path": "a.png", "label": {"9" * 5000}, "x": {{"y": 1, "y": [2]}}}}\n')
    assert _rows(lines)[0]["label"] == "9" * 5000
    odd = {
        "when": pa.array([2**31 - 1, 1], pa.int32()).cast(pa.date32()),
        "image": pa.array([b"\xff" * 5_000_000] * 2),
        "nested": pa.array([{"path": "x"}] * 2),
    }
    pq.write_table(pa.table({"path": ["a", "b"], "label": pa.array([1e18, None])} | odd), table)
    assert [row["label"] for row in _rows(table)] == ["1000000000000000000", ""]
    for kind in (
        pa.list_(pa.string()),
        pa.bool_(),
        pa.timestamp("us"),
        pa.struct([("a", pa.string())]),
    ):
        pq.write_table(pa.table({"path": ["a"], "label": pa.array([None], kind)}), table)
        with pytest.raises(ManifestError, match="column `label`: found the type"):
            _rows(table)


def test_pairs_and_styles_are_read_as_strictly_as_contents(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("Content;Style\na.png;b.png\n")
    assert [row.id for row in list_pairs(PairList(str(path))).styles] == ["b.png"]
    path.write_text("content,style,caption\na.png,b.png,x, y\n")
    with pytest.raises(ManifestError, match="row 1: found 4 cells"):
        list_pairs(PairList(str(path)))
    path.write_text("path,height\na.png,3\n")
    listed = list_images(open_source(str(path), "styles"))
    assert listed.items
    assert listed.sources.by_field["styles"].types == {"height": "int64"}
