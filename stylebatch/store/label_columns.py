"""Columns of annotated objects, as COCO and `datasets` have them, and of the transform that they and the pixels went through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from stylebatch.data.geometry import Transform
from stylebatch.data.labels import area_of
from stylebatch.data.sources.regions import Region

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
NO_TRANSFORM: dict[str, Any] = {"crop": [], "scale": [], "offset": [], "orientation": 1}
CLASSES = ("category_id",)
"""Fields that hold class numbers."""


def objects_value(regions: Iterable[Region], classes: Mapping[str, int]) -> dict[str, Any]:
    """The column's value for objects in pixels of the rendered picture. `classes`: numbers by name."""
    found: dict[str, list[Any]] = {name: [] for name in NO_OBJECTS}
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
    return found


def transform_value(transform: Transform, orientation: int) -> dict[str, Any]:
    """The column's value."""
    left, top, width, height = map(float, transform.crop)
    return {
        "crop": [left, top, width, height],
        "scale": [transform.scaled[0] / width, transform.scaled[1] / height],
        "offset": list(transform.offset),
        "orientation": orientation,
    }
