"""Cuts what is to be rendered into blocks: the grid that pairing, sizes of images and growth ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stylebatch.data.rows import Cell
from stylebatch.planning.bucket_rows import BucketOrder
from stylebatch.planning.bucketed_samples import BucketedSamples
from stylebatch.planning.feature_memory import MAX_BATCHES
from stylebatch.planning.grid import (
    ChainedGrid,
    Grid,
    Groups,
    ListedGrid,
    MembersGrid,
    ProductGrid,
    ShiftedGrid,
    gained,
    row_groups,
)
from stylebatch.planning.sampling import sample_grid
from stylebatch.planning.work import NOTHING, Work
from stylebatch.planning.zip_grid import sorted_pairs


def grid_of(work: Work, sides: tuple[int, int]) -> tuple[Grid, int]:
    """The grid and the samples that one of its blocks holds."""
    former, (num_rows, num_columns) = work.former, work.counts
    if work.set_of is not None:
        beside = work.options.samples_per_block(work.size)
        most = work.spec.output.most_in_a_shard
        grid: Grid = MembersGrid.cut(
            work.set_of, work.references, start=former.rows, beside=beside, most=most
        )
        return grid, max(1, grid.num_samples // grid.num_blocks)
    if work.listed is not None:
        grid = _listed_grid(work, work.listed[former.cells :], sides)
        return grid, max(1, grid.num_samples // grid.num_blocks)
    if work.spec.pairing.mode == "sample":
        return _sampled_grid(work, sides)
    if former != NOTHING:
        # columns that came later meet the former rows too: only a product asks for that
        grid = gained(work.counts, (former.rows, former.columns), sides, work.buckets)
        return grid, math.ceil(grid.num_samples / grid.num_blocks)
    product = ProductGrid(
        row_groups(num_rows, sides[0], work.buckets), Groups.of_at_most(num_columns, sides[1])
    )
    height = math.ceil(num_rows / product.rows.count)
    if work.buckets:  # whose groups differ by more than one row
        height = max(product.rows.sizes)
    return product, height * math.ceil(num_columns / product.columns.count)


def _listed_grid(work: Work, cells: Sequence[Cell], sides: tuple[int, int]) -> Grid:
    (rows, columns), most = sides, work.spec.output.most_in_a_shard
    of_prompts = "prompt" in work.axes
    if of_prompts:
        rows = columns = most
        most = min(most, MAX_BATCHES * work.options.samples_per_block(work.size))
    if work.spec.pairing.order == "listed":
        return ListedGrid.cut(
            cells, max_rows=rows, max_columns=columns, max_cells=most, buckets=work.buckets
        )
    cut = ListedGrid.cut if of_prompts else sorted_pairs
    grids = tuple(
        cut(part, max_rows=rows, max_columns=columns, max_cells=most)
        for part in _by_bucket(cells, work.buckets)
    )
    return grids[0] if len(grids) == 1 else ChainedGrid(grids)


def _by_bucket(cells: Sequence[Cell], buckets: Sequence[int]) -> list[Sequence[Cell]]:
    """The cells by the bucket of their row, in the order of buckets and not of the list: no order of it changes what meets."""
    if not buckets:
        return [cells]
    found: dict[int, list[Cell]] = {}
    for cell in cells:
        found.setdefault(buckets[cell.row], []).append(cell)
    return [tuple(found[bucket]) for bucket in sorted(found)]


def _sampled_grid(work: Work, sides: tuple[int, int]) -> tuple[Grid, int]:
    """New rows draw among themselves: what was drawn before stays."""
    first, (num_rows, num_columns) = work.former.rows, work.counts
    drawn = work.spec.pairing.sampling(work.spec.seed)
    sample = sample_grid((num_rows - first, num_columns), sides, drawn)
    if work.buckets:
        order = BucketOrder.of(work.buckets, first)
        return BucketedSamples(sample, order), sample.samples_per_block
    return ShiftedGrid(sample, first) if first else sample, sample.samples_per_block
