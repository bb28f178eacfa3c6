"""Pairings as arithmetic: which contents and styles meet in which block, in what order.

A block is the unit that is rendered together. Blocks have fixed numbers; block b of a product is found
by division, so that a billion pairs cost no memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from stylebatch.data.sources import PairRow


@dataclass(frozen=True)
class Block:
    """Contents x styles rendered together.

    `pairs` are the samples in key order, as indices into the run's contents and styles; `labels` and
    `captions` (same length, or empty) override the content's own.
    """

    number: int
    contents: tuple[int, ...]
    styles: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


class Grid(Protocol):
    """A run's pairs, cut into blocks."""

    @property
    def num_pairs(self) -> int: ...
    @property
    def num_blocks(self) -> int: ...
    def block(self, number: int) -> Block: ...
    def num_pairs_before(self, block: int) -> int:
        """Pairs in blocks 0 .. block - 1."""
        ...


@dataclass(frozen=True)
class Groups:
    """0 .. total - 1 cut into `count` consecutive groups whose sizes differ by at most one."""

    total: int
    count: int

    @classmethod
    def of_at_most(cls, total: int, size: int) -> Groups:
        return cls(total, math.ceil(total / size))

    def start(self, group: int) -> int:
        return group * self.total // self.count

    def members(self, group: int) -> tuple[int, ...]:
        return tuple(range(self.start(group), self.start(group + 1)))

    def group_of(self, member: int) -> int:
        return ((member + 1) * self.count - 1) // self.total


@dataclass(frozen=True)
class ProductGrid:
    """Every content with every style; blocks of one content row follow one another."""

    rows: Groups
    columns: Groups

    @property
    def num_pairs(self) -> int:
        return self.rows.total * self.columns.total

    @property
    def num_blocks(self) -> int:
        return self.rows.count * self.columns.count

    def block(self, number: int) -> Block:
        row, column = divmod(number, self.columns.count)
        contents, styles = self.rows.members(row), self.columns.members(column)
        return Block(number, contents, styles, tuple((c, s) for c in contents for s in styles))

    def num_pairs_before(self, block: int) -> int:
        row, column = divmod(block, self.columns.count)
        height = self.rows.start(row + 1) - self.rows.start(row) if row < self.rows.count else 0
        return self.rows.start(row) * self.columns.total + height * self.columns.start(column)


@dataclass(frozen=True)
class PairGrid:
    """A list of pairs; a block takes consecutive rows while its distinct images stay within bounds."""

    pairs: tuple[PairRow, ...]
    starts: tuple[int, ...]

    @classmethod
    def cut(
        cls, pairs: tuple[PairRow, ...], *, max_contents: int, max_styles: int, max_pairs: int
    ) -> PairGrid:
        starts = [0]
        contents: set[int] = set()
        styles: set[int] = set()
        for index, pair in enumerate(pairs):
            contents.add(pair.content)
            styles.add(pair.style)
            if (
                len(contents) > max_contents
                or len(styles) > max_styles
                or index - starts[-1] >= max_pairs
            ):
                starts.append(index)
                contents, styles = {pair.content}, {pair.style}
        return cls(pairs, (*starts, len(pairs)))

    @property
    def num_pairs(self) -> int:
        return len(self.pairs)

    @property
    def num_blocks(self) -> int:
        return len(self.starts) - 1

    def block(self, number: int) -> Block:
        rows = self.pairs[self.starts[number] : self.starts[number + 1]]
        return Block(
            number,
            contents=tuple(dict.fromkeys(row.content for row in rows)),
            styles=tuple(dict.fromkeys(row.style for row in rows)),
            pairs=tuple((row.content, row.style) for row in rows),
            labels=tuple(row.label for row in rows),
            captions=tuple(row.caption for row in rows),
        )

    def num_pairs_before(self, block: int) -> int:
        return self.starts[block]


@dataclass(frozen=True)
class GrownGrid:
    """What a product has gained: new contents with all styles, then former contents with new styles.

    `rows`, `columns`: contents and styles per block at most; `former`: contents and styles that were there.
    """

    totals: tuple[int, int]
    former: tuple[int, int]
    rows: int
    columns: int

    @property
    def parts(self) -> tuple[tuple[ProductGrid, int, int], ...]:
        """Rectangles of the product, with the first content and style of each."""
        (contents, styles), (old_contents, old_styles) = self.totals, self.former
        corners = ((old_contents, contents, 0, styles), (0, old_contents, old_styles, styles))
        return tuple(
            (
                ProductGrid(
                    Groups.of_at_most(bottom - top, self.rows),
                    Groups.of_at_most(right - left, self.columns),
                ),
                top,
                left,
            )
            for top, bottom, left, right in corners
            if bottom > top and right > left
        )

    @property
    def num_pairs(self) -> int:
        return sum(grid.num_pairs for grid, _, _ in self.parts)

    @property
    def num_blocks(self) -> int:
        return sum(grid.num_blocks for grid, _, _ in self.parts)

    def block(self, number: int) -> Block:
        inner = number
        for grid, top, left in self.parts:
            if inner < grid.num_blocks:
                block = grid.block(inner)
                return Block(
                    number,
                    contents=tuple(top + c for c in block.contents),
                    styles=tuple(left + s for s in block.styles),
                    pairs=tuple((top + c, left + s) for c, s in block.pairs),
                )
            inner -= grid.num_blocks
        raise IndexError(f"block {number}; accepted: 0 to {self.num_blocks - 1}")

    def num_pairs_before(self, block: int) -> int:
        before = 0
        for grid, _, _ in self.parts:
            if block <= grid.num_blocks:
                return before + grid.num_pairs_before(block)
            before, block = before + grid.num_pairs, block - grid.num_blocks
        return before


def spread(num_contents: int, num_styles: int, limit: int) -> list[tuple[int, int]]:
    """The first `limit` pairs of a walk over the whole product that visits all contents and styles early.

    Steps along diagonals; every pair comes exactly once in `num_contents * num_styles` steps.
    """
    period = math.lcm(num_contents, num_styles)
    count = min(limit, num_contents * num_styles)
    return [(i % num_contents, (i + i // period) % num_styles) for i in range(count)]
