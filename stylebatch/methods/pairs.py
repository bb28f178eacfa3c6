"""Which contents meet which styles in a block, and styles that are blends of several images."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """P (content, style) index pairs of a block, sorted by style then content."""

    content: tuple[int, ...]
    style: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.content) != len(self.style) or list(self.style) != sorted(self.style):
            raise ValueError("pairs are given sorted by style, as many contents as styles")

    @classmethod
    def product(cls, num_contents: int, num_styles: int) -> Pairs:
        return cls(
            tuple(range(num_contents)) * num_styles,
            tuple(s for s in range(num_styles) for _ in range(num_contents)),
        )

    def batches(self, size: int) -> list[Pairs]:
        """Cut into batches of at most `size` pairs, whole styles together where they fit."""
        whole = [
            [i for i, style in enumerate(self.style) if style == s]
            for s in dict.fromkeys(self.style)
        ]
        cut: list[list[int]] = []
        for group in whole:
            if cut and len(cut[-1]) + len(group) <= size:
                cut[-1] += group
            else:
                cut += [group[i : i + size] for i in range(0, len(group), size)]
        return [
            Pairs(tuple(self.content[i] for i in part), tuple(self.style[i] for i in part))
            for part in cut
        ]


@dataclass(frozen=True)
class Mixture:
    """A style made of inverted images: their `rows`, each once, and `weights` above 0 that sum to 1."""

    rows: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.weights) or len(set(self.rows)) != len(self.rows):
            raise ValueError(
                f"mixture: found rows {self.rows} with weights {self.weights}; accepted: each row once, a weight for each"
            )
        total = math.fsum(self.weights)
        if not self.rows or min(self.weights) <= 0.0 or abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"mixture: found weights {self.weights}; accepted: above 0, with the sum 1"
            )

    @property
    def is_blend(self) -> bool:
        return len(self.rows) > 1
