"""Measures of a rendered image, alone or compared with its inputs. Arrays are uint8 (H, W, 3) sRGB.

`MEASURES` is the table of measures in every sample's record, computed on reductions (`reduction.py`); the other functions keep full
resolution. A further row in the table is a further column in records, reports, gallery and card. docs/quality.md shows what they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylebatch.pixel_memory import Pixels
from stylebatch.quality.reduction import (
    LINEAR,
    RGB_TO_XYZ,
    WHITE_D65,
    Reduction,
    correlation,
    determination,
)

Floats = NDArray[np.float64]

LUMA = np.array([0.299, 0.587, 0.114])

ROLES = {"kept": ("content", "image"), "look": ("style", "reference")}
"""Role -> kinds of inputs that may have it: `kept` gives the structure, `look` the style. The first kind wins."""


@dataclass(frozen=True)
class Measure:
    """A column of the records, null for a failed sample.

    `name`, `unit`, `digits`: how a value is shown; `range`: lowest and highest possible value. `needs`: roles of the inputs
    that it compares with; a run without such inputs has no such column. `says`: an explanation, with `{kept}` and `{look}`
    for those inputs. `of`: its function of the `Reduction` of the result and of those of the inputs, finite for every picture.
    """

    column: str
    name: str
    unit: str
    digits: int
    range: tuple[float, float]
    needs: tuple[str, ...]
    says: str
    of: Callable[..., float]

    def compared(self, kinds: Collection[str]) -> dict[str, str] | None:
        """The kind of input for each role in `needs`; None if one is missing."""
        found = {
            role: kind for role in self.needs for kind in reversed(ROLES[role]) if kind in kinds
        }
        return found if len(found) == len(self.needs) else None

    def words(self, kinds: Collection[str]) -> str:
        """The explanation for a run with these kinds of inputs, and the range."""
        low, high = self.range
        span = f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
        return f"{self.says.format(**(self.compared(kinds) or {}))}; {span}"

    def shown(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


def edge_correlation(first: Pixels, second: Pixels) -> float:
    """Pearson correlation, -1 to 1, of the luma gradient magnitudes of two images of one size; 0.0 if either has none."""
    _require_equal_shapes(first, second)
    edges = [
        magnitude - magnitude.mean()
        for magnitude in (_gradient_magnitude(first), _gradient_magnitude(second))
    ]
    scale = math.sqrt(float((edges[0] ** 2).sum()) * float((edges[1] ** 2).sum()))
    if scale < 1e-9:
        return 0.0
    # rounding may pass 1 by a last bit, and readers of the records check the range
    return max(-1.0, min(1.0, float((edges[0] * edges[1]).sum()) / scale))


def lab_color_distance(first: Pixels, second: Pixels) -> float:
    """Mean over L, a, b of the 1-D Wasserstein distance between channel values; sizes may differ, positions do not matter."""
    channels = [_ordered_lab(pixels) for pixels in (first, second)]
    count = max(len(values) for values in channels)
    matched = [values if len(values) == count else _quantiles(values, count) for values in channels]
    return float(np.abs(matched[0] - matched[1]).mean())


def _ordered_lab(pixels: Pixels) -> Floats:
    """Each channel in order, (N, 3)."""
    ordered: Floats = np.sort(srgb_to_lab(pixels).reshape(-1, 3), axis=0)
    return ordered


def luma(pixels: Pixels) -> Floats:
    """(H, W, 3) -> (H, W), 0 to 255, weights of ITU-R BT.601."""
    result: Floats = pixels @ LUMA
    return result


def srgb_to_lab(pixels: Pixels) -> Floats:
    """(H, W, 3) sRGB -> (H, W, 3) L* 0 to 100, a*, b*: IEC 61966-2-1 decoding and matrix, then CIE 1976 L*a*b*, white D65."""
    xyz = LINEAR[pixels] @ (RGB_TO_XYZ / WHITE_D65[:, None]).T
    delta = 6.0 / 29.0
    f = np.where(xyz > delta**3, np.cbrt(xyz), xyz / (3.0 * delta**2) + 4.0 / 29.0)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _gradient_magnitude(pixels: Pixels) -> Floats:
    vertical, horizontal = np.gradient(luma(pixels))
    magnitude: Floats = np.hypot(vertical, horizontal)
    return magnitude


def _quantiles(ordered: Floats, count: int) -> Floats:
    """Stretch sorted (N, 3) values to (count, 3) by the step quantile function; the distance stays within 1 / N of the range."""
    places: NDArray[np.int64] = np.arange(count) * len(ordered) // count
    stretched: Floats = np.take(ordered, places, axis=0)
    return stretched


def _require_equal_shapes(first: Pixels, second: Pixels) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"the images must have one size; found {first.shape} and {second.shape}; resize one first"
        )


MEASURES = (
    Measure(
        "structure", "structure", "", 2, (-1, 1), ("kept",),
        "correlation of edges with the {kept}, higher keeps more",
        lambda result, kept: correlation(result.edges, kept.edges),
    ),
    Measure(
        "color_distance", "colour distance", "Lab units", 1, (0, math.inf), ("look",),
        "distance of colours from the {look} in Lab units, lower is closer",
        lambda result, look: float(np.abs(result.ordered_lab - look.ordered_lab).mean()),
    ),
    Measure(
        "texture_distance", "texture distance", "", 2, (0, 1), ("look",),
        "distance of texture (scales and directions of the luma's detail) from the {look}, lower is closer",
        lambda result, look: _band_distance(result, look),
    ),
    Measure(
        "content_copy", "share copied from content", "", 2, (0, 1), ("kept",),
        "share of the {kept}'s variance that the result has at equal places in equal colours, 1 is a copy",
        lambda result, kept: determination(result, kept),
    ),
    Measure(
        "style_copy", "share copied from style", "", 2, (0, 1), ("look",),
        "share of the {look}'s variance that the result has at equal places in equal colours, 1 is a copy",
        lambda result, look: determination(result, look),
    ),
    Measure(
        "contrast", "contrast", "levels", 1, (0, 127.5), (),
        "standard deviation of luma in levels of 255, near 0 is flat", lambda result: float(result.luma.std()),
    ),
    Measure(
        "sharpness", "sharpness", "", 2, (0, 1), (),
        "difference of neighbouring pixels over that of pixels 4 apart, near 0.25 is blurred, near 1 is grain",
        lambda result: result.fine_detail,
    ),
    Measure(
        "clipping", "clipping", "", 3, (0, 1), (),
        "share of values at 0 or 255, which have lost their detail", lambda result: result.clipped,
    ),
)  # fmt: skip
"""Measures of the records, in the order of their columns."""


def _band_distance(one: Reduction, other: Reduction) -> float:
    """Total variation distance, 0 to 1, of the shares of energy in bands; 1 where one of the two has no texture."""
    if not (one.bands.any() and other.bands.any()):
        return float(one.bands.any() != other.bands.any())
    return min(1.0, float(np.abs(one.bands - other.bands).sum()) / 2.0)


def measures_of(kinds: Collection[str]) -> list[Measure]:
    """The measures of a run with these kinds of inputs."""
    return [measure for measure in MEASURES if measure.compared(kinds) is not None]


def measured(result: Reduction, inputs: Mapping[str, Reduction]) -> dict[str, float]:
    """The measures of one sample by column; `inputs` by kind, pictures of any sizes."""
    return {
        measure.column: measure.of(result, *(inputs[kind] for kind in compared.values()))
        for measure in MEASURES
        if (compared := measure.compared(inputs)) is not None
    }
