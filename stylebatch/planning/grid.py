"""Grids as arithmetic: which items of two axes meet in which block, in what order.

A block is the unit that is rendered together. Blocks have fixed numbers; block b of a product is found by division, so that
a billion cells cost no memory. A method of one axis has a single column.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stylebatch.data.rows import Cell
from stylebatch.planning.bucket_rows import BucketGroups, BucketOrder


@dataclass(frozen=True)
class Block:
    """Rows x columns rendered together.

    `rows` and `columns` are indices into the run's axes, each once and ascending: what is prepared follows them. `cells` are
    the samples in key order, as such indices, where a listed cell may come again; `listed`: these cells, where they are of a list.
    """

    number: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    cells: tuple[tuple[int, int], ...]
    listed: tuple[Cell, ...] = ()

    @classmethod
    def listing(
        cls, number: int, rows: tuple[int, ...], columns: tuple[int, ...], cells: Sequence[Cell]
    ) -> Block:
        """A block of listed cells."""
        places = tuple((cell.row, cell.column) for cell in cells)
        return cls(number, rows, columns, places, tuple(cells))


class Grid(Protocol):
    """A run's cells, cut into blocks."""

    @property
    def num_samples(self) -> int: ...
    @property
    def num_blocks(self) -> int: ...
    def block(self, number: int) -> Block: ...
    def num_samples_before(self, block: int) -> int:
        """Samples of blocks 0 .. block - 1."""
        ...


@dataclass(frozen=True)
class Visits:
    """What blocks ask of a worker that goes through them in order and keeps the rows and the columns of the one before.

    `prepared_rows`, `prepared_columns`: with repetition; `samples`: blocks by how many they render; `rows`, `columns`: of all
    blocks together, since those with recomputed features are evaluated again in each.
    """

    prepared_rows: int = 0
    prepared_columns: int = 0
    samples: Counter[int] = field(default_factory=Counter)
    rows: int = 0
    columns: int = 0

    def __add__(self, other: Visits) -> Visits:
        return Visits(
            self.prepared_rows + other.prepared_rows,
            self.prepared_columns + other.prepared_columns,
            self.samples + other.samples,
            self.rows + other.rows,
            self.columns + other.columns,
        )

    def __mul__(self, times: int) -> Visits:
        return Visits(
            self.prepared_rows * times,
            self.prepared_columns * times,
            Counter({samples: count * times for samples, count in self.samples.items()}),
            self.rows * times,
            self.columns * times,
        )


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
        # the inverse of `start`, exact in integers for any sizes
        return ((member + 1) * self.count - 1) // self.total

    @property
    def sizes(self) -> Counter[int]:
        """How many groups there are of each size."""
        least, longer = divmod(self.total, self.count)
        return Counter({least: self.count - longer, least + 1: longer})


@dataclass(frozen=True)
class ProductGrid:
    """Every row with every column; blocks of one group of rows follow one another."""

    rows: Groups | BucketGroups
    columns: Groups

    @property
    def num_samples(self) -> int:
        return self.rows.total * self.columns.total

    @property
    def num_blocks(self) -> int:
        return self.rows.count * self.columns.count

    def block(self, number: int) -> Block:
        row, column = divmod(number, self.columns.count)
        rows, columns = self.rows.members(row), self.columns.members(column)
        return Block(number, rows, columns, tuple((r, c) for r in rows for c in columns))

    def num_samples_before(self, block: int) -> int:
        row, column = divmod(block, self.columns.count)
        height = self.rows.start(row + 1) - self.rows.start(row) if row < self.rows.count else 0
        return self.rows.start(row) * self.columns.total + height * self.columns.start(column)


@dataclass(frozen=True)
class ListedGrid:
    """A list of cells in any order; a block takes consecutive ones while its distinct items stay within bounds.

    The order of the cells within a block decides about keys alone, not about what is rendered in which batch. Which cells
    share a block does follow from the list's order, so a sample's picture may differ in its last bits between two orders,
    as it does between batch sizes.
    """

    listed: Sequence[Cell]
    starts: tuple[int, ...]

    @classmethod
    def cut(
        cls,
        listed: Sequence[Cell],
        *,
        max_rows: int,
        max_columns: int,
        max_cells: int,
        buckets: Sequence[int] = (),
    ) -> ListedGrid:
        """`buckets`: of each row; a block has cells of one alone."""
        starts = [0]
        rows: set[int] = set()
        columns: set[int] = set()
        for index, cell in enumerate(listed):
            rows.add(cell.row)
            columns.add(cell.column)
            if (
                len(rows) > max_rows
                or len(columns) > max_columns
                or index - starts[-1] >= max_cells
                or (index and buckets and buckets[cell.row] != buckets[listed[index - 1].row])
            ):
                starts.append(index)
                rows, columns = {cell.row}, {cell.column}
        return cls(listed, (*starts, len(listed)))

    @property
    def num_samples(self) -> int:
        return len(self.listed)

    @property
    def num_blocks(self) -> int:
        return len(self.starts) - 1

    def block(self, number: int) -> Block:
        cells = self.listed[self.starts[number] : self.starts[number + 1]]
        rows = tuple(sorted({cell.row for cell in cells}))
        columns = tuple(sorted({cell.column for cell in cells}))
        return Block.listing(number, rows, columns, cells)

    def num_samples_before(self, block: int) -> int:
        return self.starts[block]


@dataclass(frozen=True)
class MembersGrid:
    """Rows that belong to sets, those of a set together. `starts`: first row of each block, then where the last one ends."""

    starts: tuple[int, ...]
    sets: tuple[int, ...]

    @classmethod
    def cut(
        cls, set_of: Sequence[int], firsts: Iterable[int], *, start: int, beside: int, most: int
    ) -> MembersGrid:
        """Blocks over the rows from `start` on: of `beside` rows besides a set's first one, where that is among `firsts`.

        `set_of`: the set of each row. A block has `most` rows at most.
        """
        starts, sets = [start], [set_of[start]]
        rendered, known = 0, set(firsts)
        for row in range(start, len(set_of)):
            costs = row not in known  # a reference runs beside every batch anyway
            is_full = rendered + costs > beside or row - starts[-1] >= most
            if set_of[row] != sets[-1] or (is_full and row > starts[-1]):
                starts.append(row)
                sets.append(set_of[row])
                rendered = 0
            rendered += costs
        return cls((*starts, len(set_of)), tuple(sets))

    @property
    def num_samples(self) -> int:
        return self.starts[-1] - self.starts[0]

    @property
    def num_blocks(self) -> int:
        return len(self.sets)

    def block(self, number: int) -> Block:
        rows = tuple(range(self.starts[number], self.starts[number + 1]))
        column = self.sets[number]
        return Block(number, rows, (column,), tuple((row, column) for row in rows))

    def num_samples_before(self, block: int) -> int:
        return self.starts[block] - self.starts[0]


@dataclass(frozen=True)
class ShiftedGrid:
    """A grid whose rows and columns begin at `top` and `left` of the run's axes."""

    grid: Grid
    top: int
    left: int = 0

    @property
    def num_samples(self) -> int:
        return self.grid.num_samples

    @property
    def num_blocks(self) -> int:
        return self.grid.num_blocks

    def block(self, number: int) -> Block:
        block, top, left = self.grid.block(number), self.top, self.left
        return replace(
            block,
            rows=tuple(top + row for row in block.rows),
            columns=tuple(left + column for column in block.columns),
            cells=tuple((top + row, left + column) for row, column in block.cells),
        )

    def num_samples_before(self, block: int) -> int:
        return self.grid.num_samples_before(block)


@dataclass(frozen=True, eq=False)
class SelectedGrid:
    """A grid over some of the run's rows and columns: those at these places, ascending; `columns`: None for all."""

    grid: Grid
    rows: NDArray[np.int64]
    columns: NDArray[np.int64] | None

    @property
    def num_samples(self) -> int:
        return self.grid.num_samples

    @property
    def num_blocks(self) -> int:
        return self.grid.num_blocks

    def block(self, number: int) -> Block:
        block = self.grid.block(number)
        rows = dict(zip(block.rows, self.rows[list(block.rows)].tolist(), strict=True))
        columns = dict(zip(block.columns, block.columns, strict=True))
        if self.columns is not None:
            chosen = self.columns[list(block.columns)].tolist()
            columns = dict(zip(block.columns, chosen, strict=True))
        return replace(
            block,
            rows=tuple(rows.values()),
            columns=tuple(columns.values()),
            cells=tuple((rows[row], columns[column]) for row, column in block.cells),
        )

    def num_samples_before(self, block: int) -> int:
        return self.grid.num_samples_before(block)


@dataclass(frozen=True)
class ChainedGrid:
    """Grids one behind the other."""

    grids: tuple[Grid, ...]

    @cached_property
    def _blocks(self) -> list[int]:
        return _sums(grid.num_blocks for grid in self.grids)

    @cached_property
    def _samples(self) -> list[int]:
        return _sums(grid.num_samples for grid in self.grids)

    @property
    def num_samples(self) -> int:
        return self._samples[-1]

    @property
    def num_blocks(self) -> int:
        return self._blocks[-1]

    def block(self, number: int) -> Block:
        which = bisect_right(self._blocks, number) - 1
        found = self.grids[which].block(number - self._blocks[which])
        return replace(found, number=number)

    def num_samples_before(self, block: int) -> int:
        # the number after the last block belongs to the last grid
        which = min(bisect_right(self._blocks, block), len(self.grids)) - 1
        within = self.grids[which].num_samples_before(block - self._blocks[which])
        return self._samples[which] + within


def _sums(counts: Iterable[int]) -> list[int]:
    """0, and the sum of the counts up to each."""
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    return sums


def row_groups(total: int, size: int, buckets: Sequence[int] = ()) -> Groups | BucketGroups:
    """Rows in groups of at most `size`; `buckets`: of each row, where they have several sizes."""
    if not buckets:
        return Groups.of_at_most(total, size)
    return BucketGroups.of_at_most(BucketOrder.of(buckets), size)


def gained(
    totals: tuple[int, int],
    former: tuple[int, int],
    sides: tuple[int, int],
    buckets: Sequence[int] = (),
) -> ChainedGrid:
    """What a product has gained: new rows with all columns, then former rows with new columns.

    `former`: rows and columns that were there; `sides`: rows and columns per block at most; `buckets` as for `row_groups`.
    """
    (rows, columns), (old_rows, old_columns) = totals, former
    corners = ((old_rows, rows, 0, columns), (0, old_rows, old_columns, columns))
    return ChainedGrid(
        tuple(
            ShiftedGrid(
                ProductGrid(
                    row_groups(bottom - top, sides[0], buckets[top:bottom]),
                    Groups.of_at_most(right - left, sides[1]),
                ),
                top,
                left,
            )
            for top, bottom, left, right in corners
            if bottom > top and right > left
        )
    )
