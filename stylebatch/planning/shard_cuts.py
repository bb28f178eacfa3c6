"""Shards as arithmetic: how many blocks each takes, and which split it is of.

Numbers go on from split to split, so that they, and the keys that begin with them, are unique in an output.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from stylebatch.planning.grid import Grid
from stylebatch.planning.layout import Layout
from stylebatch.planning.sampling import SampleGrid
from stylebatch.spec import RunSpec
from stylebatch.spec.output import MOST_IN_A_SHARD
from stylebatch.spec.splits import REST

USUAL_WORKERS = 4
"""Of a loader: they share out whole shards, and one without any is an error to some."""
SHARDS_FOR_SMALL_SPLITS = 32
"""About as many are made at most so that a small split has some."""


class Stretch(NamedTuple):
    """Neighbouring blocks that are one split's, from block and shard `first_block` and `first_shard` on."""

    split: str
    first_block: int
    num_blocks: int
    blocks_per_shard: int
    first_shard: int

    @property
    def num_shards(self) -> int:
        return math.ceil(self.num_blocks / self.blocks_per_shard)


@dataclass(frozen=True)
class Shards:
    """The shards of a plan, numbered from `first` on."""

    first: int
    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, layout: Layout, size: int, first: int) -> Shards:
        """`size`: samples that a shard should have."""
        named = [(part.portion.split, part.layout) for part in layout.parts] or [(REST, layout)]
        stretches: list[Stretch] = []
        block, shard = 0, first
        for split, within in named:
            per_shard = max(1, size // within.samples_per_block)
            stretches.append(Stretch(split, block, within.grid.num_blocks, per_shard, shard))
            # numbers go on, so that no two splits have a key in common
            block, shard = block + within.grid.num_blocks, shard + stretches[-1].num_shards
        return cls(first, tuple(stretches))

    @property
    def numbers(self) -> range:
        last = self.stretches[-1]
        return range(self.first, last.first_shard + last.num_shards)

    @property
    def by_split(self) -> list[tuple[str, int]]:
        """How many shards each split has, in order."""
        return [(stretch.split, stretch.num_shards) for stretch in self.stretches]

    def stretch_of(self, number: int) -> Stretch:
        """The stretch of shard `number`."""
        firsts = [stretch.first_shard for stretch in self.stretches]
        return self.stretches[bisect_right(firsts, number) - 1]

    def blocks_of(self, number: int) -> range:
        """Numbers of the blocks of shard `number`."""
        stretch = self.stretch_of(number)
        first = (number - stretch.first_shard) * stretch.blocks_per_shard
        stop = min(first + stretch.blocks_per_shard, stretch.num_blocks)
        return range(stretch.first_block + first, stretch.first_block + stop)


def with_size(layout: Layout) -> tuple[Layout, int]:
    """`layout` with shards of a default size where nobody gave one, and the size: `MOST_IN_A_SHARD`, or less where that costs nothing.

    Less is so much that each split has shards for `USUAL_WORKERS`, as far as blocks can be cut for it.
    """
    given = layout.work.spec.output.shard_size
    if given is not None:
        return layout, given
    num_usual = len(Shards.of(layout, MOST_IN_A_SHARD, 0).numbers)
    for size in _smaller_sizes(layout):
        other = _sized(layout, size)
        # a smaller shard may cut blocks, and then inverts images more than once
        if other.costs_no_more_than(layout) and len(Shards.of(other, size, 0).numbers) > num_usual:
            return other, size
    return layout, MOST_IN_A_SHARD


def _smaller_sizes(layout: Layout) -> list[int]:
    """Sizes that are tried, the best first: as wanted, in whole batches, in whole blocks as they are."""
    wanted = _wanted([part.layout for part in layout.parts] or [layout])
    batch = layout.work.size.batch
    whole = math.ceil(wanted / batch) * batch
    sizes = {wanted, whole, whole + batch, max(wanted, layout.samples_per_block)}
    return sorted(size for size in sizes if size < MOST_IN_A_SHARD)


def _wanted(splits: Sequence[Layout]) -> int:
    counts = [layout.grid.num_samples for layout in splits]
    wanted = max(min(counts) // USUAL_WORKERS, sum(counts) // SHARDS_FOR_SMALL_SPLITS)
    return min(MOST_IN_A_SHARD, max(1, wanted))


def _sized(layout: Layout, size: int) -> Layout:
    work = layout.work
    return Layout.of(replace(work, spec=with_shard_size(work.spec, size)), layout.choice)


def with_shard_size(spec: RunSpec, size: int) -> RunSpec:
    """`spec` with shards of `size` samples, as if it had been given."""
    output = spec.output.model_copy(update={"shard_size": size})
    return spec.model_copy(update={"output": output})


def counts_by_split(layout: Layout, shards: Shards) -> dict[str, Any]:
    """Samples and shards of each split, where a run makes some."""
    if not layout.parts:
        return {}
    found = {
        part.portion.split: {
            "num_samples": part.grid.num_samples,
            "num_shards": stretch.num_shards,
            **uses_of_styles(part.layout.grid),
        }
        for part, stretch in zip(layout.parts, shards.stretches, strict=True)
    }
    return {"splits": found}


def uses_of_styles(grid: Grid) -> dict[str, Any]:
    """How often a style is used, where pairs are sampled."""
    return {"uses_per_style": grid.uses_per_style} if isinstance(grid, SampleGrid) else {}
