"""The pairs of contents and styles of a block, and styles that are blends of several images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def by_style(contents: Sequence[int], styles: Sequence[int]) -> list[int]:
    """Places of pairs in the order of `Pairs`: those of one style lie together, so that its keys and values are shared without copies."""
    return sorted(range(len(styles)), key=lambda i: (styles[i], contents[i]))


def back_in_order(sorted_pairs: Tensor, order: Sequence[int]) -> Tensor:
    """Rows (P, ...) that `order` has sorted, where they were before."""
    place = torch.empty(len(order), dtype=torch.long)
    place[torch.tensor(order)] = torch.arange(len(order))
    return sorted_pairs[place.to(sorted_pairs.device)]


@dataclass(frozen=True)
class Pairs:
    """P (content, style) index pairs of a block, sorted by style then content.

    `gammas`, `taus`: a value for each pair where the method's option is a range, else nothing.
    """

    content: tuple[int, ...]
    style: tuple[int, ...]
    gammas: tuple[float, ...] = ()
    taus: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.content) != len(self.style) or list(self.style) != sorted(self.style):
            raise ValueError("pairs are given sorted by style, as many contents as styles")
        for name, values in (("gammas", self.gammas), ("taus", self.taus)):
            if len(values) not in (0, len(self.content)):
                raise ValueError(
                    f"{name}: found {len(values)}; accepted: {len(self.content)}, one for each pair, or none"
                )

    @classmethod
    def product(cls, num_contents: int, num_styles: int) -> Pairs:
        return cls(
            tuple(range(num_contents)) * num_styles,
            tuple(s for s in range(num_styles) for _ in range(num_contents)),
        )

    def batches(self, size: int, multiple: int = 1) -> list[Pairs]:
        """Cut into batches of at most `size` pairs, whole styles together where they fit.

        Of a number of batches that is a `multiple`, as far as there are pairs, and then of about equal size.
        """
        cut = self._whole_styles(size)
        if multiple > 1:
            count = min(len(self.style), -(-len(cut) // multiple) * multiple)
            cut = self._whole_styles(-(-len(self.style) // count))
            if len(cut) != count:
                ends = [len(self.style) * part // count for part in range(count + 1)]
                cut = [list(range(start, end)) for start, end in pairwise(ends)]
        return [self._select(part) for part in cut]

    def _whole_styles(self, size: int) -> list[list[int]]:
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
        return cut

    def _select(self, places: list[int]) -> Pairs:
        def chosen(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[i] for i in places) if values else ()

        return Pairs(
            *map(chosen, (self.content, self.style)), *map(chosen, (self.gammas, self.taus))
        )


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
        # quotients: their sum is 1 up to rounding
        if not self.rows or min(self.weights) <= 0.0 or abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"mixture: found weights {self.weights}; accepted: above 0, with the sum 1"
            )

    @property
    def is_blend(self) -> bool:
        return len(self.rows) > 1
