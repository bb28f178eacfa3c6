"""How a picture came to its place in the rendered one, and what was drawn upon it with it: points, and arrays of labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylebatch.data.geometry import Transform
from stylebatch.data.sources.regions import Region
from stylebatch.errors import SampleError

Points = NDArray[np.float64]
Bounds = tuple[int, int, int, int]
"""Left, top, right, bottom."""
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
            upright = points * scale_to(region.frame, self.displayed, name)
        return self.transform.points(upright)

    @property
    def whole(self) -> View:
        """The view of the whole picture as it is displayed."""
        width, height = self.displayed
        transform = Transform((0, 0, width, height), self.displayed, (0, 0), self.displayed)
        return replace(self, transform=transform)

    def nearest(self, pixels: NDArray[Any], beyond: int) -> NDArray[Any]:
        """Values of an upright array, (H, W) or (H, W, C), under the centres of the rendered pixels; in padding `beyond`."""
        height, width = pixels.shape[:2]
        transform = self.transform.for_source_of(self.displayed, (width, height))
        left, top, across, down = transform.crop
        wide, tall = transform.scaled
        columns = left + (np.arange(wide) + 0.5) * (across / wide)
        rows = top + (np.arange(tall) + 0.5) * (down / tall)
        # rounding may lead past the last pixel
        at_columns = np.clip(columns.astype(int), 0, width - 1)
        at_rows = np.clip(rows.astype(int), 0, height - 1)
        scaled: NDArray[Any] = pixels[at_rows][:, at_columns]
        x, y = transform.offset
        size = transform.size
        if (wide, tall) == size and not (x or y):
            return scaled
        found = np.full((size[1], size[0], *pixels.shape[2:]), beyond, pixels.dtype)
        found[y : y + tall, x : x + wide] = scaled
        return found


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


def scale_to(frame: tuple[int, int], displayed: tuple[int, int], name: str) -> NDArray[np.float64]:
    """From a picture that was annotated at another size. Raises SampleError where it was another picture."""
    across, down = displayed[0] / frame[0], displayed[1] / frame[1]
    if abs(across / down - 1) > TOLERANCE:
        raise SampleError(
            "objects",
            f"{name}: its objects are those of a picture of {frame[0]} x {frame[1]} pixels; accepted: annotations of its own "
            f"{displayed[0]} x {displayed[1]}, or of that size in proportion",
        )
    return np.array([across, down])
