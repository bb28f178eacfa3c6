"""Columns of annotated objects, as COCO and `datasets` have them, and of the transform that they and the pixels went through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from stylebatch.data.geometry import Transform
from stylebatch.data.labels import area_of
from stylebatch.data.sources.regions import FLAGS, Region
from stylebatch.data.sources.run_lengths import Mask

OBJECTS = pa.struct(
    [
        ("bbox", pa.list_(pa.list_(pa.float64()))),
        ("category", pa.list_(pa.string())),
        ("category_id", pa.list_(pa.int64())),
        ("area", pa.list_(pa.float64())),
        ("iscrowd", pa.list_(pa.int64())),
        ("segmentation", pa.list_(pa.list_(pa.list_(pa.float64())))),
        ("keypoints", pa.list_(pa.list_(pa.float64()))),
    ]
)
"""Lists with an entry for each object. `bbox`: x, y, width, height; `category_id`: as `cls`, -1 for a name that is no class."""
FURTHER = {
    **dict.fromkeys(FLAGS, pa.list_(pa.int64())),
    "counts": pa.list_(pa.string()),
    "size": pa.list_(pa.list_(pa.int64())),
}
"""Fields of objects in runs whose inputs have such (`objects.NAME` of `Plan.input_columns`). `counts`: COCO's run lengths, "" of an object
without; `size`: height and width of those.
"""
TRANSFORM = pa.struct(
    [
        ("crop", pa.list_(pa.float64())),
        ("scale", pa.list_(pa.float64())),
        ("offset", pa.list_(pa.int64())),
        ("orientation", pa.int64()),
    ]
)
"""A point of the upright picture is at (point - crop[:2]) * scale + offset. `orientation`: 1..8, how the file is made upright."""
NO_OBJECTS: dict[str, Any] = {field.name: [] for field in OBJECTS}
NO_MASK = Mask("", (0, 0))
NO_TRANSFORM: dict[str, Any] = {"crop": [], "scale": [], "offset": [], "orientation": 1}
CLASSES = ("category_id",)
"""Fields that hold class numbers."""


def objects_type(columns: Iterable[str]) -> pa.DataType:
    """The type of objects in a run with these columns."""
    return pa.struct([*OBJECTS, *((name, FURTHER[name]) for name in object_fields(columns))])


def object_fields(columns: Iterable[str]) -> list[str]:
    """Further fields of objects, in the order of the columns that name them."""
    return [name.removeprefix("objects.") for name in columns if name.startswith("objects.")]


def objects_value(
    regions: Iterable[Region], classes: Mapping[str, int], columns: Iterable[str] = ()
) -> dict[str, Any]:
    """The column's value for objects in pixels of the rendered picture. `classes`: numbers by name; `columns`: of the run."""
    fields = object_fields(columns)
    found: dict[str, list[Any]] = {name: [] for name in (*NO_OBJECTS, *fields)}
    for region in regions:
        assert region.box is not None, "every object that is fitted has a box"
        found["bbox"].append(list(region.box))
        found["category"].append(region.label)
        found["category_id"].append(classes.get(region.label, -1))
        found["area"].append(area_of(region))
        found["iscrowd"].append(int(region.is_crowd))
        found["segmentation"].append([list(polygon) for polygon in region.polygons])
        # one type in the list: a reader of JSON would take 2 and 2.0 for two
        found["keypoints"].append([float(n) for point in region.keypoints for n in point])
        for name, value in _further(region):
            if name in found:
                found[name].append(value)
    return found


def _further(region: Region) -> Iterator[tuple[str, Any]]:
    # objects of one run may come from files that tell of flags and from others
    yield from zip(FLAGS, map(int, region.flags or (False, False)), strict=True)
    mask = region.mask or NO_MASK
    yield from (("counts", mask.counts), ("size", [mask.size[1], mask.size[0]]))


def transform_value(transform: Transform, orientation: int) -> dict[str, Any]:
    """The column's value."""
    left, top, width, height = map(float, transform.crop)
    return {
        "crop": [left, top, width, height],
        "scale": [transform.scaled[0] / width, transform.scaled[1] / height],
        "offset": list(transform.offset),
        "orientation": orientation,
    }
