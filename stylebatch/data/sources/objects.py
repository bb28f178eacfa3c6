"""Objects in a column or JSON key `objects`, as detection data sets of `datasets` and our own outputs have them.

    {"bbox": [[x, y, width, height], ...], "category": ["cat", ...], ...}       lists with an entry for each object
    [{"bbox": [x, y, width, height], "category": "cat"}, ...]                   or an object each

Beside them `segmentation` (polygons, or run lengths), `keypoints` and `iscrowd`, as in COCO, `difficult` and `truncated`; in pixels of
the picture as it is displayed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stylebatch.data.sources.regions import FLAGS, Region, box_of, keypoints_of, numbers, polygon_of
from stylebatch.data.sources.run_lengths import mask_of

KEY = "objects"
NAMES = ("category", "categories", "category_name", "label", "labels", "name", "category_id")
"""Keys that may hold the category, the first that is there."""
SHAPES = ("bbox", "segmentation", "keypoints")
BESIDE = ("iscrowd", *FLAGS)
FURTHER = (*BESIDE, "counts", "size")
"""`counts` and `size` are those of run lengths, in our own outputs, where the type of `segmentation` is that of polygons."""


def is_objects(found: Any) -> bool:
    """Whether a value is such a description of objects; one without any is."""
    if isinstance(found, list):
        return all(isinstance(one, dict) and _has_shape(one) for one in found)
    return isinstance(found, dict) and (not found or _has_shape(found))


def regions_of(found: Any, names: Sequence[str] = ()) -> tuple[Region, ...]:
    """The objects. `names`: of categories that are numbers. Raises ValueError, naming the object, for what cannot be read."""
    return tuple(_regions(found, names))


def regions_of_cell(row: dict[str, str]) -> tuple[Region, ...]:
    """Objects of a table's row, which then lacks the column. Raises ValueError for what cannot be read."""
    if KEY not in row:
        return ()
    try:
        found = json.loads(row[KEY] or "[]")
    except (ValueError, RecursionError):
        return ()
    if not is_objects(found):
        return ()
    del row[KEY]
    return regions_of(found)


def _regions(found: Any, names: Sequence[str]) -> Iterator[Region]:
    for number, one in enumerate(found if isinstance(found, list) else _each(found), 1):
        try:
            yield _region(one, names)
        except (ValueError, TypeError) as error:
            raise ValueError(f"object {number}: {error}") from None


def _has_shape(found: Mapping[str, Any]) -> bool:
    return any(name in found for name in SHAPES)


def _each(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of lists, of which one for each object is looked at; empty lists stand for nothing given."""
    lists = {name: value for name, value in found.items() if isinstance(value, list) and value}
    # others may call their lists so
    has_lengths = all(isinstance(one, str) for one in lists.get("counts", [0]))
    known = {*SHAPES, *NAMES, *(FURTHER if has_lengths else BESIDE)}
    read = {name: value for name, value in lists.items() if name in known}
    if len({len(value) for value in read.values()}) > 1:
        counts = ", ".join(f"{len(value)} {name}" for name, value in read.items())
        raise ValueError(f"found {counts}; accepted: as many of each")
    for values in zip(*read.values(), strict=True):
        yield dict(zip(read, values, strict=True))


def _region(one: Any, names: Sequence[str]) -> Region:
    box, shape, points = (one.get(name) for name in SHAPES)
    polygons = shape if isinstance(shape, list) else []
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]
    lengths = shape if isinstance(shape, dict) else one
    counts = lengths.get("counts")
    is_given = bool(counts) and (lengths is shape or isinstance(counts, str | bytes))
    mask = mask_of(counts, lengths.get("size")) if is_given else None
    if points and isinstance(points[0], list):
        points = [number for point in points for number in point]
    if not box and mask is not None:
        box = list(mask.box or ())
    region = Region(
        _category(one, names),
        box_of(numbers(box, 4)) if box else None,
        tuple(polygon_of(numbers(polygon)) for polygon in polygons),
        keypoints_of(numbers(points)) if points else (),
        is_crowd=bool(one.get("iscrowd")),
        flags=tuple(one[name] in (1, "1", "true", "True") for name in FLAGS)
        if set(FLAGS) <= one.keys()
        else (),
        mask=mask,
    )
    if region.box is None and not region.polygons and not region.keypoints:
        raise ValueError("found no bbox; accepted: x, y, width, height")
    return region


def _category(one: Mapping[str, Any], names: Sequence[str]) -> str:
    found = next((one[name] for name in NAMES if one.get(name) is not None), "")
    if type(found) is int and names:
        if not 0 <= found < len(names):
            raise ValueError(f"category: found {found}; accepted: a number below {len(names)}")
        return names[found]
    if not isinstance(found, str | int):
        raise ValueError(f"category: found {str(found)[:40]}; accepted: a name or a number")
    return str(found).strip()
