"""Objects in a column or key `objects` of tables and JSON: every usual form, and what is refused or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.data.sources.objects import is_objects, regions_of
from stylebatch.data.sources.regions import Region
from stylebatch.errors import ManifestError
from tests.support.packed import encoded, tar

LISTS: dict[str, Any] = {
    "bbox": [[1, 2, 3, 4], [0, 0, 8, 8]],
    "category": ["cat", "dog"],
    "area": [12, 64],
    "keypoints": [[1, 2, 2], []],
    "segmentation": [[[1, 2, 4, 2, 4, 6]], []],
    "iscrowd": [0, 1],
    "id": [],
}
CAT = Region("cat", (1, 2, 3, 4), ((1.0, 2.0, 4.0, 2.0, 4.0, 6.0),), ((1, 2, 2),))
DOG = Region("dog", (0, 0, 8, 8), is_crowd=True)


def plain(regions: tuple[Region, ...]) -> list[Any]:
    return [
        (r.label, r.box, [list(p) for p in r.polygons], r.keypoints, r.is_crowd) for r in regions
    ]


def each() -> list[dict[str, Any]]:
    names = [name for name, value in LISTS.items() if value]
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*filter(None, LISTS.values()), strict=True)
    ]


@pytest.mark.parametrize("found", [LISTS, each()], ids=["lists", "objects"])
def test_both_forms_say_the_same(found: Any) -> None:
    assert is_objects(found)
    assert plain(regions_of(found)) == plain((CAT, DOG))


@pytest.mark.parametrize(
    "more", [{"size": [480, 640]}, {"counts": [1, 2, 3]}, {"counts": [7, 8], "size": [[1, 2], [3, 4]]}]
)  # fmt: skip
def test_other_lists_may_be_called_as_run_lengths_are(more: dict[str, Any]) -> None:
    assert plain(regions_of(LISTS | more)) == plain((CAT, DOG))


def test_flags_may_be_numbers_or_texts() -> None:
    flags = {"difficult": ["0", "1"], "truncated": [1, 0]}
    assert [region.flags for region in regions_of(LISTS | flags)] == [(False, True), (True, False)]


@pytest.mark.parametrize("found", ["a", 3, None, ["a"], {"count": 2}, [{"count": 2}], [[1, 2]]])
def test_what_only_has_the_name_is_a_column_like_others(found: Any) -> None:
    assert not is_objects(found)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"bbox": [[1, 2, 3]]}, "object 1: found 3 numbers; accepted: 4"),
        ({"bbox": [[1, 2, 3, -4]]}, "object 1: .*width and height from 0"),
        ({"bbox": [[1, 2, 3, 4]], "category": ["a", "b"]}, "found 1 bbox, 2 category; accepted: as many of each"),
        ([{"bbox": [1, 2, 3, 4]}, {"segmentation": []}], "object 2: found no bbox"),
        ([{"bbox": [1, 2, 3, 4], "category": [3]}], "object 1: category: found"),
        ({"bbox": [[1, 2, 3, 4]], "category": [7]}, "object 1: category: found 7; accepted: a number below 2"),
        ({"segmentation": [[[1, 2, 3, 4]]]}, "object 1: found a polygon of 4 numbers"),
    ],
)  # fmt: skip
def test_broken_objects_are_named(found: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        regions_of(found, ("cat", "dog"))


def listed(path: Path) -> Listing:
    return list_images(open_source(str(path), "contents"))


def test_objects_of_tars_and_of_sidecars(tmp_path: Path) -> None:
    broken = LISTS | {"bbox": [[1]]}
    files: dict[str, Any] = {
        "a.png": encoded(0), "a.json": {"objects": LISTS, "year": 1}, "b.png": encoded(1), "b.json": {"objects": [], "year": 2},
        "c.png": encoded(2), "c.json": {"objects": broken, "year": 3},
    }  # fmt: skip
    tar(tmp_path / "t.tar", files)
    for name, data in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    for path in (tmp_path / "t.tar", tmp_path / "folder"):
        found = listed(path)
        a, b, c = found.items
        assert plain(a.regions) == plain((CAT, DOG))
        assert (b.regions, c.regions) == ((), ())
        assert "1 `objects` of .json that cannot be read (such as beside c.png)" in " ".join(
            found.notes
        )
        source = found.sources.by_field["contents"]
        assert source.types == {"year": "int64"}
        assert dict(source.further(a)) == {"year": 1}


def test_objects_of_tables(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(0))
    (tmp_path / "b.png").write_bytes(encoded(1))
    rows = [
        {"path": "a.png", "objects": LISTS},
        {"path": "b.png", "objects": {"bbox": [], "category": []}},
    ]
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    found = listed(table)
    assert [plain(item.regions) for item in found.items] == [plain((CAT, DOG)), []]
    assert found.sources.by_field["contents"].types == {}
    rows[1]["objects"] = [{"bbox": [0]}]
    table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        ManifestError, match=r"rows\.jsonl: row 2: objects: object 1: found 1 numbers"
    ):
        listed(table)


@pytest.mark.parametrize("kind", ["lists", "structs"])
def test_objects_of_datasets_with_named_categories(kind: str, tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    numbers = datasets.Value("float32")
    if kind == "lists":
        feature: Any = {
            "bbox": datasets.List(datasets.List(numbers)),
            "category": datasets.List(names),
        }
        value: Any = {"bbox": [[1, 2, 3, 4], [0, 0, 8, 8]], "category": [0, 1]}
        empty: Any = {"bbox": [], "category": []}
    else:
        feature = datasets.List({"bbox": datasets.List(numbers), "category": names})
        value = [{"bbox": [1, 2, 3, 4], "category": 0}, {"bbox": [0, 0, 8, 8], "category": 1}]
        empty = []
    features = datasets.Features(
        {"image": datasets.Image(), "objects": feature, "year": datasets.Value("int64")}
    )
    rows = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(3)], "objects": [value, empty, value], "year": [1, 2, 3],
    }  # fmt: skip
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(str(tmp_path / "a.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved"):
        found = listed(path)
        assert [[(r.label, r.box) for r in item.regions] for item in found.items] == [
            [("cat", (1, 2, 3, 4)), ("dog", (0, 0, 8, 8))], [], [("cat", (1, 2, 3, 4)), ("dog", (0, 0, 8, 8))],
        ]  # fmt: skip
        assert found.sources.by_field["contents"].types == {"year": "int64"}


def test_broken_objects_of_parquet_name_their_row(tmp_path: Path) -> None:
    kind = pa.struct([("bbox", pa.list_(pa.list_(pa.int64())))])
    rows = [
        {"image": {"bytes": encoded(0), "path": "x"}, "objects": {"bbox": [[1, 2, 3, 4][:n]]}}
        for n in (4, 3)
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.Table.from_pylist(rows, schema=pa.schema([("image", image), ("objects", kind)]))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    with pytest.raises(
        ManifestError, match=r"a\.parquet: row 2: objects: object 1: found 3 numbers"
    ):
        listed(tmp_path / "a.parquet")
