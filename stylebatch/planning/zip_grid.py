"""The pairs of zip as arithmetic: the first row with the first column, the second with the second, however many there are.

They stand in the blocks in which `ListedPools` puts a list of the same pairs: columns are held in pools of up to `columns`
neighbours, through which the rows pass in groups of up to `rows`, every other pool from its last group to its first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stylebatch.data.rows import Cell, Diagonal
from stylebatch.planning.grid import Block, Groups, Visits
from stylebatch.planning.listed_pools import ListedPools


@dataclass(frozen=True)
class ZipGrid:
    """`total` pairs from row and column `first` on."""

    total: int
    rows: int
    columns: int
    first: int = 0

    @property
    def num_samples(self) -> int:
        return self.total

    @property
    def num_blocks(self) -> int:
        last = self._num_pools - 1
        return last * self._blocks_per_pool + self._groups(last).count

    def block(self, number: int) -> Block:
        pool, turn = divmod(number, self._blocks_per_pool)
        groups = self._groups(pool)
        # there and back: the rows at the turn stay prepared, as in the list that this stands for
        group = turn if pool % 2 == 0 else groups.count - 1 - turn
        start = self.first + pool * self.columns
        rows = tuple(start + member for member in groups.members(group))
        columns = tuple(range(start, start + groups.total))
        return Block(number, rows, columns, tuple((row, row) for row in rows))

    def num_samples_before(self, block: int) -> int:
        if block == self.num_blocks:
            return self.total
        pool, turn = divmod(block, self._blocks_per_pool)
        groups = self._groups(pool)
        is_forwards = pool % 2 == 0
        within = (
            groups.start(turn) if is_forwards else groups.total - groups.start(groups.count - turn)
        )
        return pool * self.columns + within

    @property
    def visits(self) -> Visits:
        """Of all blocks in order: no image comes twice."""
        samples: Counter[int] = Counter()
        held = 0
        last = self._num_pools - 1
        # all pools but the last are alike
        for pool, times in ((0, last), (last, 1)):
            groups = self._groups(pool)
            held += times * groups.total * groups.count
            for size, count in groups.sizes.items():
                samples[size] += times * count
        # a row and a column meet once, so that nothing is prepared twice
        return Visits(self.total, self.total, +samples, self.total, held)

    @property
    def num_rows_used(self) -> int:
        return self.total

    @property
    def num_columns_used(self) -> int:
        return self.total

    @property
    def _num_pools(self) -> int:
        return math.ceil(self.total / self.columns)

    @property
    def _blocks_per_pool(self) -> int:
        """Of all pools but the last, which may be smaller."""
        return self._groups(0).count

    def _groups(self, pool: int) -> Groups:
        """The rows of a pool, counted from its first."""
        size = min(self.columns, self.total - pool * self.columns)
        return Groups.of_at_most(size, self.rows)


def sorted_pairs(
    listed: Sequence[Cell], *, max_rows: int, max_columns: int, max_cells: int
) -> ListedPools | ZipGrid:
    """Pairs in blocks of at most so many rows, columns and cells, whatever the order of their list; those of zip as arithmetic."""
    if isinstance(listed, Diagonal):
        rows = min(max_rows, max_cells)
        return ZipGrid(len(listed), rows, max_columns, listed.places.start)
    return ListedPools.sort(listed, max_rows=max_rows, max_columns=max_columns, max_cells=max_cells)
