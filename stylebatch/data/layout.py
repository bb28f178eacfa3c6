"""The blocks of a run under a choice of feature sources, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from stylebatch.data.choice import Choice
from stylebatch.data.grid import Grid, Groups, GrownGrid, PairGrid, ProductGrid
from stylebatch.data.sampling import SampleGrid
from stylebatch.data.sides import block_sides, content_bytes, stored_bytes, style_bytes
from stylebatch.data.sources import PairRow
from stylebatch.spec import RunSpec


@dataclass(frozen=True)
class Layout:
    """Blocks and their memory. `feature_bytes`: one image's queries over all timesteps; `pairs_per_block`: of whole ones.

    `blends`: names of the images of each style, where some style is a blend of several; blocks are then cut as if
    every style were made of as many as the largest.
    """

    spec: RunSpec
    totals: tuple[int, int]
    choice: Choice
    feature_bytes: int
    sides: tuple[int, int]
    grid: Grid
    pairs_per_block: int
    is_list: bool
    blends: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(
        cls,
        spec: RunSpec,
        totals: tuple[int, int],
        pairs: tuple[PairRow, ...] | None,
        feature_bytes: int,
        choice: Choice,
        former: tuple[int, int] = (0, 0),
        blends: tuple[tuple[str, ...], ...] = (),
    ) -> Layout:
        """`totals`: contents and styles; `pairs`: where they are listed; `former`: what an earlier generation rendered."""
        bytes_of = (
            content_bytes(spec, feature_bytes, choice),
            style_bytes(spec, feature_bytes, choice) * _largest(blends),
        )
        sides = block_sides(totals, spec, bytes_of, is_list=pairs is not None)
        grid, per_block = _grid(spec, totals, pairs, sides)
        if former != (0, 0):
            grid = GrownGrid(totals, former, *sides)
            per_block = math.ceil(grid.num_pairs / grid.num_blocks)
        is_list = pairs is not None
        return cls(spec, totals, choice, feature_bytes, sides, grid, per_block, is_list, blends)

    @property
    def content_bytes(self) -> int:
        """Memory for one content of a block."""
        return content_bytes(self.spec, self.feature_bytes, self.choice)

    @property
    def style_bytes(self) -> int:
        """Memory for one style of a block."""
        return style_bytes(self.spec, self.feature_bytes, self.choice) * _largest(self.blends)

    @property
    def is_cut(self) -> bool:
        """Whether memory makes blocks smaller, or styles inverted more than once."""
        widest = block_sides(
            self.totals, self.spec, (0, 0), is_list=self.is_list, feature_gb=math.inf
        )
        if widest != self.sides:
            return True
        grid = self.grid
        return (
            isinstance(grid, ProductGrid)
            and self.choice.styles != "cached"
            and self.num_style_groups_held < grid.columns.count
            and grid.rows.count > 1
        )

    @cached_property
    def num_style_groups_held(self) -> int:
        """Block columns of styles whose features fit in memory beside a block's contents, at least 1.

        Lists of pairs and samples have no columns that come back, so one group is held.
        """
        if not isinstance(self.grid, ProductGrid) or self.choice.styles == "cached":
            return 1
        rows, columns = self.sides
        per_group = columns * self.style_bytes
        room = self.spec.engine.feature_gb * 2**30 - rows * self.content_bytes
        fitting = int(room // per_group) if per_group else self.grid.columns.count
        return max(1, min(fitting, self.grid.columns.count))

    @cached_property
    def _visits(self) -> tuple[int, int, int, int, int]:
        """Inversions of contents and of styles' images, pairs, and contents and these images by block, with repetition."""
        grid, (num_contents, num_styles) = self.grid, self.totals
        if isinstance(grid, ProductGrid):
            once = (
                self.choice.styles == "cached" or grid.columns.count <= self.num_style_groups_held
            )
            rows, columns = grid.rows.count, grid.columns.count
            images = num_styles
            if self.blends:
                images = sum(self._num_images(grid.columns.members(i)) for i in range(columns))
            inverted = images * (1 if once else rows)
            if self.choice.styles == "cached":
                inverted = self._num_images(range(num_styles))
            return (
                num_contents,
                inverted,
                grid.num_pairs,
                num_contents * columns,
                images * rows,
            )
        found = [0, 0, 0, 0, 0]
        contents: tuple[int, ...] = ()
        styles: tuple[int, ...] = ()
        used: set[int] = set()
        for block in map(grid.block, range(grid.num_blocks)):
            found[0] += len(block.contents) if block.contents != contents else 0
            images = self._num_images(block.styles)
            found[1] += images if block.styles != styles else 0
            found[2] += len(set(block.pairs))
            found[3] += len(block.contents)
            found[4] += images
            contents, styles = block.contents, block.styles
            if self.choice.styles == "cached":
                used.update(styles)
        if self.choice.styles == "cached":
            found[1] = self._num_images(used)
        return found[0], found[1], found[2], found[3], found[4]

    def _num_images(self, styles: Collection[int]) -> int:
        """Distinct images that these styles are made of."""
        if not self.blends:
            return len(styles)
        return len({name for style in styles for name in self.blends[style]})

    @property
    def style_evaluations(self) -> int:
        """Evaluations that invert styles."""
        return self._visits[1] * self.spec.styleid.num_inversion_evaluations

    @property
    def rendering_evaluations(self) -> int:
        """Evaluations of the reverse, with features that are recomputed."""
        _, _, rows, contents, styles = self._visits
        if self.spec.styleid.inject:
            rows += contents if self.choice.contents == "recomputed" else 0
            rows += styles if self.choice.styles == "recomputed" else 0
        return rows * self.spec.styleid.num_reverse_evaluations

    @property
    def evaluations(self) -> int:
        """Of the whole run; cached styles count as inverted once, though those that are there cost nothing."""
        inverted = self._visits[0] * self.spec.styleid.num_inversion_evaluations
        return inverted + self.style_evaluations + self.rendering_evaluations

    @property
    def cache_bytes(self) -> int:
        """What the styles of the run take in the cache."""
        if self.choice.styles != "cached":
            return 0
        return self._visits[1] * stored_bytes(self.spec, self.feature_bytes, self.choice)

    @property
    def read_bytes(self) -> int:
        """What is read of the cache, each style once per block."""
        if self.choice.styles != "cached":
            return 0
        return self._visits[4] * stored_bytes(self.spec, self.feature_bytes, self.choice)


def _largest(blends: tuple[tuple[str, ...], ...]) -> int:
    """Images of the largest blend."""
    return max((len(names) for names in blends), default=1)


def _grid(
    spec: RunSpec,
    totals: tuple[int, int],
    pairs: tuple[PairRow, ...] | None,
    sides: tuple[int, int],
) -> tuple[Grid, int]:
    """The grid and the pairs that one of its blocks holds."""
    rows, columns = sides
    num_contents, num_styles = totals
    if pairs is not None:
        listed = PairGrid.cut(
            pairs, max_contents=rows, max_styles=columns, max_pairs=spec.output.shard_size
        )
        return listed, max(1, listed.num_pairs // listed.num_blocks)
    groups = Groups.of_at_most(num_contents, rows)
    tallest = math.ceil(num_contents / groups.count)
    if spec.pairing.mode == "sample":
        drawn = spec.pairing.sampling(spec.seed)
        sample = SampleGrid(groups, num_styles, columns, drawn)
        return sample, tallest * min(drawn.per_content, columns)
    product = ProductGrid(groups, Groups.of_at_most(num_styles, columns))
    return product, tallest * math.ceil(num_styles / product.columns.count)
