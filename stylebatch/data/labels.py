"""Annotated objects go where the pixels go: turned upright, cut, scaled and laid as the picture is.

Coordinates are continuous: (0, 0) is the upper left corner of the first pixel, (1, 1) its lower right one. They are exact, and
rounded to a thousandth of a pixel at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stylebatch.data.geometry import Transform
from stylebatch.data.sources.regions import Box, Keypoint, Region
from stylebatch.errors import SampleError

Points = NDArray[np.float64]
Bounds = tuple[int, int, int, int]
"""Left, top, right, bottom."""
DIGITS = 3
TOLERANCE = 0.02
"""How far the proportions of the picture that was annotated may differ from those of the one at hand."""


@dataclass(frozen=True)
class View:
    """How a picture came to its place in the rendered one.

    `displayed`: width and height upright; `orientation`: 1..8, as EXIF has it, from the stored pixels to those.
    """

    displayed: tuple[int, int]
    orientation: int
    transform: Transform

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the pixels as they are in the file."""
        width, height = self.displayed
        return (height, width) if self.orientation >= 5 else (width, height)

    @property
    def bounds(self) -> Bounds:
        """What of the rendered picture shows the source: all but padding."""
        (x, y), (wide, tall), size = (
            self.transform.offset,
            self.transform.scaled,
            self.transform.size,
        )
        return max(x, 0), max(y, 0), min(x + wide, size[0]), min(y + tall, size[1])

    def placed(self, points: Points, region: Region, name: str) -> Points:
        """Points of a region in the rendered picture. Raises SampleError where they are of another picture."""
        if region.is_relative:
            upright = points * self.displayed
        elif region.frame is None or region.frame == self.displayed:
            upright = points
        elif region.frame == self.stored:
            upright = _turned(points, region.frame, self.orientation)
        else:
            upright = points * _scale(region.frame, self.displayed, name)
        return self.transform.points(upright)


def fitted(
    regions: Iterable[Region], view: View, *, min_visibility: float, name: str
) -> tuple[Region, ...]:
    """The objects as they are in the rendered picture, in their order, without those of which too little is left.

    Boxes and polygons are cut at its border; keypoints beyond get visibility 0. `min_visibility`: the share of an object's box
    that must be within. Raises SampleError for annotations of a picture with other proportions; `name` is the image's.
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
    # the corner of a box may be within where nothing of the object is
    if region.polygons and not polygons:
        return None
    keypoints = tuple(
        _keypoint(x, y, seen, view.bounds)
        for (x, y), (_, _, seen) in zip(points.tolist(), region.keypoints, strict=True)
    )
    return replace(
        region,
        box=_rounded(box),
        polygons=tuple(_flat(polygon) for polygon in polygons),
        keypoints=keypoints,
        is_relative=False,
        frame=view.transform.size,
    )


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
    """What of a box is within a picture; None for nothing. A box without area is a point or line, and is within or not."""
    left, top, width, height = box
    right, bottom = min(left + width, bounds[2]), min(top + height, bounds[3])
    cut = max(left, bounds[0]), max(top, bounds[1])
    if (
        right < cut[0]
        or bottom < cut[1]
        or (_area(box) > 0 and (right == cut[0] or bottom == cut[1]))
    ):
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
    """Square pixels: of its polygons, else of its box."""
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


def _turned(points: Points, stored: tuple[int, int], orientation: int) -> Points:
    """Points of the stored pixels in the upright picture; `stored`: width and height."""
    (width, height), x, y = stored, points[:, 0], points[:, 1]
    columns = {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }.get(orientation, (x, y))
    return np.stack(columns, axis=1)


def _scale(frame: tuple[int, int], displayed: tuple[int, int], name: str) -> NDArray[np.float64]:
    """From a picture that was annotated at another size. Raises SampleError where it was another picture."""
    across, down = displayed[0] / frame[0], displayed[1] / frame[1]
    if abs(across / down - 1) > TOLERANCE:
        raise SampleError(
            "objects",
            f"{name}: its objects are those of a picture of {frame[0]} x {frame[1]} pixels; accepted: annotations of its own "
            f"{displayed[0]} x {displayed[1]}, or of that size in proportion",
        )
    return np.array([across, down])
