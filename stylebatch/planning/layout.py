"""The blocks of a run under a choice of feature sources, and what they cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from stylebatch.planning.choice import FeatureSources
from stylebatch.planning.counted import Counted
from stylebatch.planning.cutting import grid_of
from stylebatch.planning.feature_memory import (
    MemoryBytes,
    block_sides,
    content_bytes,
    feature_room,
    sides_of_few,
    stored_bytes,
    style_bytes,
)
from stylebatch.planning.grid import (
    Block,
    ChainedGrid,
    Grid,
    ProductGrid,
    SelectedGrid,
    ShiftedGrid,
    Visits,
)
from stylebatch.planning.sampling import SampleGrid
from stylebatch.planning.split_axes import Portion
from stylebatch.planning.work import Work


@dataclass(frozen=True)
class Part:
    """The blocks of a split. `layout`: as if its rows and columns were all; `grid`: with their places among those of the run."""

    portion: Portion
    layout: Layout
    grid: Grid


@dataclass(frozen=True)
class Layout:
    """Blocks and their memory. `sides`: rows and columns per block at most; `samples_per_block`: of whole ones.

    `choice`: None for methods that keep no features. `parts`: of each split that has something to render; no block is of two.
    """

    work: Work
    choice: FeatureSources | None
    sides: tuple[int, int]
    grid: Grid
    samples_per_block: int
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, work: Work, choice: FeatureSources | None) -> Layout:
        sides = _sides(work, choice)
        if not work.portions:
            grid, per_block = grid_of(work, sides)
            return cls(work, choice, sides, grid, per_block)
        parts = []
        for portion in work.portions:
            within = work.of(portion)
            if within.is_empty:
                continue
            grid, per_block = grid_of(within, sides)
            layout = cls(within, choice, sides, grid, per_block)
            # listed cells have the run's numbers as they are, and a set's column has
            if within.listed is None:
                grid = SelectedGrid(grid, portion.rows, portion.columns)
            parts.append(Part(portion, layout, grid))
        chained = ChainedGrid(tuple(part.grid for part in parts))
        most = max(part.layout.samples_per_block for part in parts)
        return cls(work, choice, sides, chained, most, tuple(parts))

    def styles_of(self, content: int) -> tuple[int, ...]:
        """The styles of a content, where pairs are sampled."""
        if not self.parts:
            grid = self.grid
            if isinstance(grid, ShiftedGrid):  # contents that came later draw among themselves
                content -= grid.top
                grid = grid.grid
            assert isinstance(grid, SampleGrid)
            return grid.styles_of(content)
        for part in self.parts:
            rows, columns = part.portion.rows, part.portion.columns
            place = int(np.searchsorted(rows, content))
            if place < len(rows) and rows[place] == content:
                styles = part.layout.styles_of(place)
                return styles if columns is None else tuple(columns[list(styles)].tolist())
        raise IndexError(f"content {content} is in no split")

    @property
    def row_bytes(self) -> MemoryBytes:
        """Memory for one row of a block."""
        return _bytes_of(self.work, self.choice)[0]

    @property
    def column_bytes(self) -> MemoryBytes:
        """Memory for one column of a block."""
        return _bytes_of(self.work, self.choice)[1]

    @property
    def kept_bytes(self) -> MemoryBytes:
        """Memory for what a worker keeps at most: the rows of a block, and the groups of columns that fit beside them."""
        rows, columns = self.sides
        columns *= self.num_column_groups_held
        kept = (self.row_bytes.times(rows), self.column_bytes.times(columns))
        return MemoryBytes(*map(sum, zip(*kept, strict=True)))

    @property
    def is_cut(self) -> bool:
        """Whether memory makes blocks smaller, or columns prepared more than once."""
        work = self.work
        is_list = work.listed is not None
        nothing = MemoryBytes(0)
        if block_sides(work.counts, work.spec, (nothing, nothing), is_list=is_list) != self.sides:
            return True
        return any(part.layout._returns_to_columns for part in self.parts) or (
            self._returns_to_columns
        )

    @property
    def _returns_to_columns(self) -> bool:
        """Whether columns are prepared again for each group of rows."""
        grid = self.grid
        return (
            isinstance(grid, ProductGrid)
            and not self._is_cached
            and self.num_column_groups_held < grid.columns.count
            and grid.rows.count > 1
        )

    @property
    def _is_cached(self) -> bool:
        return self.choice is not None and self.choice.styles == "cached"

    @cached_property
    def num_column_groups_held(self) -> int:
        """Groups of columns that fit in memory beside a block's rows once they are prepared, at least 1.

        Lists and samples have no groups of columns that come back, so one is held.
        """
        if self.parts:
            return max(part.layout.num_column_groups_held for part in self.parts)
        if not isinstance(self.grid, ProductGrid) or self._is_cached:
            return 1
        rows, columns = self.sides
        fitting, rooms = self.grid.columns.count, feature_room(self.work.spec)
        for room, row, column in zip(rooms, self.row_bytes, self.column_bytes, strict=True):
            # the rows of the present block must stay beside all groups of columns that are kept
            if column:
                fitting = min(fitting, int((room - rows * row) // (columns * column)))
        return max(1, fitting)

    @property
    def _visits(self) -> Visits:
        return self._counted[0]

    @cached_property
    def _counted(self) -> tuple[Visits, int, int]:
        """What the blocks ask for; how many rows are used, and images of columns."""
        if self.parts:
            return self._counted_of_parts()
        if isinstance(self.grid, ProductGrid):
            images = len(self._parts(range(self.work.counts[1])))
            return self._visits_of_product(self.grid), self.work.counts[0], images
        grid = self.grid.grid if isinstance(self.grid, ShiftedGrid) else self.grid
        counted = Counted.of(grid) if not self.work.column_parts else None
        if counted is None:
            return self._count_blocks()
        visits = counted.visits
        if self._is_cached:
            visits = replace(visits, prepared_columns=counted.num_columns)
        return visits, counted.num_rows, counted.num_columns

    def _counted_of_parts(self) -> tuple[Visits, int, int]:
        """Splits that share styles count them once where they are kept or cached; else each prepares its own."""
        counted = [part.layout._counted for part in self.parts]
        visits = sum((one for one, _, _ in counted), Visits())
        images = [images for _, _, images in counted]
        is_shared = all(part.portion.columns is None for part in self.parts)
        # of lists and samples, which need not use all, the least that this can be
        num_images = max(images) if is_shared else sum(images)
        grids = [part.layout.grid for part in self.parts]
        are_kept = is_shared and all(
            isinstance(grid, ProductGrid) and grid.columns.count <= self.num_column_groups_held
            for grid in grids
        )
        if self._is_cached or are_kept:
            visits = replace(visits, prepared_columns=num_images)
        return visits, sum(rows for _, rows, _ in counted), num_images

    def _count_blocks(self) -> tuple[Visits, int, int]:
        prepared_rows = prepared_columns = num_rows = num_columns = 0
        samples: Counter[int] = Counter()
        rows: tuple[int, ...] = ()
        columns: tuple[int, ...] = ()
        parts: set[Hashable] = set()
        used_rows, used_columns = set[int](), set[int]()
        for block in map(self.grid.block, range(self.grid.num_blocks)):
            # a worker keeps the last group of rows and of columns, and prepares others anew
            prepared_rows += len(block.rows) if block.rows != rows else 0
            of_block = self._parts(block.columns)
            if block.columns != columns and of_block != parts:
                prepared_columns += len(of_block)
            samples[self._num_rendered(block)] += 1
            num_rows += len(block.rows)
            num_columns += len(of_block)
            rows, columns, parts = block.rows, block.columns, of_block
            used_rows.update(rows)
            used_columns.update(columns)
        images = len(self._parts(used_columns))
        if self._is_cached:
            prepared_columns = images
        visits = Visits(prepared_rows, prepared_columns, samples, num_rows, num_columns)
        return visits, len(used_rows), images

    def _visits_of_product(self, grid: ProductGrid) -> Visits:
        num_rows, num_columns = self.work.counts
        rows, columns = grid.rows.count, grid.columns.count
        images = num_columns
        if self.work.column_parts:
            images = sum(len(self._parts(grid.columns.members(i))) for i in range(columns))
        inverted = images * (1 if columns <= self.num_column_groups_held else rows)
        if self._is_cached:
            inverted = len(self._parts(range(num_columns)))
        samples: Counter[int] = Counter()
        # groups have two sizes at most, so that four kinds of blocks stand for all
        for height, count in grid.rows.sizes.items():
            for width, times in grid.columns.sizes.items():
                samples[height * width] += count * times
        return Visits(num_rows, inverted, samples, num_rows * columns, images * rows)

    def _parts(self, columns: Collection[int]) -> set[Hashable]:
        """What these columns are prepared from."""
        if not self.work.column_parts:
            return set(columns)
        return {part for column in columns for part in self.work.column_parts[column]}

    def _num_rendered(self, block: Block) -> int:
        """Samples of a block that are rendered beside its references."""
        # a listed cell that comes again is rendered once
        cells = block.cells if self.work.listed is None else set(block.cells)
        if not self.work.references:
            return len(cells)
        return sum(row not in self.work.references for row, _ in cells)

    @property
    def fewest_evaluations(self) -> int:
        """What these samples take if every image is prepared once and kept, which not every list of them allows."""
        visits, rows, images = self._counted
        once = replace(visits, rows=0, columns=0)
        return (
            rows * self.prepare_evaluations(0)
            + images * self.prepare_evaluations(1)
            + self._rendering(once)
        )

    @property
    def num_prepared(self) -> int:
        """Images that are prepared, those that are prepared again as well; a prompt is none."""
        prepared = (self._visits.prepared_rows, self._visits.prepared_columns)
        named = zip(self.work.axes, prepared, strict=False)
        return sum(count for axis, count in named if axis != "prompt")

    @property
    def row_evaluations(self) -> int:
        """Evaluations that prepare rows."""
        return self._visits.prepared_rows * self.prepare_evaluations(0)

    @property
    def column_evaluations(self) -> int:
        """Evaluations that prepare columns."""
        return self._visits.prepared_columns * self.prepare_evaluations(1)

    def prepare_evaluations(self, axis: int) -> int:
        """Network rows that prepare an item of an axis."""
        axes = self.work.axes
        return self.work.options.prepare_evaluations(axes[axis]) if axis < len(axes) else 0

    @property
    def rendering_evaluations(self) -> int:
        """Evaluations of the samples, with features that are recomputed."""
        return self._rendering(self._visits)

    def _rendering(self, visits: Visits) -> int:
        options = self.work.options

        def rows_of(samples: int) -> int:
            return options.evaluations(replace(self.work.size, samples=samples))

        total = sum(rows_of(samples) * count for samples, count in visits.samples.items())
        if self.choice is None or not self.work.feature_bytes:
            return total
        again = visits.rows if self.choice.contents == "recomputed" else 0
        again += visits.columns if self.choice.recomputes_styles else 0
        return total + rows_of(1) * again

    @cached_property
    def evaluations(self) -> int:
        """Of the whole run; cached styles count as inverted once, though those that are there cost nothing."""
        return self.row_evaluations + self.column_evaluations + self.rendering_evaluations

    @property
    def cached_evaluations(self) -> int:
        """As `evaluations`, once a cache holds all columns."""
        return self.evaluations - self.column_evaluations

    def costs_no_more_than(self, other: Layout) -> bool:
        """Whether the samples take no more evaluations here, nor more batches, of which those that are not full take as long."""
        return self.evaluations <= other.evaluations and self.num_batches <= other.num_batches

    @property
    def num_batches(self) -> int:
        """Network batches of the samples at one timestep; one that is not full takes as long as one that is."""
        batch = max(1, self.work.size.batch)
        samples = self._visits.samples
        return sum(math.ceil(count / batch) * blocks for count, blocks in samples.items())

    @property
    def cache_bytes(self) -> int:
        """What the styles of the run take in the cache."""
        return self._visits.prepared_columns * self.column_stored_bytes

    @property
    def read_bytes(self) -> int:
        """What is read of the cache, each style once per block."""
        return self._visits.columns * self.column_stored_bytes

    @property
    def column_stored_bytes(self) -> int:
        """What the cache keeps of a column."""
        work = self.work
        if self.choice is None or not self._is_cached:
            return 0
        if self.choice.codec == "trajectory":
            return work.options.trajectory_bytes(work.size)
        return stored_bytes(work.spec, work.feature_bytes, self.choice.codec)


def _bytes_of(work: Work, choice: FeatureSources | None) -> tuple[MemoryBytes, MemoryBytes]:
    """Memory for a row and for a column of a block."""
    if choice is None:
        prepared = MemoryBytes(work.options.prepared_bytes(work.size))
        return prepared, prepared
    part = style_bytes(work.spec, work.options, work.feature_bytes, choice)
    return content_bytes(work.options, work.feature_bytes, choice), part.times(work.most_parts)


def _sides(work: Work, choice: FeatureSources | None) -> tuple[int, int]:
    if "prompt" in work.axes:
        return sides_of_few(work.counts, work.spec, work.options.samples_per_block(work.size))
    is_list = work.listed is not None
    return block_sides(work.counts, work.spec, _bytes_of(work, choice), is_list=is_list)
