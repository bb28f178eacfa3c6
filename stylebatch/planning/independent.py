"""Sampled pairings in which every content draws from all styles: diverse at any size, at an inversion for nearly every sample.

The run has contents x k uses, numbered; consecutive ones take consecutive styles of a shuffled cycle, so that every style is met
equally often.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from stylebatch.planning.grid import Block, Groups
from stylebatch.planning.shuffles import shuffled
from stylebatch.spec.pairing import Sampling

_CYCLE = 3
"""A stream of random numbers that no other purpose shares."""


@lru_cache(maxsize=8)
def _cycle(seed: int, num_styles: int, number: int) -> NDArray[np.intp]:
    return shuffled(num_styles, _CYCLE, seed, number)


@dataclass(frozen=True)
class IndependentGrid:
    """Each content with k styles of its own draw.

    A group of rows is one block, or several where its styles are more than `columns`.
    """

    rows: Groups
    num_styles: int
    columns: int
    drawn: Sampling

    @property
    def num_samples(self) -> int:
        return self.rows.total * self.drawn.per_content

    @property
    def num_blocks(self) -> int:
        return self._first_blocks[-1]

    @property
    def uses_per_style(self) -> list[int]:
        """How often the style that is met least is met, and the one that is met most."""
        return [self.num_samples // self.num_styles, math.ceil(self.num_samples / self.num_styles)]

    @property
    def samples_per_block(self) -> int:
        """Of the largest block."""
        tallest = math.ceil(self.rows.total / self.rows.count)
        return tallest * min(self.drawn.per_content, self.columns)

    def block(self, number: int) -> Block:
        row = bisect_right(self._first_blocks, number) - 1
        styles, pairs = self._blocks(row)[number - self._first_blocks[row]]
        return Block(number, self.rows.members(row), styles, pairs)

    def num_samples_before(self, block: int) -> int:
        row = bisect_right(self._first_blocks, block) - 1
        # one past the last block: all samples stand before it
        if row == self.rows.count:
            return self.num_samples
        earlier = block - self._first_blocks[row]
        within = sum(len(pairs) for _, pairs in self._blocks(row)[:earlier]) if earlier else 0
        return self.rows.start(row) * self.drawn.per_content + within

    def styles_of(self, content: int) -> tuple[int, ...]:
        """The k styles of a content, in the order they were drawn."""
        row = self.rows.group_of(content)
        return tuple(self._styles(row)[content - self.rows.start(row)].tolist())

    @cached_property
    def _first_blocks(self) -> list[int]:
        """Number of the first block of each group of rows, and of all blocks."""
        counts = (math.ceil(self._num_styles_of(r) / self.columns) for r in range(self.rows.count))
        return list(accumulate(counts, initial=0))

    def _num_styles_of(self, row: int) -> int:
        """Styles of a group; perhaps fewer, but not if that would save a block."""
        first, stop = (self.rows.start(r) * self.drawn.per_content for r in (row, row + 1))
        return min(self.num_styles, stop - first)

    def _blocks(self, row: int) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
        """(styles, pairs) of each block of a group."""
        drawn = np.sort(self._styles(row), axis=1).tolist()
        pairs = [(c, s) for c, styles in enumerate(drawn, self.rows.start(row)) for s in styles]
        pool = sorted({style for _, style in pairs})
        columns = Groups.of_at_most(len(pool), self.columns)
        blocks = []
        for column in range(columns.count):
            styles = tuple(pool[i] for i in columns.members(column))
            # the pool is sorted, so that a block has the styles between two of them
            lowest, highest = styles[0], styles[-1]
            blocks.append((styles, tuple(pair for pair in pairs if lowest <= pair[1] <= highest)))
        return blocks

    def _styles(self, row: int) -> NDArray[np.intp]:
        """The k styles of each content of a group: an array (contents, k).

        A cycle is redrawn when contents and cycle end together. Within one, k consecutive uses, wherever they begin, are of
        different styles.
        """
        k = self.drawn.per_content
        uses = np.arange(self.rows.start(row) * k, self.rows.start(row + 1) * k, dtype=np.int64)
        # redrawn where a content ends, never within one: it might meet a style twice
        period = math.lcm(self.num_styles, k)
        cycles = range(int(uses[0]) // period, int(uses[-1]) // period + 1)
        order = np.stack([_cycle(self.drawn.seed, self.num_styles, cycle) for cycle in cycles])
        return order[uses // period - cycles.start, uses % period % self.num_styles].reshape(-1, k)
