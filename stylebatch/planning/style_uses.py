"""How many styles a shard has: a reader that shuffles within shards meets so many at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from stylebatch.planning.grid import Grid
from stylebatch.planning.shard_cuts import Shards
from stylebatch.words import counted

MOST_SHARDS = 64
MOST_SAMPLES = 1 << 18
"""A plan looks at so many at most, evenly spaced shards: it may have millions."""


@dataclass(frozen=True)
class Spread:
    """Least, median and most of some counts; `num_counts`: how many these were."""

    least: int
    median: int
    most: int
    num_counts: int

    @classmethod
    def of(cls, counts: Iterable[int]) -> Spread:
        """Of at least one count; of an even number of them the lower one of the middle is the median."""
        times = sorted(Counter(counts).items())
        passed = list(accumulate(n for _, n in times))
        total = passed[-1]
        median = next(count for (count, _), n in zip(times, passed, strict=True) if 2 * n >= total)
        return cls(times[0][0], median, times[-1][0], total)

    def words(self, num_shards: int = 0) -> str:
        """`16 to 32 styles (median 31)`; of how many shards, where there are more."""
        is_even = self.least == self.most
        styles = counted(self.most, "style")
        more = [] if is_even else [f"median {self.median:,}"]
        more += [f"{counted(self.num_counts, 'shard')} looked at"] * (self.num_counts < num_shards)
        return (
            ("" if is_even else f"{self.least:,} to ")
            + styles
            + f" ({', '.join(more)})" * bool(more)
        )


def styles_per_shard(grid: Grid, cut: Shards) -> Spread:
    """Distinct columns in shards, of some where there are many."""
    numbers = cut.numbers
    blocks = cut.blocks_of(numbers[0])
    size = max(1, grid.num_samples_before(blocks.stop) - grid.num_samples_before(blocks.start))
    count = max(1, min(MOST_SHARDS, MOST_SAMPLES // size, len(numbers)))
    chosen = (numbers[i * len(numbers) // count] for i in range(count))
    return Spread.of(
        len({column for block in cut.blocks_of(n) for _, column in grid.block(block).cells})
        for n in chosen
    )
