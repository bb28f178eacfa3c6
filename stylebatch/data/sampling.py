"""Sampled pairings: every content meets k styles, every style is met equally often, no table of pairs.

1. The run has contents x k uses, numbered; row r of contents owns a stretch of them.
2. A `Walk` says which style a use takes. Styles come in shuffled epochs and, where a block has not room
   for a style per use, a style takes several consecutive uses (a turn).
3. Within a row the uses, sorted by style, are dealt to the contents in turn: a style has no more uses
   there than there are contents, so nobody gets it twice, and everybody gets k.
Shuffles sort raw PCG64 words, which numpy keeps for good (it may change `Generator.permutation`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from stylebatch.data.grid import Block, Groups
from stylebatch.spec import Sampling

_BASE, _EPOCH, _ROW, _CYCLE = range(4)
"""Streams of random numbers, so that no two purposes share one."""


def _words(count: int, *key: int) -> NDArray[np.uint64]:
    return np.random.PCG64(key).random_raw(count)


def _shuffled(count: int, *key: int) -> NDArray[np.intp]:
    """0 .. count - 1 in an order that `key` decides."""
    return np.argsort(_words(count, *key), kind="stable")


@dataclass(frozen=True)
class Walk:
    """Which style each use of a run takes; over the whole run the styles walked differ by one use at most.

    `num_walked` of the styles take part. Each has `num_turns` turns, as equal as can be, or as many as
    it has uses if that is 0. Any `window` consecutive turns are of different styles.
    """

    seed: int
    num_styles: int
    num_walked: int
    num_uses: int
    num_turns: int
    window: int

    @classmethod
    def of_rows(cls, rows: Groups, num_styles: int, *, columns: int, drawn: Sampling) -> Walk:
        """The walk under which a row of contents takes at most `columns` styles, or one more than k.

        Styles are left out, as few as can be, where the rows together have not room for every style.
        Very short rows of many styles per content take more than `columns`, which costs blocks.
        """
        k = drawn.per_content
        fewest, most = rows.total // rows.count, math.ceil(rows.total / rows.count)
        uses, row_uses = rows.total * k, most * k
        room = min(num_styles, max(columns, k + 1))
        walked, turns, touched = num_styles, 0, row_uses
        shortest = math.ceil((row_uses - 1) / (room - 1)) if room < num_styles else 1
        if shortest > 1:  # turns of one use would bring more styles than there is room for
            walked = min(num_styles, max(room, uses // shortest))
            each, at_most = uses // walked, math.ceil(uses / walked)
            turns = max(each // shortest, math.ceil(at_most / fewest))
            touched = 2 + (row_uses - 2) // max(1, each // turns)
            if walked == room or turns > each or touched > walked:  # a row would meet a style twice
                turns, touched = 0, row_uses
        return cls(drawn.seed, num_styles, walked, uses, turns, min(walked, touched))

    def turn(self, use: int) -> int:
        """Number of the turn that `use` belongs to."""
        if not self.num_turns:
            return use
        each, longer = divmod(self.num_uses, self.num_walked)
        first = each // self.num_turns
        if use < longer * (first + 1):  # the first turns of the first epoch are longer by one
            return use // (first + 1)
        level, turns = (use - longer) // self.num_walked, self.num_turns
        epoch = ((level + 1) * turns - 1) // each
        start, stop = epoch * each // turns, (epoch + 1) * each // turns
        return epoch * self.num_walked + (use - longer - start * self.num_walked) // (stop - start)

    def start(self, turns: NDArray[np.int64]) -> NDArray[np.int64]:
        """First use of each of `turns`."""
        if not self.num_turns:
            return turns
        each, longer = divmod(self.num_uses, self.num_walked)
        epoch, place = np.divmod(turns, self.num_walked)
        start, stop = epoch * each // self.num_turns, (epoch + 1) * each // self.num_turns
        begun: NDArray[np.int64] = start * self.num_walked + place * (stop - start)
        return begun + np.where(epoch == 0, np.minimum(place, longer), longer)

    def turns(self, first: int, stop: int) -> NDArray[np.int64]:
        """Turns that uses first .. stop - 1 belong to."""
        return np.arange(self.turn(first), self.turn(stop - 1) + 1, dtype=np.int64)

    def styles(self, turns: NDArray[np.int64]) -> NDArray[np.intp]:
        """The style of each of `turns`, which are consecutive."""
        parts = math.ceil(self.num_walked / (self.num_walked - self.window + 1))
        first, last = int(turns[0]) // self.num_walked, int(turns[-1]) // self.num_walked
        key = (self.seed, self.num_styles, self.num_walked, parts)
        order = np.concatenate([_epoch(*key, epoch) for epoch in range(first, last + 1)])
        return order[turns - first * self.num_walked]

    def num_styles_of(self, first: int, stop: int) -> int:
        """Different styles that uses first .. stop - 1 take."""
        return min(self.num_walked, self.turn(stop - 1) - self.turn(first) + 1)


@lru_cache(maxsize=8)
def _epoch(seed: int, num_styles: int, walked: int, parts: int, epoch: int) -> NDArray[np.intp]:
    """Order of the styles in one epoch: shuffled within each of `parts` parts that are always the same.

    A style therefore returns after `walked` turns less the length of its part, plus 1, at the soonest.
    """
    part = np.arange(walked) * parts // walked
    order = np.lexsort((_words(walked, _EPOCH, seed, epoch), part))
    return _shuffled(num_styles, _BASE, seed)[:walked][order]


@lru_cache(maxsize=8)
def _shuffled_styles(seed: int, num_styles: int, cycle: int) -> NDArray[np.intp]:
    return _shuffled(num_styles, _CYCLE, seed, cycle)


@dataclass(frozen=True)
class SampleGrid:
    """Each content with k styles of the pool of its row of contents, or of its own draw.

    A row is one block, or several where its styles are more than `columns`.
    """

    rows: Groups
    num_styles: int
    columns: int
    drawn: Sampling

    @property
    def num_pairs(self) -> int:
        return self.rows.total * self.drawn.per_content

    @property
    def num_blocks(self) -> int:
        return self._first_blocks[-1]

    @property
    def uses_per_style(self) -> list[int]:
        """How often the style that is met least is met, and the one that is met most."""
        walked = self.num_styles if self.drawn.pool == "independent" else self._walk.num_walked
        fewest = self.num_pairs // walked if walked == self.num_styles else 0
        return [fewest, math.ceil(self.num_pairs / walked)]

    def block(self, number: int) -> Block:
        row = bisect_right(self._first_blocks, number) - 1
        styles, pairs = self._blocks(row)[number - self._first_blocks[row]]
        return Block(number, self.rows.members(row), styles, pairs)

    def num_pairs_before(self, block: int) -> int:
        row = bisect_right(self._first_blocks, block) - 1
        if row == self.rows.count:
            return self.num_pairs
        earlier = block - self._first_blocks[row]
        within = sum(len(pairs) for _, pairs in self._blocks(row)[:earlier]) if earlier else 0
        return self.rows.start(row) * self.drawn.per_content + within

    def styles_of(self, content: int) -> tuple[int, ...]:
        """The k styles of a content, in the order they were drawn."""
        row = self.rows.group_of(content)
        return tuple(self._styles(row)[content - self.rows.start(row)].tolist())

    def spread(self, limit: int) -> list[tuple[int, int]]:
        """`limit` of the pairs, or all, at even distances."""
        count, k = min(limit, self.num_pairs), self.drawn.per_content
        places = [divmod(i * self.num_pairs // count, k) for i in range(count)]
        return [(content, self.styles_of(content)[own]) for content, own in places]

    @cached_property
    def _walk(self) -> Walk:
        return Walk.of_rows(self.rows, self.num_styles, columns=self.columns, drawn=self.drawn)

    @cached_property
    def _first_blocks(self) -> list[int]:
        """Number of the first block of each row, and of all blocks."""
        counts = (math.ceil(self._num_styles_of(r) / self.columns) for r in range(self.rows.count))
        return list(accumulate(counts, initial=0))

    def _num_styles_of(self, row: int) -> int:
        """Styles of a row; with independent draws perhaps fewer, but not if that would save a block."""
        first, stop = (self.rows.start(r) * self.drawn.per_content for r in (row, row + 1))
        if self.drawn.pool == "independent":
            return min(self.num_styles, stop - first)
        return self._walk.num_styles_of(first, stop)

    def _blocks(self, row: int) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
        """(styles, pairs) of each block of a row."""
        drawn = np.sort(self._styles(row), axis=1).tolist()
        pairs = [(c, s) for c, own in enumerate(drawn, self.rows.start(row)) for s in own]
        pool = sorted({style for _, style in pairs})
        columns = Groups.of_at_most(len(pool), self.columns)
        blocks = []
        for column in range(columns.count):
            styles = tuple(pool[i] for i in columns.members(column))
            lowest, highest = styles[0], styles[-1]
            blocks.append((styles, tuple(pair for pair in pairs if lowest <= pair[1] <= highest)))
        return blocks

    def _styles(self, row: int) -> NDArray[np.intp]:
        """The k styles of each content of a row: an array (contents, k)."""
        k, seed, walk = self.drawn.per_content, self.drawn.seed, self._walk
        first, stop = self.rows.start(row) * k, self.rows.start(row + 1) * k
        if self.drawn.pool == "independent":
            return self._independent(first, stop).reshape(-1, k)
        turns = walk.turns(first, stop)
        lengths = np.diff(walk.start(turns[1:]), prepend=first, append=stop)
        styles, which = np.unique(walk.styles(turns), return_inverse=True)
        counts = np.bincount(which, lengths).astype(np.intp)
        words = _words(len(styles) + (stop - first) // k, _ROW, seed, row)
        order, contents = words[: len(styles)].argsort(), words[len(styles) :].argsort()
        return np.repeat(styles[order], counts[order]).reshape(k, -1).T[contents]

    def _independent(self, first: int, stop: int) -> NDArray[np.intp]:
        """Styles of uses first .. stop - 1: a shuffled cycle, redrawn when contents and cycle end together.

        Within one cycle k consecutive uses, wherever they begin, are of different styles.
        """
        period = math.lcm(self.num_styles, self.drawn.per_content)
        uses = np.arange(first, stop, dtype=np.int64)
        cycles = range(first // period, (stop - 1) // period + 1)
        order = [_shuffled_styles(self.drawn.seed, self.num_styles, cycle) for cycle in cycles]
        return np.stack(order)[uses // period - cycles.start, uses % period % self.num_styles]
