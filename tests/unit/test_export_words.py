"""Expressions, lists of keys and originals of exports, each by itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from stylebatch.data.image_section import ImageFormat
from stylebatch.errors import ManifestError
from stylebatch.export.export_options import read_keys
from stylebatch.export.expressions import Expression
from stylebatch.export.originals import original
from stylebatch.store.label_columns import NO_OBJECTS, OBJECTS
from tests.support.sink_records import SCHEMA, jpeg, record

SCHEMA_OF_OBJECTS = pa.schema([*SCHEMA, pa.field("objects", OBJECTS)])
OF_OBJECTS = pa.Table.from_pylist(
    [
        record(0).row | {"objects": NO_OBJECTS | {"category": names, "area": areas}, "seed": 1}
        for names, areas in ((["dog", "cat"], [9.0, 4.0]), (["cat"], [4.0]))
    ],
    SCHEMA_OF_OBJECTS,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("strukture > 0.4", "did you mean structure"),
        ("label = cat", "texts stand in single quotes"),
        ("structure >", "syntax error"),
        ("structure > 0.4) or (true", "syntax error"),
        ("structure > 0.4; select 1", "(more than one|single SELECT)"),
        ("structure", "found a value of type DOUBLE"),
        ("avg(structure) > 0.1", "(about one record|Aggregates cannot)"),
        ("structure > avg(structure) over ()", "found OVER"),
        ("structure > (select 1)", "found SELECT"),
        ("exists (select 1 from 'x.csv')", "found SELECT"),
        ("structure > 'high'", "onvert"),
        ("no_such_function(structure)", "no_such_function"),
        ("", "without selection"),
        ("objects.categry = ['cat']", "found no field 'categry' of objects; did you mean category"),
        ("object.category = ['cat']", "found no column 'object'; did you mean objects"),
        ("len([a for a in objects.area if b > 1]) > 0", "found no column 'b'"),
    ],
)
def test_an_expression_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=f"--where.*{said}"):
        Expression(text, SCHEMA_OF_OBJECTS).of(OF_OBJECTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("list_contains(objects.category, 'dog')", [True, False]),
        ("list_contains(objects['category'], 'dog')", [True, False]),
        ("'cat' in OBJECTS.Category", [True, True]),
        ("len(list_filter(objects.area, lambda area: area > 5)) > 0", [True, False]),
        ("len([area for area in objects.area if area > seed]) > 1", [True, False]),
    ],
)
def test_an_expression_may_ask_for_objects(text: str, expected: list[bool]) -> None:
    assert Expression(text, SCHEMA_OF_OBJECTS).of(OF_OBJECTS)[0].tolist() == expected


def test_lists_of_keys_are_read_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes("\ufeff000000001\r\n\n  000000004 \r\n000000001".encode())
    assert read_keys(str(tmp_path / "keys.txt")) == ("000000001", "000000004")
    (tmp_path / "wrong.txt").write_text("000000001\n000000002,000000003\n")
    with pytest.raises(ManifestError, match=r"wrong.txt: line 2: found '000000002,"):
        read_keys(str(tmp_path / "wrong.txt"))
    with pytest.raises(ManifestError, match="no such file"):
        read_keys(str(tmp_path))


def test_originals_have_the_ending_of_the_results(tmp_path: Path) -> None:
    sample = record(0)
    members = {"png": b"", "content.jpg": jpeg(3), "style.jpg": jpeg(4)}
    row, pictures = original(sample.row, members, ImageFormat(format="png"))
    assert list(pictures) == ["png", "content.jpg", "style.jpg"]
    with Image.open(io.BytesIO(pictures["png"])) as png, Image.open(io.BytesIO(jpeg(3))) as content:
        assert np.array_equal(np.asarray(png), np.asarray(content))
        assert (png.format, row["width"], row["height"]) == ("PNG", *content.size)
