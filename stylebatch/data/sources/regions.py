"""Annotated objects of an image: what checks them, and which label they give the whole image."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stylebatch.data.sources.run_lengths import Mask

Box = tuple[float, float, float, float]
"""Left, top, width, height."""
FLAGS = ("difficult", "truncated")
Keypoint = tuple[float, float, int]
"""x, y, and 0 for unlabelled, 1 for hidden, 2 for visible."""


@dataclass(frozen=True, slots=True)
class Region:
    """An annotated object of an image: in pixels of the picture as it is displayed, or in fractions of its sides where `is_relative`.

    `polygons`: x, y, x, y, ... each. `frame`: width and height that the annotations give for the picture; where these are those
    of the stored pixels of a picture that is displayed turned, the region is turned with it. `is_crowd`: several objects as one.
    `mask`: its pixels, where annotations give run lengths. `flags`: whether it is difficult, and truncated, where annotations tell.
    """

    label: str
    box: Box | None = None
    polygons: tuple[Sequence[float], ...] = ()
    keypoints: tuple[Keypoint, ...] = ()
    is_relative: bool = False
    frame: tuple[int, int] | None = None
    is_crowd: bool = False
    flags: tuple[bool, ...] = ()
    mask: Mask | None = None

    @property
    def area(self) -> float:
        """Of the box; 0 without one."""
        return self.box[2] * self.box[3] if self.box else 0.0

    @property
    def has_shape(self) -> bool:
        """Whether more than a box is drawn."""
        return bool(self.polygons or self.mask or any(seen for *_, seen in self.keypoints))

    @property
    def is_flat(self) -> bool:
        """Whether its box has no area."""
        return self.box is not None and not (self.box[2] and self.box[3])

    @property
    def is_outside(self) -> bool:
        """Whether nothing of its box is within the picture, as far as the annotations tell."""
        frame = (1, 1) if self.is_relative else self.frame
        if self.box is None or frame is None:
            return False
        left, top, width, height = self.box
        return left >= frame[0] or top >= frame[1] or left + width <= 0 or top + height <= 0


def label_of(regions: Sequence[Region]) -> str:
    """The label that all objects have; else the most frequent one, of several such the one that covers most.

    >>> label_of([Region("cat", (0, 0, 2, 2)), Region("dog", (0, 0, 3, 3))])
    'dog'
    """
    counts, areas = Counter[str](), Counter[str]()
    for region in regions:
        counts[region.label] += 1
        areas[region.label] += region.area  # type: ignore[assignment]
    # The label comes last, so that a tie ends the same way for every order of objects.
    return min(counts, key=lambda label: (-counts[label], -areas[label], label), default="")


def numbers(given: Any, count: int | None = None) -> list[float]:
    """`given` as finite numbers, `count` of them. Raises ValueError, telling what was found."""
    # Python's JSON takes NaN, and its bools are ints.
    if not isinstance(given, list) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in given
    ):
        raise ValueError(f"found {str(given)[:80]}; accepted: a list of numbers")
    if count is not None and len(given) != count:
        raise ValueError(f"found {len(given)} numbers; accepted: {count}")
    return [float(n) for n in given]


def frame_of(width: Any, height: Any) -> tuple[int, int] | None:
    """The size that annotations give for a picture; None where they give none that can be."""
    try:
        sides = int(width), int(height)
    except (TypeError, ValueError, OverflowError):
        return None
    # some programs write 0 for what they do not know
    return sides if min(sides) > 0 else None


def box_of(given: Sequence[float]) -> Box:
    """Left, top, width, height. Raises ValueError for a width or height below 0."""
    left, top, width, height = given
    if width < 0 or height < 0:
        raise ValueError(f"found the box {list(given)}; accepted: width and height from 0")
    return left, top, width, height


def polygon_of(given: Sequence[float]) -> Sequence[float]:
    """Packed, since a million polygons have a hundred million numbers. Raises ValueError for no three points."""
    if len(given) < 6 or len(given) % 2:
        raise ValueError(
            f"found a polygon of {len(given)} numbers; accepted: x, y of three points or more"
        )
    return array("d", given)


def keypoints_of(given: Sequence[float]) -> tuple[Keypoint, ...]:
    """Threes of x, y, visibility. Raises ValueError for other numbers."""
    if len(given) % 3 or any(v not in (0, 1, 2) for v in given[2::3]):
        raise ValueError(
            f"found {len(given)} numbers of keypoints; accepted: x, y and 0, 1 or 2 for each"
        )
    return tuple(zip(given[::3], given[1::3], map(int, given[2::3]), strict=True))


def without(found: Iterable[tuple[str, Any]], *names: str) -> dict[str, Any]:
    """The pairs whose name is none of `names`."""
    return {name: value for name, value in found if name not in names}
