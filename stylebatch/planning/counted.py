"""What the blocks of a grid ask for, where arithmetic tells it without a look at each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stylebatch.planning.bucketed_samples import BucketedSamples
from stylebatch.planning.grid import ChainedGrid, Grid, Visits
from stylebatch.planning.listed_pools import ListedPools
from stylebatch.planning.sampled_pools import SampledPools
from stylebatch.planning.zip_grid import ZipGrid


@dataclass(frozen=True)
class Counted:
    """The visits of all blocks in order, and how many rows and columns have samples."""

    visits: Visits
    num_rows: int
    num_columns: int

    @classmethod
    def of(cls, grid: Grid) -> Counted | None:
        """None where the blocks must be looked at."""
        if isinstance(grid, SampledPools | ListedPools | ZipGrid | BucketedSamples):
            visits = grid.visits
            return (
                None if visits is None else cls(visits, grid.num_rows_used, grid.num_columns_used)
            )
        if isinstance(grid, ChainedGrid):
            pools = [one for one in grid.grids if isinstance(one, ListedPools)]
            return _of_chain(pools) if len(pools) == len(grid.grids) else None
        return None


def _of_chain(pools: list[ListedPools]) -> Counted:
    """Of lists one behind the other, no row in two of them."""
    total, columns = Visits(), set[int]()
    last: tuple[int, ...] = ()
    for one in pools:
        visits, first = one.visits, one.block(0).columns
        # The columns at hand are kept over the seam, as between any two blocks.
        kept = len(first) if first == last else 0
        total += replace(visits, prepared_columns=visits.prepared_columns - kept)
        last = one.block(one.num_blocks - 1).columns
        columns.update(one.styles.tolist())
    return Counted(total, sum(one.num_rows_used for one in pools), len(columns))
