"""Pools of styles, and the contents that stream through them: the arithmetic of sampled pairings, without a table of contents.

1. Contents x k uses fall to the styles, as equally as can be. Where there are fewer uses than styles, some are left out.
2. A round walks through all styles in a shuffled order and cuts them into pools of up to `columns` neighbours. A style has
   about `LONGEST_STAY` uses in a round, or all that it has in the only one: it returns in a pool of the next round.
3. A pool takes neighbouring contents, in groups of up to `rows`, until its uses are spent. A content whose k uses end one
   pool and begin the next is a group of its own, in both.
4. Within a pool uses go to its styles by turns, so that their counts differ by one at most, in any stretch of them.

A worker that goes through the blocks in order, and keeps the present pool and group, inverts each content once and each
style once per round: 49 + 50/k + 50 rounds S/N evaluations per sample of N, less than 2.5 above 49 + 50/k + 50 S/N.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from stylebatch.planning.grid import Visits

LONGEST_STAY = 20
"""Uses of a style in one round. Fewer cost more inversions; more let neighbouring contents meet the same few styles."""


@dataclass(frozen=True)
class Limits:
    """k uses per content; rows and columns of a block at most."""

    per_content: int
    rows: int
    columns: int


class Group(NamedTuple):
    """Neighbouring contents of a pool: the first, by its place in the round, and its first use, by its place in the pool."""

    first_content: int
    num_contents: int
    first_use: int
    num_uses: int


class Part(NamedTuple):
    """A block of a pool: one of the `num_parts` stretches of styles that `group` meets."""

    group: Group
    number: int
    num_parts: int


@dataclass(frozen=True)
class Pool:
    """Styles and uses by their places in the round; at least k styles and k uses.

    It has more than `columns` styles only where k of them need the room. Its groups then take several blocks each, in turn
    forwards and backwards, so that the last styles of a group are the first of the next.
    """

    limits: Limits
    first_style: int
    num_styles: int
    first_use: int
    num_uses: int

    @property
    def is_one_block_wide(self) -> bool:
        return self.num_styles <= self.limits.columns

    @cached_property
    def _runs(self) -> tuple[tuple[int, int, int], ...]:
        """(groups, contents of each, uses of each), in order: shared with the pool before, whole contents, shared with the next."""
        k = self.limits.per_content
        # uses that end the content which the pool before began
        lead = -self.first_use % k
        contents, tail = divmod(self.num_uses - lead, k)
        groups = math.ceil(contents / self.limits.rows)
        size, longer = divmod(contents, groups) if groups else (0, 0)
        runs = (
            (1, 1, lead),
            (longer, size + 1, (size + 1) * k),
            (groups - longer, size, size * k),
            (1, 1, tail),
        )
        return tuple(run for run in runs if run[0] and run[2])

    def _num_parts(self, uses: int) -> int:
        """Blocks of a group with so many uses."""
        if self.is_one_block_wide:
            return 1
        return math.ceil(min(self.num_styles, uses) / self.limits.columns)

    @cached_property
    def num_blocks(self) -> int:
        return sum(groups * self._num_parts(uses) for groups, _, uses in self._runs)

    def part(self, block: int) -> Part:
        """What block `block` of the pool holds."""
        place, content, use = 0, self.first_use // self.limits.per_content, 0
        for groups, contents, uses in self._runs:
            count = self._num_parts(uses)
            if block < groups * count:
                group, number = divmod(block, count)
                # every other group goes backwards, and begins with the styles at hand
                number = count - 1 - number if (place + group) % 2 else number
                content, use = content + group * contents, use + group * uses
                return Part(Group(content, contents, use, uses), number, count)
            block -= groups * count
            place, content, use = place + groups, content + groups * contents, use + groups * uses
        raise IndexError(f"block {block} after the pool's last; accepted: below {self.num_blocks}")

    def group_of(self, content: int) -> Group:
        """The group of a content that has uses in this pool."""
        first, use = self.first_use // self.limits.per_content, 0
        for groups, contents, uses in self._runs:
            if content < first + groups * contents:
                group = (content - first) // contents
                return Group(first + group * contents, contents, use + group * uses, uses)
            first, use = first + groups * contents, use + groups * uses
        raise IndexError(f"content {content} after the pool's last; accepted: below {first}")

    @cached_property
    def visits(self) -> Visits:
        """A content that the pool before begins is inverted there. Blocks of one group count as equal."""
        found = Visits()
        full = 0
        for groups, contents, uses in self._runs:
            styles = self.num_styles if self.is_one_block_wide else min(self.num_styles, uses)
            full += groups if styles == self.num_styles else 0
            parts = self._num_parts(uses)
            found += Visits(
                prepared_rows=groups * contents,
                prepared_columns=groups * styles,
                samples=Counter({math.ceil(uses / parts): groups * (uses % parts or parts)})
                + Counter({uses // parts: groups * (parts - (uses % parts or parts))}),
                rows=groups * contents * parts,
                columns=groups * styles,
            )
        is_begun = self.first_use % self.limits.per_content > 0
        kept = self._num_styles_kept(full, first=int(is_begun))
        return replace(
            found,
            prepared_rows=found.prepared_rows - int(is_begun),
            prepared_columns=found.prepared_columns - kept,
        )

    def _num_styles_kept(self, full: int, *, first: int) -> int:
        """Styles that groups find inverted, where `full` of them, from the `first`, meet all styles of the pool."""
        if self.is_one_block_wide:
            return self.num_styles * (sum(groups for groups, _, _ in self._runs) - 1)
        turns = max(0, full - 1)
        count = math.ceil(self.num_styles / self.limits.columns)
        at_start = self.num_styles // count
        at_end = self.num_styles - (count - 1) * self.num_styles // count
        forwards = turns // 2 if first % 2 else math.ceil(turns / 2)
        return forwards * at_end + (turns - forwards) * at_start


@dataclass(frozen=True)
class Round:
    """Every style once, for `uses` uses, and `more` of the styles for one use more; uses make whole contents."""

    limits: Limits
    num_styles: int
    uses: int
    more: int = 0

    @property
    def num_uses(self) -> int:
        return self.num_styles * self.uses + self.more

    @property
    def num_contents(self) -> int:
        return self.num_uses // self.limits.per_content

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """Uses of a pool are whole contents where counts that differ by one allow it."""
        k, total, pools = self.limits.per_content, self.num_uses, []
        styles, use = 0, 0
        for size in self._sizes():
            left = self.num_styles - styles - size
            least = max(use + size * self.uses, total - left * (self.uses + 1))
            most = min(use + size * (self.uses + 1), total - left * self.uses)
            ideal = total * (styles + size) // self.num_styles
            lowest, highest = math.ceil(least / k) * k, most // k * k
            end = min(max(ideal, least), most)
            # counts that differ by one leave room for whole contents most of the time
            if lowest <= highest:
                end = min(max((ideal + k // 2) // k * k, lowest), highest)
            pools.append(Pool(self.limits, styles, size, use, end - use))
            styles, use = styles + size, end
        return tuple(pools)

    def _sizes(self) -> Iterator[int]:
        """Styles of each pool: at most `columns`, at least k, and so that the groups of contents are nearly full.

        Sizes are multiples of a number that makes their uses whole contents, where all styles together are.
        """
        k, columns = self.limits.per_content, self.limits.columns
        step = k // math.gcd(k, self.uses)
        # such sizes exist where all styles together can be cut so, and a block has the room
        if self.num_styles % step or step > columns:
            step = 1
        steps = self.num_styles // step
        fewest = math.ceil(steps / (columns // step))
        most = min(steps // math.ceil(k / step), 2 * fewest)
        if fewest == 1 or most <= fewest:
            count = max(1, min(fewest, most))
        else:
            blocks = {
                count: self._num_groups(steps, count, step) for count in range(fewest, most + 1)
            }
            # fewer pools invert less; 2 % more groups are worth that
            enough = 1.02 * min(blocks.values())
            count = next(count for count in blocks if blocks[count] <= enough)
        for pool in range(count):
            yield step * ((pool + 1) * steps // count - pool * steps // count)

    def _num_groups(self, steps: int, count: int, step: int) -> int:
        """About how many groups of contents there are with so many pools."""
        size, longer = divmod(steps, count)
        short, long = (
            math.ceil(math.ceil(n * step * self.num_contents / self.num_styles) / self.limits.rows)
            for n in (size, size + 1)
        )
        return (count - longer) * short + longer * long

    @cached_property
    def _first_blocks(self) -> list[int]:
        return list(accumulate((pool.num_blocks for pool in self.pools), initial=0))

    @property
    def num_blocks(self) -> int:
        return self._first_blocks[-1]

    def pool_of_block(self, block: int) -> tuple[Pool, int]:
        """The pool of a block of the round, and the block's number in it."""
        pool = bisect_right(self._first_blocks, block) - 1
        return self.pools[pool], block - self._first_blocks[pool]

    def pools_of_content(self, content: int) -> list[Pool]:
        """The pool of a content of the round, or the two that it has uses in."""
        k = self.limits.per_content
        pools, first = [], content * k
        while first < (content + 1) * k:
            pools.append(self.pools[bisect_right(self._first_uses, first) - 1])
            first = pools[-1].first_use + pools[-1].num_uses
        return pools

    @cached_property
    def _first_uses(self) -> list[int]:
        return [pool.first_use for pool in self.pools]

    @cached_property
    def visits(self) -> Visits:
        return sum((pool.visits for pool in self.pools), Visits())


@dataclass(frozen=True)
class Rounds:
    """All rounds of a run: the first takes what is left over, and the last `num_long` have k uses per style more.

    Which round, block or content comes where is division, however many there are.
    """

    first: Round
    short: Round
    long: Round
    count: int
    num_long: int

    @classmethod
    def of(cls, num_contents: int, num_styles: int, limits: Limits) -> Rounds:
        """`num_styles`: at least k, at most as many as there are uses."""
        k = limits.per_content
        uses, more = divmod(num_contents * k, num_styles)
        scores, rest = divmod(uses, k)
        count = 1
        # a single pool holds all styles and never changes: rounds would invert them again
        if num_styles > max(limits.columns, 2 * k - 1):
            count = max(1, min(math.ceil((uses + (more > 0)) / LONGEST_STAY), scores))
        each, num_long = divmod(scores, count)
        return cls(
            Round(limits, num_styles, each * k + rest, more),
            Round(limits, num_styles, each * k),
            Round(limits, num_styles, (each + 1) * k),
            count,
            num_long,
        )

    def __getitem__(self, number: int) -> Round:
        if number == 0:
            return self.first
        return self.short if number < self.count - self.num_long else self.long

    def _before(self, number: int, first: int, short: int, long: int) -> int:
        """Sum over the rounds before `number` of what each of a kind has."""
        if number == 0:
            return 0
        # the long rounds are the last ones
        num_long = max(0, number - (self.count - self.num_long))
        return first + (number - 1 - num_long) * short + num_long * long

    def contents_before(self, number: int) -> int:
        return self._before(number, *(r.num_contents for r in (self.first, self.short, self.long)))

    def blocks_before(self, number: int) -> int:
        if self.count == 1:  # the kinds of round that do not come are not cut into pools
            return self.first.num_blocks * number
        return self._before(number, *(r.num_blocks for r in (self.first, self.short, self.long)))

    def of_content(self, content: int) -> int:
        """Number of the round that a content belongs to."""
        return bisect_right(range(self.count), content, key=self.contents_before) - 1

    def of_block(self, block: int) -> int:
        """Number of the round that a block belongs to."""
        return bisect_right(range(self.count), block, key=self.blocks_before) - 1

    @property
    def are_one_block_wide(self) -> bool:
        return all(pool.is_one_block_wide for pool in self.first.pools)

    @property
    def visits(self) -> Visits:
        if self.count == 1:
            return self.first.visits
        num_short = self.count - 1 - self.num_long
        return self.first.visits + self.short.visits * num_short + self.long.visits * self.num_long
