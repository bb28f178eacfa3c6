"""Sampled pairings: every content with k different styles, every style equally often, from pools that several groups share.

Which styles a pool holds, and which of them a content gets, is drawn by seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from stylebatch.planning.grid import Block, Groups, Visits
from stylebatch.planning.pools import Group, Limits, Pool, Rounds
from stylebatch.planning.shuffles import random_words, shuffled
from stylebatch.spec.pairing import Sampling

_BASE, _ROUND, _GROUP = range(4, 7)
"""Streams of random numbers, so that no two purposes share one."""


@dataclass(frozen=True)
class SampledPools:
    """A grid of `num_contents` x k pairs; a block is a group of contents with the styles of its pool.

    `rows`, `columns`: of a block at most.
    """

    num_contents: int
    num_styles: int
    rows: int
    columns: int
    drawn: Sampling

    @property
    def num_samples(self) -> int:
        return self.num_contents * self.drawn.per_content

    @property
    def num_blocks(self) -> int:
        return self._rounds.blocks_before(self._rounds.count)

    @property
    def uses_per_style(self) -> list[int]:
        """How often the style that is met least is met, and the one that is met most."""
        return [self.num_samples // self.num_styles, math.ceil(self.num_samples / self.num_styles)]

    @property
    def visits(self) -> Visits:
        """Of all blocks in order. Where pools are wider than a block, a few inversions may be spared by chance."""
        return self._rounds.visits

    @property
    def is_one_block_wide(self) -> bool:
        """Whether every group of contents is one block."""
        return self._rounds.are_one_block_wide

    @property
    def num_rows_used(self) -> int:
        return self.num_contents

    @property
    def num_columns_used(self) -> int:
        """Styles that take part: all, where there are as many uses."""
        return min(self.num_styles, self.num_samples)

    @property
    def samples_per_block(self) -> int:
        """Of the largest block at most."""
        if self.is_one_block_wide:
            return max(self.visits.samples)
        return min(self.rows, self.num_contents) * min(self.drawn.per_content, self.columns)

    def block(self, number: int) -> Block:
        round_number = self._rounds.of_block(number)
        within = number - self._rounds.blocks_before(round_number)
        pool, block = self._rounds[round_number].pool_of_block(within)
        part = pool.part(block)
        dealt = self._dealt(round_number, pool, part.group)
        # ascending, as a block has its columns; turns are taken in the drawn order
        styles = np.sort(self._styles(round_number, pool))
        if not pool.is_one_block_wide:
            met = np.unique(dealt)
            styles = met[list(Groups(len(met), part.num_parts).members(part.number))]
        first = self._rounds.contents_before(round_number) + part.group.first_content
        lowest, highest = styles[0], styles[-1]
        return Block(
            number,
            tuple(range(first, first + part.group.num_contents)),
            tuple(styles.tolist()),
            tuple(
                (content, style)
                for content, row in enumerate(np.sort(dealt, axis=1).tolist(), first)
                for style in row
                if lowest <= style <= highest
            ),
        )

    def num_samples_before(self, block: int) -> int:
        if block == self.num_blocks:
            return self.num_samples
        number = self._rounds.of_block(block)
        pool, inner = self._rounds[number].pool_of_block(block - self._rounds.blocks_before(number))
        uses = pool.first_use + pool.part(inner).group.first_use
        before = self._rounds.contents_before(number) * self.drawn.per_content + uses
        # a group of several blocks splits its uses by styles, which no arithmetic tells
        while inner and pool.part(inner - 1).group == pool.part(inner).group:
            inner, block = inner - 1, block - 1
            before += len(self.block(block).cells)
        return before

    def styles_of(self, content: int) -> tuple[int, ...]:
        """The k styles of a content."""
        number = self._rounds.of_content(content)
        inner = content - self._rounds.contents_before(number)
        found: list[int] = []
        for pool in self._rounds[number].pools_of_content(inner):
            group = pool.group_of(inner)
            found += self._dealt(number, pool, group)[inner - group.first_content].tolist()
        return tuple(found)

    @cached_property
    def _rounds(self) -> Rounds:
        limits = Limits(self.drawn.per_content, self.rows, self.columns)
        return Rounds.of(self.num_contents, self.num_columns_used, limits)

    def _styles(self, round_number: int, pool: Pool) -> NDArray[np.intp]:
        """The styles of a pool in the order in which they take turns."""
        last = self._rounds[round_number].pools[-1].num_styles
        order = _order(self.drawn.seed, self.num_styles, self.num_columns_used, last, round_number)
        return order[pool.first_style : pool.first_style + pool.num_styles]

    def _dealt(self, round_number: int, pool: Pool, group: Group) -> NDArray[np.intp]:
        """Styles of each content of a group: an array (contents, styles of each).

        Uses, sorted by style, are dealt to the contents in turn. A style has no more uses than there are contents, so
        nobody gets it twice.
        """
        styles, height = self._styles(round_number, pool), group.num_contents
        # by place in the pool: counts differ by one at most over any stretch of groups
        turns = np.arange(group.first_use, group.first_use + group.num_uses) % len(styles)
        counts = np.bincount(turns, minlength=len(styles))
        words = random_words(
            len(styles) + height, _GROUP, self.drawn.seed, round_number, group.first_content
        )
        order, contents = words[: len(styles)].argsort(), words[len(styles) :].argsort()
        return np.repeat(styles[order], counts[order]).reshape(-1, height).T[contents]


@lru_cache(maxsize=4)
def _order(
    seed: int, num_styles: int, walked: int, last: int, round_number: int
) -> NDArray[np.intp]:
    """The `walked` styles in the order of a round, whose last pool has `last` of them.

    One style is in the last pool of every round. So the last pool of a round is never the first of the next, which a
    worker would keep: inversions can be counted without a look at each round.
    """
    drawn = shuffled(num_styles, _BASE, seed)[:walked]
    *_, place = words = random_words(walked, _ROUND, seed, round_number)
    order = drawn[1:][np.argsort(words[:-1], kind="stable")]
    return np.insert(order, walked - 1 - int(place % np.uint64(last)), drawn[0])
