"""What each classifier is trained on: the same contents in the same number, a part of them in another guise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Guise = Literal["stylised", "colours", "unhinted"]
MIDDLE = 0.5
"""The ratio at which numbers of styles and guises are compared."""


@dataclass(frozen=True)
class Mixture:
    """`ratio` of the contents are seen in a `guise`, the others as they are; no content is seen twice.

    `stylised`: rendered with a style. `colours`: only mean and deviation of each channel are the style's, the cheap
    alternative that rendering must beat. `unhinted`: textures say nothing (cue-conflict set alone).
    """

    guise: Guise
    ratio: float
    num_styles: int

    @property
    def name(self) -> str:
        if self.ratio == 0:
            return "originals"
        noun = "style" if self.num_styles == 1 else "styles"
        styles = "" if self.guise == "unhinted" else f", {self.num_styles} {noun}"
        return f"{self.ratio:g} {self.guise}{styles}"


def mixtures(
    ratios: Sequence[float], numbers: Sequence[int], *, has_unhinted: bool
) -> list[Mixture]:
    """Every ratio with all styles, every number of styles and the colours alone at `MIDDLE`, colours at 1.

    The first one is of originals alone, whatever `ratios` has. Raises ValueError for a ratio outside 0..1.
    """
    wrong = [ratio for ratio in ratios if not 0 <= ratio <= 1]
    if wrong:
        raise ValueError(f"--ratios {wrong[0]:g}: accepted are numbers from 0 to 1")
    most = max(numbers)
    found = [Mixture("stylised", ratio, most) for ratio in sorted({0.0, MIDDLE, *ratios})]
    found += [Mixture("stylised", MIDDLE, number) for number in sorted(set(numbers))]
    found += [Mixture("colours", ratio, most) for ratio in (MIDDLE, 1.0)]
    if has_unhinted:
        found.append(Mixture("unhinted", 1.0, most))
    return list(dict.fromkeys(found))


def changed(labels: Sequence[int], ratio: float, seed: int) -> NDArray[np.bool_]:
    """Which contents are seen in the guise: round(ratio x n) of each class; those of a smaller ratio stay among them."""
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label in sorted(set(labels)):
        own = np.flatnonzero(np.asarray(labels) == label)
        order = np.random.default_rng([seed, label]).permutation(own)
        mask[order[: round(ratio * len(own))]] = True
    return mask


def style_numbers(labels: Sequence[int], num_styles: int) -> list[int]:
    """Which style each content meets, 0..num_styles - 1: equally often in every class (once more or less)."""
    seen: dict[int, int] = {}
    numbers = []
    for label in labels:
        numbers.append(seen.setdefault(label, label) % num_styles)
        seen[label] += 1
    return numbers
