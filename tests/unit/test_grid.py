"""Blocks cover every pair once, in a fixed order, without a table."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stylebatch.data.rows import Cell
from stylebatch.planning.grid import Groups, ListedGrid, ProductGrid


@pytest.mark.parametrize(
    ("contents", "styles", "rows", "columns"),
    [(6, 6, 3, 6), (17, 5, 16, 2), (1, 1, 16, 16), (33, 40, 7, 9)],
)
def test_product_blocks_cover_every_pair_once(
    contents: int, styles: int, rows: int, columns: int
) -> None:
    grid = ProductGrid(Groups.of_at_most(contents, rows), Groups.of_at_most(styles, columns))
    blocks = [grid.block(number) for number in range(grid.num_blocks)]
    pairs = [pair for block in blocks for pair in block.cells]
    assert sorted(pairs) == [(c, s) for c in range(contents) for s in range(styles)]
    assert all(len(block.rows) <= rows and len(block.columns) <= columns for block in blocks)
    before = [grid.num_samples_before(number) for number in range(grid.num_blocks + 1)]
    assert before[0] == 0
    assert before[-1] == grid.num_samples
    assert [b - a for a, b in pairwise(before)] == [len(block.cells) for block in blocks]


def test_a_content_row_is_finished_before_the_next_begins() -> None:
    grid = ProductGrid(Groups.of_at_most(8, 4), Groups.of_at_most(9, 3))
    rows = [grid.block(number).rows for number in range(grid.num_blocks)]
    assert rows == [(0, 1, 2, 3)] * 3 + [(4, 5, 6, 7)] * 3


def test_group_sizes_differ_by_at_most_one() -> None:
    groups = Groups.of_at_most(17, 16)
    assert [len(groups.members(g)) for g in range(groups.count)] == [8, 9]


def test_a_billion_pairs_are_arithmetic() -> None:
    grid = ProductGrid(Groups.of_at_most(1_000_000, 16), Groups.of_at_most(1_000, 16))
    assert grid.num_samples == 10**9
    last = grid.block(grid.num_blocks - 1)
    assert last.cells[-1] == (999_999, 999)
    assert grid.num_samples_before(grid.num_blocks) == 10**9


def test_pair_list_blocks_stay_within_bounds_and_order() -> None:
    pairs = tuple(Cell(i % 7, (i * 3) % 5, label=str(i)) for i in range(40))
    grid = ListedGrid.cut(pairs, max_rows=3, max_columns=4, max_cells=6)
    blocks = [grid.block(number) for number in range(grid.num_blocks)]
    assert [cell.label for block in blocks for cell in block.listed] == [str(i) for i in range(40)]
    assert all(
        len(block.rows) <= 3 and len(block.columns) <= 4 and len(block.cells) <= 6
        for block in blocks
    )
    assert [grid.num_samples_before(b) for b in range(grid.num_blocks)] == [
        sum(len(x.cells) for x in blocks[:b]) for b in range(grid.num_blocks)
    ]
