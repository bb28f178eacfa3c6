"""Listed pairs, sorted into pools: whatever the order of a list, its rows meet in the same blocks.

1. Of styles and contents, those that are fewer are *held* in pools of up to `at_once`; the others *stream* through in groups.
2. Held images that share many of the others come into one pool (`clusters.py`), so that these are inverted once for all.
3. A pool stays until `LONGEST_STAY` others for each of its images have passed, and returns: all pools advance evenly, so that
   neighbours in the list of contents stay near each other. A single pool stays to the end.
4. Rows of one group are one block, or several where they are more than `max_cells`.

All follows from the numbers of contents and styles, so these must not follow the list's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stylebatch.data.rows import Cell, ListedCells
from stylebatch.planning.clusters import Numbers, distinct, pools_of
from stylebatch.planning.grid import Block, Visits
from stylebatch.planning.pools import LONGEST_STAY


@dataclass(frozen=True, eq=False)
class ListedPools:
    """`contents`, `styles`: of each cell of `listed`. `order`: of each sample in key order, the cell it is.

    `first_samples` of each block, `first_blocks` of each group, `first_groups` of each stay of a pool, and the end of each.
    `held`, cut by `first_held` for each stay, and `streamed`, cut by `first_streamed` for each group, are styles and
    contents, or contents and styles where these are fewer (`holds_contents`).
    """

    listed: Sequence[Cell]
    contents: Numbers
    styles: Numbers
    order: Numbers
    first_samples: Numbers
    first_blocks: Numbers
    first_groups: Numbers
    held: Numbers
    first_held: Numbers
    streamed: Numbers
    first_streamed: Numbers
    holds_contents: bool

    @classmethod
    def sort(
        cls, listed: Sequence[Cell], *, max_rows: int, max_columns: int, max_cells: int
    ) -> ListedPools:
        """Blocks of at most so many contents, styles and cells of the list."""
        contents, styles = _numbers(listed)
        holds_contents = _num_distinct(contents) < _num_distinct(styles)
        held, streamed = (contents, styles) if holds_contents else (styles, contents)
        at_once, abreast = (max_rows, max_columns) if holds_contents else (max_columns, max_rows)
        # a pair as one number, so that sorting finds those that come again
        width = int(streamed.max()) + 1
        pairs, pair = distinct(held * width + streamed)
        pool = pools_of(*np.divmod(pairs, width), at_once)
        passages, passage = distinct(pool * width + pairs % width)
        sizes = np.diff(_members(pool, pairs // width)[1])
        stay = _stays(passages // width, sizes)
        group, first_groups = _groups(stay, abreast)
        group_of_cell = group[passage][pair]
        # within a group by content, then style: keys follow the images, never the list
        samples = np.lexsort((styles, contents, group_of_cell))
        first_samples, first_blocks = _blocks(group_of_cell[samples], max_cells)
        in_stay, first_held = _members(stay[passage], pairs // width)
        in_group, first_streamed = _members(group, passages % width)
        return cls(
            listed, contents, styles, samples, first_samples, first_blocks, first_groups,
            in_stay, first_held, in_group, first_streamed, holds_contents,
        )  # fmt: skip

    @property
    def num_samples(self) -> int:
        return len(self.order)

    @property
    def num_blocks(self) -> int:
        return len(self.first_samples) - 1

    def num_samples_before(self, block: int) -> int:
        return int(self.first_samples[block])

    def block(self, number: int) -> Block:
        group = int(np.searchsorted(self.first_blocks, number, side="right")) - 1
        stay = int(np.searchsorted(self.first_groups, group, side="right")) - 1
        held, streamed = self._held(stay), self._streamed(group)
        contents, styles = (held, streamed) if self.holds_contents else (streamed, held)
        samples = self.order[self.first_samples[number] : self.first_samples[number + 1]]
        cells = [self.listed[sample] for sample in samples.tolist()]
        return Block.listing(number, tuple(contents.tolist()), tuple(styles.tolist()), cells)

    @cached_property
    def visits(self) -> Visits:
        """Of all blocks in order."""
        held = np.diff(self.first_held)
        streamed = np.diff(self.first_streamed)
        blocks = np.diff(self.first_blocks)
        groups = np.diff(self.first_groups)
        inverted_held, inverted_streamed = int(held.sum()), int(streamed.sum())
        for stay, group in enumerate(self.first_groups[1:-1].tolist(), 1):
            # what a stay or group has in common with the one before is at hand
            if np.array_equal(self._held(stay - 1), self._held(stay)):
                inverted_held -= int(held[stay])
            if np.array_equal(self._streamed(group - 1), self._streamed(group)):
                inverted_streamed -= int(streamed[group])
        by_block = int((np.repeat(held, groups) * blocks).sum()), int((streamed * blocks).sum())
        inverted = inverted_held, inverted_streamed
        if not self.holds_contents:
            by_block, inverted = by_block[::-1], inverted[::-1]
        return Visits(*inverted, self._rendered, *by_block)

    @property
    def num_rows_used(self) -> int:
        return _num_distinct(self.contents)

    @property
    def num_columns_used(self) -> int:
        return _num_distinct(self.styles)

    @property
    def _rendered(self) -> Counter[int]:
        """Blocks by the pairs that they render: those alike once."""
        contents, styles = self.contents[self.order], self.styles[self.order]
        is_new = np.ones(len(self.order), dtype=np.int64)
        is_new[1:] = (contents[1:] != contents[:-1]) | (styles[1:] != styles[:-1])
        # a pair that goes on in the next block is rendered there again
        is_new[self.first_samples[:-1]] = 1
        blocks = np.bincount(np.add.reduceat(is_new, self.first_samples[:-1]))
        return Counter({pairs: count for pairs, count in enumerate(blocks.tolist()) if count})

    def _held(self, stay: int) -> Numbers:
        return self.held[self.first_held[stay] : self.first_held[stay + 1]]

    def _streamed(self, group: int) -> Numbers:
        return self.streamed[self.first_streamed[group] : self.first_streamed[group + 1]]


def _numbers(listed: Sequence[Cell]) -> tuple[Numbers, Numbers]:
    """Contents and styles of cells."""
    if isinstance(listed, ListedCells):
        return np.frombuffer(listed.rows, np.int64), np.frombuffer(listed.columns, np.int64)
    return (
        np.fromiter((cell.row for cell in listed), np.int64, len(listed)),
        np.fromiter((cell.column for cell in listed), np.int64, len(listed)),
    )


def _num_distinct(numbers: Numbers) -> int:
    return int(np.count_nonzero(np.bincount(numbers)))


def _starts(ascending: Numbers) -> Numbers:
    """Where each number of an ascending array without gaps begins, and the end."""
    return np.append(np.flatnonzero(np.diff(ascending, prepend=-1)), len(ascending))


def _members(group: Numbers, member: Numbers) -> tuple[Numbers, Numbers]:
    """The distinct members of each group, ascending, and where those of each begin; groups without gaps."""
    width = int(member.max()) + 1
    found, members = np.divmod(distinct(group * width + member)[0], width)
    return members, _starts(found)


def _stays(pool: Numbers, sizes: Numbers) -> Numbers:
    """The stay, in order, of each passage through a pool of so many images; passages of a pool lie side by side."""
    totals = np.bincount(pool)
    counts = -(-totals // (LONGEST_STAY * sizes)) if len(totals) > 1 else np.array([1])
    first = np.cumsum(counts) - counts
    place = np.arange(len(pool)) - (np.cumsum(totals) - totals)[pool]
    number = ((place + 1) * counts[pool] - 1) // totals[pool]
    pools = np.repeat(np.arange(len(counts)), counts)
    progress = (np.arange(len(pools)) - first[pools] + 0.5) / counts[pools]
    ranks = np.empty_like(pools)
    ranks[np.lexsort((pools, progress))] = np.arange(len(pools))
    stays: Numbers = ranks[first[pool] + number]
    return stays


def _groups(stay: Numbers, abreast: int) -> tuple[Numbers, Numbers]:
    """The group of each passage, at most `abreast` in one and nearly as many in all of a stay, and the first of each stay.

    Every other stay begins with what came last, which is at hand where it was the same images.
    """
    totals = np.bincount(stay)
    counts = -(-totals // abreast)
    first = np.append(0, np.cumsum(counts))
    begins = np.flatnonzero(np.diff(stay, prepend=-1))
    begin_of = np.empty_like(totals)
    begin_of[stay[begins]] = begins
    place = np.arange(len(stay)) - begin_of[stay]
    number = ((place + 1) * counts[stay] - 1) // totals[stay]
    number = np.where(stay % 2 == 0, number, counts[stay] - 1 - number)
    return first[stay] + number, first


def _blocks(group: Numbers, max_cells: int) -> tuple[Numbers, Numbers]:
    """The first sample of each block, and the first block of each group, for samples sorted by group."""
    first = _starts(group)
    counts = -(-np.diff(first) // max_cells)
    first_blocks = np.append(0, np.cumsum(counts))
    place = np.arange(first_blocks[-1]) - np.repeat(first_blocks[:-1], counts)
    starts = np.repeat(first[:-1], counts) + place * max_cells
    return np.append(starts, first[-1]), first_blocks
