"""Annotated objects go where the pixels go: turned upright, cut, scaled and laid as the picture is.

Coordinates are continuous: (0, 0) is the upper left corner of the first pixel, (1, 1) its lower right one. They are exact, and
rounded to a thousandth of a pixel at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from stylebatch.data.pictures.orientation import TURNS
from stylebatch.data.sources.regions import Box, Keypoint, Region
from stylebatch.data.sources.run_lengths import Mask
from stylebatch.data.view import Bounds, Points, View, scale_to

DIGITS = 3


def fitted(
    regions: Iterable[Region], view: View, *, min_visibility: float, name: str
) -> tuple[Region, ...]:
    """The objects as they are in the rendered picture, in their order, without those of which too little is left.

    Boxes and polygons are cut at its border; keypoints beyond get visibility 0; of masks the nearest pixels count. `min_visibility`:
    the share of an object's box that must be within. Raises SampleError for annotations of a picture with other proportions; `name`
    is the image's.
    """
    found = (_fitted(region, view, min_visibility, name) for region in regions)
    return tuple(region for region in found if region is not None)


def _fitted(region: Region, view: View, min_visibility: float, name: str) -> Region | None:
    outlines = [view.placed(_pairs(polygon), region, name) for polygon in region.polygons]
    points = view.placed(
        np.array([(x, y) for x, y, _ in region.keypoints]).reshape(-1, 2), region, name
    )
    whole = _whole_box(region, view, outlines, points, name)
    if whole is None:
        return None
    box = _cut(whole, view.bounds)
    if box is None or _area(box) < min_visibility * _area(whole):
        return None
    polygons = [_clipped(outline, view.bounds) for outline in outlines]
    polygons = [polygon for polygon in polygons if _polygon_area(polygon) > 0]
    mask = None if region.mask is None else _fitted_mask(region.mask, view, name)
    # the corner of a box may be within where nothing of the object is
    if (region.polygons and not polygons) or (mask is not None and not mask.area):
        return None
    box = _rounded(box)
    if not _area(box):
        return None
    keypoints = tuple(
        _keypoint(x, y, seen, view.bounds)
        for (x, y), (_, _, seen) in zip(points.tolist(), region.keypoints, strict=True)
    )
    return replace(
        region,
        box=box,
        polygons=tuple(_flat(polygon) for polygon in polygons),
        keypoints=keypoints,
        mask=mask,
        is_relative=False,
        frame=view.transform.size,
    )


def unseen(regions: Iterable[Region], view: View, name: str) -> int:
    """How many of the objects have nothing within the picture that they are of, or no area, whatever is cut from it.

    Raises SampleError as `fitted`.
    """
    whole = view.whole
    return sum(_fitted(region, whole, 0.0, name) is None for region in regions)


def _fitted_mask(mask: Mask, view: View, name: str) -> Mask:
    pixels = mask.pixels
    if mask.size != view.displayed and mask.size == view.stored:
        pixels = np.asarray(Image.fromarray(pixels).transpose(TURNS[view.orientation]))
    elif mask.size != view.displayed:
        scale_to(mask.size, view.displayed, name)  # refuses that of another picture
    return Mask.of(view.nearest(pixels, 0))


def _whole_box(
    region: Region, view: View, outlines: Sequence[Points], points: Points, name: str
) -> Box | None:
    """The box in the rendered picture before it is cut: that of the region, else around its polygons or keypoints."""
    if region.box is not None:
        left, top, width, height = region.box
        corners = [(left, top), (left + width, top + height)]
        around = view.placed(np.array(corners, dtype=np.float64), region, name)
    elif outlines:
        around = np.concatenate(outlines)
    else:
        around = points[[seen > 0 for _, _, seen in region.keypoints]]
    if not len(around):
        return None
    (left, top), (right, bottom) = around.min(axis=0), around.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _cut(box: Box, bounds: Bounds) -> Box | None:
    """What of a box is within a picture; None for nothing."""
    left, top, width, height = box
    right, bottom = min(left + width, bounds[2]), min(top + height, bounds[3])
    cut = max(left, bounds[0]), max(top, bounds[1])
    if right <= cut[0] or bottom <= cut[1]:
        return None
    return cut[0], cut[1], right - cut[0], bottom - cut[1]


def _keypoint(x: float, y: float, seen: int, bounds: Bounds) -> Keypoint:
    # COCO has 0, 0 for points that are not labelled
    if not seen or not (bounds[0] <= x < bounds[2] and bounds[1] <= y < bounds[3]):
        return 0.0, 0.0, 0
    return round(x, DIGITS), round(y, DIGITS), seen


def _clipped(outline: Points, bounds: Bounds) -> list[tuple[float, float]]:
    """A polygon cut at the border of a picture (Sutherland-Hodgman). Parts that fall apart stay joined along the border."""
    found = [(float(x), float(y)) for x, y in outline]
    for place, limit in enumerate(bounds):
        # of left, top, right, bottom the first two have the picture beyond them
        found = list(_beyond(found, place % 2, float(limit), 1.0 if place < 2 else -1.0))
    return found


def _beyond(
    polygon: Sequence[tuple[float, float]], axis: int, limit: float, sign: float
) -> Iterator[tuple[float, float]]:
    """The part of a polygon on one side of a line that is parallel to an axis."""
    for place, end in enumerate(polygon):
        start = polygon[place - 1]
        before, after = sign * (start[axis] - limit), sign * (end[axis] - limit)
        if (before < 0) != (after < 0):
            share = before / (before - after)
            other = start[1 - axis] + share * (end[1 - axis] - start[1 - axis])
            yield (limit, other) if axis == 0 else (other, limit)
        if after >= 0:
            yield end


def area_of(region: Region) -> float:
    """Square pixels: of its mask or polygons, else of its box."""
    if region.mask is not None:
        return float(region.mask.area)
    if region.polygons:
        pairs = (_pairs(polygon).tolist() for polygon in region.polygons)
        return round(sum(_polygon_area([(x, y) for x, y in pair]) for pair in pairs), DIGITS)
    return round(region.area, DIGITS)


def _polygon_area(polygon: Sequence[tuple[float, float]]) -> float:
    """By the shoelace formula."""
    twice = sum(polygon[i - 1][0] * y - x * polygon[i - 1][1] for i, (x, y) in enumerate(polygon))
    return abs(twice) / 2


def _area(box: Box) -> float:
    return box[2] * box[3]


def _rounded(box: Box) -> Box:
    left, top, width, height = (round(number, DIGITS) for number in box)
    return left, top, width, height


def _pairs(polygon: Sequence[float]) -> Points:
    return np.asarray(polygon, dtype=np.float64).reshape(-1, 2)


def _flat(polygon: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(round(number, DIGITS) for point in polygon for number in point)
