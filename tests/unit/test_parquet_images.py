"""Rows of Parquet that hold images: which columns are meant, what is read of them, and what is wrong by file, row and column."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylebatch.data.image_section import SourceOptions, SourceSpec
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError, SampleError
from tests.support.packed import encoded

PNG = encoded(1)


def listed(path: object, **options: Any) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))


def structs(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": encoded(first + i), "path": f"{i}.png"} for i in range(count)]


def written(path: Path, columns: dict[str, Any], *, rows: int = 2, **features: Any) -> Path:
    """A file of row groups of `rows`, with `datasets`' features where some are given."""
    table = pa.table(columns)
    if features:
        info = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def test_rows_of_the_hub_are_read_with_their_class_names(tmp_path: Path) -> None:
    columns = {
        "image": structs(5), "label": [1, 0, -1, None, 1], "caption": ["a", "b", "", None, "e"],
        "license": ["cc0-1.0", None, "", "", ""], "width": [48, 48, 48, 48, 48], "tags": [["x"]] * 5,
    }  # fmt: skip
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}  # fmt: skip
    for name, first in (("train-00000-of-00002", 0), ("train-00001-of-00002", 5)):
        written(tmp_path / f"data/{name}.parquet", columns | {"image": structs(5, first)}, **features)  # fmt: skip
    found = listed(tmp_path)
    assert found.notes == ("contents: read as parquet",)
    assert [(i.id, i.label, i.caption, i.license) for i in found.items][:4] == [
        ("data/train-00000-of-00002.parquet/1", "dog", "a", "cc0-1.0"),
        ("data/train-00000-of-00002.parquet/2", "cat", "b", ""),
        ("data/train-00000-of-00002.parquet/3", "", "", ""),
        ("data/train-00000-of-00002.parquet/4", "", "", ""),
    ]
    source, items = pickle.loads(pickle.dumps((found.sources, found.items)))
    for order in (range(10), reversed(range(10)), [3, 9, 0, 4, 5]):
        for i in order:
            assert source.read(items[i].ref) == encoded(i)
    assert source.by_field["contents"].further(items[6]) == {"width": 48, "tags": ["x"]}
    assert (items[4].ref.uri.partition("\0")[2], items[4].ref.member) == ("2", "0")


def test_bytes_and_names_that_are_given_are_read_by_any_way_to_the_files(tmp_path: Path) -> None:
    columns = {"jpg": [PNG, encoded(2)], "key": ["1", "2"], "text": [["t", "u"], []], "class": ["x", "y"]}  # fmt: skip
    path = written(tmp_path / "p/0.parquet", columns)
    for where in (path, tmp_path / "p", tmp_path / "p/*.parquet", tmp_path / "p/{0..0}.parquet"):
        found = listed(where, label="class", caption="text")
        assert [(i.id, i.label, i.caption) for i in found.items] == [
            ("0.parquet/1", "x", "t"),
            ("0.parquet/2", "y", ""),
        ]
    assert [found.sources.read(i.ref) for i in found.items] == columns["jpg"]


def test_a_table_of_paths_stays_a_table(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.parquet", {"path": [b"a.png"], "thumbnail": [PNG]})
    assert listed(path).notes[0] == "contents: read as table"
    assert listed(path, kind="parquet", image="thumbnail").items[0].id == "rows.parquet/1"


def test_only_columns_that_are_used_are_read(tmp_path: Path) -> None:
    """Of a file whose image column is damaged all is listed, and the images alone fail."""
    path = written(tmp_path / "x.parquet", {"image": structs(4), "label": ["a"] * 4}, rows=4)
    found = listed(path)
    with pq.ParquetFile(path) as table:
        chunk = table.metadata.row_group(0).column(0)
    start, count = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size  # fmt: skip
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    assert [i.id for i in listed(path).items] == [i.id for i in found.items]
    with pytest.raises((SampleError, OSError)):
        found.sources.read(found.items[0].ref)


def test_a_licence_of_the_manifest_is_no_column(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", {"jpg": [PNG], "license": ["cc0-1.0"]})
    source = open_source(str(path), "contents", SourceSpec(path=str(path), license="CC-BY"))
    assert [item.license for item in list_images(source).items] == ["cc0-1.0"]


def test_structs_of_bytes_alone_may_be_empty(tmp_path: Path) -> None:
    cells = pa.array([{"bytes": PNG}, {"bytes": None}, None], pa.struct([("bytes", pa.binary())]))
    found = listed(written(tmp_path / "x.parquet", {"image": cells}))
    assert [item.id for item in found.items] == ["x.parquet/1"]


def test_rows_without_an_image_are_passed_over(tmp_path: Path) -> None:
    columns = {"jpg": [PNG, None, encoded(2)], "status": ["success", "failed", "success"]}
    found = listed(written(tmp_path / "x.parquet", columns))
    assert [i.id for i in found.items] == ["x.parquet/1", "x.parquet/3"]
    assert found.sources.read(found.items[1].ref) == encoded(2)
    assert "1 passed over: 1 row without an image" in " ".join(found.notes)
    (tmp_path / "beside.png").write_bytes(encoded(7))
    cells = [
        {"bytes": PNG, "path": None},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": "../out.png"},
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    found = listed(written(tmp_path / "y.parquet", {"image": pa.array(cells, kind)}, rows=4))
    assert [i.id[-1] for i in found.items] == ["1", "2", "4"]
    assert found.sources.read(found.items[1].ref) == encoded(7)
    with pytest.raises(SampleError, match="does not lie beside the table"):
        found.sources.read(found.items[2].ref)


@pytest.mark.parametrize(
    ("columns", "options", "told"),
    [
        ({"a": [PNG], "b": [PNG]}, {}, r"contents\.image: .*the columns a, b .*`image: a`"),
        ({"image": [PNG], "x": [1]}, {"image": "imge"}, r"contents\.image: .*'imge', which it lacks; did you mean 'image'"),
        ({"image": [PNG], "x": [1]}, {"image": "x"}, "which holds no bytes"),
        ({"image": [PNG], "lable": ["x"]}, {}, r"contents\.label: .*column `lable`; did you mean `label`\? .*`label: lable`"),
        ({"image": [PNG], "fine": ["x"]}, {"label": "fin"}, r"contents\.label: .*no column 'fin'; did you mean 'fine'"),
        ({"image": [PNG], "label": [True]}, {}, "column `label`: found the type bool"),
        ({"image": [PNG], "label": [{"a": 1}]}, {}, "column `label`: found the type struct"),
        ({"image": [PNG], "caption": [b"\xff"]}, {}, r"row 1: caption: found 1 bytes that are not UTF-8"),
        ({"image": ["a.png"]}, {}, "no column with images"),
    ],
)  # fmt: skip
def test_columns_that_are_not_as_meant_are_named(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    path = written(tmp_path / "x.parquet", columns)
    with pytest.raises(ManifestError, match=told) as caught:
        listed(path, **{"kind": "parquet"} | options)
    assert "x.parquet" in str(caught.value)


def test_class_numbers_without_a_name_are_named_by_row(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat"], "_type": "ClassLabel"}}
    path = written(tmp_path / "x.parquet", {"image": structs(3), "label": [0, 0, 5]}, **features)
    with pytest.raises(ManifestError, match=r"x\.parquet: row 3: label: found 5; accepted: a class number below 1"):  # fmt: skip
        listed(path)


@pytest.mark.parametrize("cut", [0, 4, 300, -20, -1])
def test_damaged_files_are_named_or_counted(tmp_path: Path, cut: int) -> None:
    whole = written(tmp_path / "p/0.parquet", {"image": structs(2)})
    (tmp_path / "p/1.parquet").write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(ManifestError, match=r"/1\.parquet: cannot be read as Parquet: "):
        listed(tmp_path / "p")
    found = listed(tmp_path / "p", damaged="pass_over")
    assert len(found.items) == 2
    assert "1 damaged file" in " ".join(found.notes)


def test_splits_in_file_names_are_not_mixed(tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00001", "data/test-00000-of-00001"):
        written(tmp_path / f"{name}.parquet", {"image": structs(1)})
    with pytest.raises(ManifestError, match=r"contents\.split: .*splits test, train"):
        listed(tmp_path)
    assert [i.id for i in listed(tmp_path, split="test").items] == [
        "data/test-00000-of-00001.parquet/1"
    ]


def test_a_file_that_shrinks_after_it_was_listed_fails_its_samples(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", {"image": structs(6)})
    found = listed(path)
    written(path, {"image": structs(1)})
    for item in found.items[1:]:
        with pytest.raises(SampleError, match="fewer rows than when it was listed"):
            found.sources.read(item.ref)
