"""Measures of a rendered image, alone or compared with its inputs. Arrays are uint8 (H, W, 3) sRGB.

`MEASURES` is the table of measures in every sample's record, computed on 64 x 64 reductions; the other functions keep full
resolution. A further row in the table is a further column in records, reports, gallery and card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylebatch.pixel_memory import image_of

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

REDUCED_SIDE = 64
LUMA = np.array([0.299, 0.587, 0.114])
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
WHITE_D65 = RGB_TO_XYZ.sum(axis=1)

ROLES = {"kept": ("content", "image"), "look": ("style", "reference")}
"""Role -> kinds of inputs that may have it: `kept` gives the structure, `look` the style. The first kind wins."""


@dataclass(frozen=True)
class Measure:
    """A column of the records, null for a failed sample.

    `name`, `unit`, `digits`: how a value is shown; `range`: lowest and highest possible value. `needs`: roles of the inputs
    that it compares with; a run without such inputs has no such column. `says`: an explanation, with `{kept}` and `{look}`
    for those inputs. `of`: its function of the reduced result and inputs, finite for every picture.
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
    if pixels.shape == (REDUCED_SIDE, REDUCED_SIDE, 3):
        return _ordered_lab_of(pixels.tobytes())
    ordered: Floats = np.sort(srgb_to_lab(pixels).reshape(-1, 3), axis=0)
    return ordered


@lru_cache(maxsize=64)
def _ordered_lab_of(data: bytes) -> Floats:
    """Of a reduced picture, kept: a style is compared with many results."""
    pixels = np.frombuffer(data, np.uint8).reshape(REDUCED_SIDE, REDUCED_SIDE, 3)
    ordered: Floats = np.sort(srgb_to_lab(pixels).reshape(-1, 3), axis=0)
    ordered.flags.writeable = False
    return ordered


def luma(pixels: Pixels) -> Floats:
    """(H, W, 3) -> (H, W), 0 to 255, weights of ITU-R BT.601."""
    result: Floats = pixels @ LUMA
    return result


def srgb_to_lab(pixels: Pixels) -> Floats:
    """(H, W, 3) sRGB -> (H, W, 3) L* 0 to 100, a*, b*: IEC 61966-2-1 decoding and matrix, then CIE 1976 L*a*b*, white D65."""
    xyz = _LINEAR[pixels] @ (RGB_TO_XYZ / WHITE_D65[:, None]).T
    delta = 6.0 / 29.0
    f = np.where(xyz > delta**3, np.cbrt(xyz), xyz / (3.0 * delta**2) + 4.0 / 29.0)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _linear_of_code() -> Floats:
    """(256,): linear light of each sRGB code, 0 to 1, by the transfer function of IEC 61966-2-1."""
    value = np.arange(256) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR = _linear_of_code()  # indexed by pixels: 256 powers instead of one per pixel


def reduced(pixels: Pixels) -> Pixels:
    """As the table measures it; of what is reduced already, the same."""
    if pixels.shape == (REDUCED_SIDE, REDUCED_SIDE, 3):
        return pixels
    size = (REDUCED_SIDE, REDUCED_SIDE)
    # reducing_gap: a fast integer reduction first, which a box filter makes almost exact
    return np.asarray(image_of(pixels).resize(size, Image.Resampling.BOX, reducing_gap=1.0))


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
        "correlation of edges with the {kept}, higher keeps more", lambda result, kept: edge_correlation(kept, result),
    ),
    Measure(
        "color_distance", "colour distance", "Lab units", 1, (0, math.inf), ("look",),
        "distance of colours from the {look} in Lab units, lower is closer", lambda result, look: lab_color_distance(look, result),
    ),
    Measure(
        "contrast", "contrast", "levels", 1, (0, 127.5), (),
        "standard deviation of luma in levels of 255, near 0 is flat", lambda result: float(luma(result).std()),
    ),
)  # fmt: skip
"""Measures of the records, in the order of their columns."""


def measures_of(kinds: Collection[str]) -> list[Measure]:
    """The measures of a run with these kinds of inputs."""
    return [measure for measure in MEASURES if measure.compared(kinds) is not None]


def measured(result: Pixels, inputs: Mapping[str, Pixels]) -> dict[str, float]:
    """The measures of one sample by column; `inputs` by kind, images of any sizes."""
    small, kinds = reduced(result), {kind: reduced(pixels) for kind, pixels in inputs.items()}
    return {
        measure.column: measure.of(small, *(kinds[kind] for kind in compared.values()))
        for measure in MEASURES
        if (compared := measure.compared(kinds)) is not None
    }
