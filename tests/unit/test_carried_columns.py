"""Further columns of every kind of source: one type for a run, values that have it, names that meet none of ours."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.further import JSON, Kinds, value_as
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.data.sources.source import Item, Sources
from stylebatch.errors import ManifestError
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.carried import MOST_COLUMNS, carried_columns, notes_on_carried
from stylebatch.store.records import TYPES, as_json, schema_of
from tests.support.packed import encoded, tar

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=2), SCALARS, max_size=2),
    st.lists(st.lists(st.floats(0, 1), max_size=2), max_size=2),
)
ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), min_size=1, max_size=8)


def learned(rows: list[dict[str, Any]], *, as_texts: bool = False) -> dict[str, str]:
    kinds = Kinds()
    for row in rows:
        kinds.add_texts(row) if as_texts else kinds.add(row)
    return kinds.types()


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_values_have_the_type_of_their_column_whatever_is_listed(
    rows: list[dict[str, Any]], seed: int
) -> None:
    types = learned(rows)
    shuffled = rows[:]
    random.Random(seed).shuffle(shuffled)
    assert learned(shuffled) == types
    for name, kind in types.items():
        values = [value_as(row.get(name), kind) for row in rows]
        assert None not in values
        arrow = pa.string() if kind == JSON else TYPES[kind]
        assert pa.array(values, arrow).null_count == 0
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
        if kind in ("int64", "bool"):
            assert values == [row[name] for row in rows]
        if kind == JSON:
            for row, value in zip(rows, values, strict=True):
                if isinstance(row.get(name), list | dict):
                    json.loads(value)


CELLS = st.one_of(
    st.sampled_from(["", "1", "-3", "007", "2.5", "1e3", "true", "False", "9" * 25, "nan", "x", ".5", "1_0", "0.10"]),
    st.text(max_size=3),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(cells=st.lists(CELLS, min_size=1, max_size=6))
def test_cells_of_a_table_keep_what_they_say(cells: list[str]) -> None:
    types = learned([{"a": cell} for cell in cells], as_texts=True)
    if not types:
        assert not any(cells)
        return
    values = [value_as(cell, types["a"]) for cell in cells]
    assert pa.array(values, TYPES[types["a"]]).null_count == 0
    if types["a"] == "int64":
        assert [str(value) for value in values] == [cell.replace("-0", "0") for cell in cells]
    elif types["a"] == "double":
        assert values == [float(cell) for cell in cells]
        assert not any(map(math.isnan, values))
    elif types["a"] == "string":
        assert values == [cell.replace("\0", "") for cell in cells]


def test_numbers_with_gaps_are_texts_and_digits_stay() -> None:
    kinds = learned(
        [{"a": 1, "b": 1, "c": 2.0, "d": [1]}, {"a": 2.5, "c": None, "d": []}, {"a": 3, "b": 5}]
    )
    assert kinds == {"a": "double", "b": "string", "c": "string", "d": "list<int64>"}
    assert [value_as(value, "string") for value in (1, 2.0, None, True, 2.5)] == [
        "1",
        "2",
        "",
        "true",
        "2.5",
    ]
    assert learned([{"zip": "04109"}, {"zip": "80331"}], as_texts=True) == {"zip": "string"}


PIXELS = [encoded(i) for i in range(3)]
ROW = [{"year": 1900 + i, "note": "n" * i, "score": i / 2, "tags": ["t"] * i} for i in range(3)]
TYPED = {"year": "int64", "note": "string", "score": "double", "tags": "list<string>"}
TABLE = TYPED | {"tags": "string"}
"""In the cells of a table a list is JSON text."""


def as_tar(folder: Path) -> str:
    members: dict[str, Any] = {}
    for i, row in enumerate(ROW):
        members |= {f"{i}.png": PIXELS[i], f"{i}.json": {**row, "label": "cat"}}
    return str(tar(folder / "a.tar", members))


def as_parquet(folder: Path) -> str:
    folder.mkdir()
    rows = [
        {"image": {"bytes": PIXELS[i], "path": "x"}, "label": "cat", **row}
        for i, row in enumerate(ROW)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return str(folder / "a.parquet")


def as_folder(folder: Path, *, table: bool) -> str:
    folder.mkdir()
    for i, row in enumerate(ROW):
        (folder / f"{i}.png").write_bytes(PIXELS[i])
        if not table:
            (folder / f"{i}.json").write_text(json.dumps(row))
    if table:
        lines = [json.dumps({"file_name": f"{i}.png", **row}) for i, row in enumerate(ROW)]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)


def as_table(folder: Path) -> str:
    as_folder(folder, table=False)
    lines = [json.dumps({"path": f"{i}.png", **row}) for i, row in enumerate(ROW)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


def as_coco(folder: Path) -> tuple[str, dict[str, Any]]:
    images = [{"file_name": f"{i}.png", "id": i, **row} for i, row in enumerate(ROW)]
    as_folder(folder, table=False)
    (folder / "a.json").write_text(json.dumps({"images": images}))
    return str(folder), {"annotations": str(folder / "a.json")}


def opened(kind: str, folder: Path, **options: Any) -> tuple[Sources, list[Item]]:
    more: dict[str, Any] = {}
    if kind == "coco":
        uri, more = as_coco(folder)
    elif kind == "tar":
        uri = as_tar(folder)
    elif kind == "parquet":
        uri = as_parquet(folder)
    elif kind == "table":
        uri = as_table(folder)
    else:
        uri = as_folder(folder, table=kind == "metadata")
    listed = list_images(open_source(uri, "contents", SourceOptions(**more, **options)))
    return listed.sources, listed.items


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder", "metadata", "table", "coco"])
def test_every_kind_of_source_carries_its_columns(kind: str, tmp_path: Path) -> None:
    sources, items = opened(kind, tmp_path / "in")
    source = sources.by_field["contents"]
    expected = TABLE if kind in ("metadata", "table") else TYPED
    assert {name: kind for name, kind in source.types.items() if name != "id"} == expected
    for item, row in zip(items, ROW, strict=True):
        found = source.further(item)
        values = {name: value_as(found.get(name), kind) for name, kind in expected.items()}
        told = row | {"tags": json.dumps(row["tags"])} if expected is TABLE else row
        assert values == told
    assert source.__class__  # the label is a label, and no further column
    assert "label" not in source.types


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder", "metadata", "table"])
def test_carry_names_columns_or_none(kind: str, tmp_path: Path) -> None:
    axes = (ImageAxis("content", ()), ImageAxis("style", ()))

    def carried(name: str, **options: Any) -> list[str]:
        sources, _ = opened(kind, tmp_path / name, **options)
        return [one.column for one in carried_columns(axes, sources, StyleIDOptions())]

    assert carried("none", carry=()) == []
    assert carried("one", carry=("year",)) == ["year"]
    assert set(carried("all")) == set(TYPED)
    with pytest.raises(
        ManifestError,
        match=r"contents\.carry: .*found 'yaer', which no image has; did you mean 'year'",
    ):
        carried("slip", carry=("yaer",))


def test_names_that_records_have_get_another(tmp_path: Path) -> None:
    rows = [
        {
            "seed": 1,
            "Width": 2,
            "structure": 3,
            "gamma": 4,
            "content_seed": 5,
            "year": 6,
            "objects": "x",
        }
    ]
    members: dict[str, Any] = {"0.png": PIXELS[0], "0.json": rows[0]}
    contents = list_images(open_source(str(tar(tmp_path / "c.tar", members)), "contents"))
    styles = list_images(open_source(str(tar(tmp_path / "s.tar", members)), "styles"))
    axes = (ImageAxis("content", tuple(contents.items)), ImageAxis("style", tuple(styles.items)))
    sources = contents.sources | styles.sources
    found = carried_columns(axes, sources, StyleIDOptions())
    names = {(one.axis, one.name): one.column for one in found}
    assert {names[0, "seed"], names[0, "content_seed"]} == {"content_source_seed", "content_seed"}
    assert (names[0, "Width"], names[0, "gamma"], names[0, "year"]) == (
        "content_Width",
        "content_gamma",
        "year",
    )
    assert (names[1, "year"], names[0, "objects"]) == ("style_year", "content_objects")
    assert len({one.column.lower() for one in found}) == 14
    schema = schema_of(StyleIDOptions(), carried={one.column: one.kind for one in found})
    assert len(set(map(str.lower, schema.names))) == len(schema.names)
    told = " ".join(notes_on_carried(found, axes, sources))
    assert "contents: columns carried to the records: Width as content_Width" in told


def test_too_many_columns_are_told_and_not_carried(tmp_path: Path) -> None:
    row = {f"c{i}": i for i in range(MOST_COLUMNS + 1)}
    path = tar(tmp_path / "c.tar", {"0.png": PIXELS[0], "0.json": row})
    listed = list_images(open_source(str(path), "contents"))
    axes = (ImageAxis("content", tuple(listed.items)),)
    assert carried_columns(axes, listed.sources, StyleIDOptions()) == ()
    assert "201 further columns, which is too many" in " ".join(
        notes_on_carried((), axes, listed.sources)
    )


def test_gaps_and_odd_numbers_of_parquet_are_seen_while_it_is_listed(tmp_path: Path) -> None:
    rows = {
        "image": [{"bytes": PIXELS[0], "path": "x"}] * 3,
        "whole": pa.array([1, 2, 3], pa.int16()), "gaps": [1, None, 3], "nan": [0.5, math.nan, 1.0],
        "huge": pa.array([2**64 - 1, 0, 1], pa.uint64()), "half": pa.array([0.5, 1, 2], pa.float32()),
        "nested": [{"a": [1]}, None, {"a": []}], "raw": [b"x", b"y", b"z"], "nothing": [None, None, None],
        "word": pa.array(["a", "b", "a"]).dictionary_encode(), "day": pa.array([0, 1, None], pa.date32()),
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    listed = list_images(
        open_source(str(tmp_path / "a.parquet"), "contents", SourceOptions(image="image"))
    )
    source = listed.sources.by_field["contents"]
    assert source.types == {
        "whole": "int64", "gaps": "string", "nan": "string", "huge": "string", "half": "double",
        "nested": JSON, "word": "string", "day": "string",
    }  # fmt: skip
    found = [source.further(item) for item in listed.items]
    values = [{n: value_as(one[n], kind) for n, kind in source.types.items()} for one in found]
    assert values[1] == {
        "whole": 2, "gaps": "", "nan": "", "huge": "0", "half": 1.0, "nested": "", "word": "b", "day": "1970-01-02",
    }  # fmt: skip
    assert values[0]["nested"] == '{"a": [1]}'
    assert values[0]["huge"] == str(2**64 - 1)


def test_a_record_with_carried_columns_is_plain_json() -> None:
    carried = {"a": "list<double>", "b": "list<bool>", "objects": "objects"}
    schema = schema_of(StyleIDOptions(), carried=carried)
    row: dict[str, Any] = dict.fromkeys(schema.names, "")
    row |= dict.fromkeys((f.name for f in schema if pa.types.is_floating(f.type)), 1)
    row |= {
        "a": value_as([1, 2.5], "list<double>"),
        "b": [True],
        "objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]]},
    }
    found = json.load(io.BytesIO(as_json(row, schema)))
    assert found["a"] == [1.0, 2.5]
    assert isinstance(found["a"][0], float)
    assert found["objects"]["bbox"] == [[1.0, 2.0, 3.0, 4.0]]
