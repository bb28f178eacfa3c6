"""Where a point of an input picture is in the rendered one: crop, scale and place, the same for pixels and for labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stylebatch.data.fit_modes import FitMode, NativeMode

Size = tuple[int, int]
"""Width and height in pixels."""
AREA_WEIGHT = 0.25
"""How much a wrong area counts beside wrong proportions: these are seen, an area costs time alone."""
MOST_AREA = 1.6
"""Times the wanted area: a strip of a thousand to one has its proportions only where it is as tall as one multiple."""


@dataclass(frozen=True)
class Transform:
    """Cuts `crop` (left, top, width, height) out of a picture as it is displayed, scales it to `scaled` (width, height) and lays
    it at `offset` (x, y) into a picture of `size` (width, height). All in pixels, whole ones but for the crop of a picture that was
    decoded smaller than it is.
    """

    crop: tuple[float, float, float, float]
    scaled: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    def points(self, given: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2), x and y in pixels with (0, 0) the upper left corner of the first one, in the rendered picture.

        Those that were cut off lie outside of 0..`size`.
        """
        left, top, width, height = self.crop
        scale = np.array([self.scaled[0] / width, self.scaled[1] / height])
        found: NDArray[np.float64] = (given - [left, top]) * scale + self.offset
        return found

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Pixels of the rendered picture left of, above, right of and below what is of the source."""
        (left, top), (width, height) = self.offset, self.size
        return left, top, width - left - self.scaled[0], height - top - self.scaled[1]

    def for_source_of(self, decoded: tuple[int, int], full: tuple[int, int]) -> Transform:
        """The same picture from a source of `full` size, of which `decoded` was the size that this transform is for."""
        if decoded == full:
            return self
        across, down = full[0] / decoded[0], full[1] / decoded[1]
        left, top, width, height = self.crop
        return replace(self, crop=(left * across, top * down, width * across, height * down))


def transform_of(source: Size, size: Size, mode: FitMode) -> Transform:
    """How a picture of `source` is fitted to `size`.

    `center_crop` cuts the middle out, in the proportions of `size`; `pad` lays the whole into the middle of `size`; the others change
    the proportions, `fit` and `keep` hardly: there `size` is the picture's own, from `fitted_size`.
    """
    (width, height), (own_width, own_height) = size, source
    crop = (0, 0, own_width, own_height)
    if mode == "center_crop":
        # One side stays whole, the other follows the proportions: the minimum tells which.
        wide = min(own_width, round(own_height * width / height))
        tall = min(own_height, round(own_width * height / width))
        crop = (round((own_width - wide) / 2), round((own_height - tall) / 2), wide, tall)
    if mode == "pad":
        wide = max(1, min(width, round(own_width * height / own_height)))
        tall = max(1, min(height, round(own_height * width / own_width)))
        offset = ((width - wide) // 2, (height - tall) // 2)
        return Transform(crop, (wide, tall), offset, size)
    return Transform(crop, size, (0, 0), size)


def fitted_size(source: Size, mode: NativeMode, area: int, multiple: int) -> Size:
    """The size of a picture of `source` by itself, sides multiples of `multiple`.

    `fit` has about `area` pixels; `keep` has the source's sides, rounded, or at most `area` pixels.

        fitted_size((3000, 2000), "fit", 512 * 512, 64) == (576, 384)
    """
    width, height = source
    if width < height:
        tall, wide = fitted_size((height, width), mode, area, multiple)
        return wide, tall
    # An area below that of one cell has no size: one cell it is.
    area = max(area, multiple**2)
    rounded = (_rounded(width, multiple), _rounded(height, multiple))
    if mode == "keep" and rounded[0] * rounded[1] <= area:
        return rounded
    wanted, most = area, MOST_AREA * area
    if mode == "keep":
        wanted, most = min(area, width * height), area
    near = [
        size for size in _sizes_near(width / height, wanted, multiple) if math.prod(size) <= most
    ]
    return min(near, key=lambda size: (_misfit(size, width / height, wanted), size))


def _rounded(side: float, multiple: int) -> int:
    return max(1, math.floor(side / multiple + 0.5)) * multiple


def _sizes_near(aspect: float, area: int, multiple: int) -> Iterator[Size]:
    """Sizes, wider than tall, of about this aspect and area: for each height near the ideal one the widths beside both."""
    cells = area / multiple**2
    ideal = math.sqrt(cells / aspect)
    for tall in range(max(1, math.floor(ideal) - 1), math.ceil(ideal) + 2):
        for across in (tall * aspect, cells / tall):
            yield from (
                (wide * multiple, tall * multiple)
                for wide in (max(1, math.floor(across)), max(1, math.ceil(across)))
            )


def _misfit(size: Size, aspect: float, area: int) -> float:
    """How far a size is from an aspect and an area, by the logarithms of what each is off."""
    width, height = size
    return abs(math.log(width / height / aspect)) + AREA_WEIGHT * abs(
        math.log(width * height / area)
    )
