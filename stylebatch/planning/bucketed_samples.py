"""Sampled pairings over rows in buckets: drawn as over any rows, in an order in which rows of one size come together.

So pools, balance and cost are those of the drawing; only the few blocks in which one bucket ends and another begins are split.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from stylebatch.planning.bucket_rows import BucketOrder
from stylebatch.planning.grid import Block, Visits
from stylebatch.planning.independent import IndependentGrid
from stylebatch.planning.sampled_pools import SampledPools


@dataclass(frozen=True)
class BucketedSamples:
    """`drawn` over the places of `order`. The rows of its blocks are neighbours, and ascend from block to block."""

    drawn: SampledPools | IndependentGrid
    order: BucketOrder

    @property
    def num_samples(self) -> int:
        return self.drawn.num_samples

    @property
    def num_blocks(self) -> int:
        return self.drawn.num_blocks + sum(len(parts) - 1 for parts in self._split.values())

    @property
    def uses_per_style(self) -> list[int]:
        """As the drawing's."""
        return self.drawn.uses_per_style

    @property
    def samples_per_block(self) -> int:
        """Of the largest block at most."""
        return self.drawn.samples_per_block

    def styles_of(self, content: int) -> tuple[int, ...]:
        """The k styles of a row."""
        return self.drawn.styles_of(self._place_of[content])

    def block(self, number: int) -> Block:
        drawn, part = self._found(number)
        block = self.drawn.block(drawn) if part is None else self._split[drawn][part]
        rows = self.order.rows
        return replace(
            block,
            number=number,
            rows=tuple(rows[place] for place in block.rows),
            cells=tuple((rows[place], style) for place, style in block.cells),
        )

    def num_samples_before(self, block: int) -> int:
        drawn, part = self._found(block)
        before = self.drawn.num_samples_before(drawn)
        return before + sum(len(one.cells) for one in self._split.get(drawn, ())[: part or 0])

    @property
    def visits(self) -> Visits | None:
        """Of all blocks in order; None where no arithmetic tells. Parts of a block keep its styles."""
        if not isinstance(self.drawn, SampledPools) or not self.drawn.is_one_block_wide:
            return None
        found = self.drawn.visits
        for number, parts in self._split.items():
            samples = Counter(len(part.cells) for part in parts)
            samples.subtract([len(self.drawn.block(number).cells)])
            total = Counter(found.samples)
            total.update(samples)
            more = len(parts[0].columns) * (len(parts) - 1)
            found = replace(found, samples=+total, columns=found.columns + more)
        return found

    @property
    def num_rows_used(self) -> int:
        return len(self.order.rows)

    @property
    def num_columns_used(self) -> int:
        """Styles that take part: all, where there are as many uses."""
        return min(self.drawn.num_styles, self.num_samples)

    @cached_property
    def _place_of(self) -> dict[int, int]:
        return {row: place for place, row in enumerate(self.order.rows)}

    @cached_property
    def _split(self) -> dict[int, list[Block]]:
        """The blocks of the drawing that several buckets share, in order, and what each bucket has of them."""
        found: dict[int, list[Block]] = {}
        for start in self.order.starts[1:-1]:
            # Rows ascend, so that the blocks before the first one from `start` on may reach over it.
            number = bisect_left(range(self.drawn.num_blocks), start, key=self._first_row) - 1
            while number >= 0 and (block := self.drawn.block(number)).rows[-1] >= start:
                found[number] = self._parts(block)
                number -= 1
        return dict(sorted(found.items()))

    def _first_row(self, number: int) -> int:
        return self.drawn.block(number).rows[0]

    def _parts(self, block: Block) -> list[Block]:
        buckets = dict.fromkeys(self.order.bucket_of(row) for row in block.rows)
        parts = (
            replace(
                block,
                rows=tuple(row for row in block.rows if self.order.bucket_of(row) == bucket),
                cells=tuple(
                    cell for cell in block.cells if self.order.bucket_of(cell[0]) == bucket
                ),
            )
            for bucket in buckets
        )
        # A group that takes several blocks may have rows without a cell in one of them.
        return [part for part in parts if part.cells]

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """Of each split block: its number in the drawing, and the number of its first part here."""
        numbers = list(self._split)
        firsts, surplus = [], 0
        for number, parts in self._split.items():
            firsts.append(number + surplus)
            surplus += len(parts) - 1
        return numbers, firsts

    def _found(self, number: int) -> tuple[int, int | None]:
        """The block of the drawing, and which of its parts; None for a whole one."""
        numbers, firsts = self._starts
        at = bisect_right(firsts, number) - 1
        if at < 0:
            return number, None
        drawn, part = numbers[at], number - firsts[at]
        count = len(self._split[drawn])
        if part < count:
            return drawn, part
        return drawn + part - count + 1, None
