"""Rows in buckets: those of one size come together, so that no block mixes two sizes.

sizes of rows 0..4      A B A A B
places                  0 2 3 | 1 4
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BucketOrder:
    """`rows` at each place; `starts`: first place of each bucket, and the end. Within a bucket rows ascend."""

    rows: tuple[int, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, buckets: Sequence[int], first: int = 0) -> BucketOrder:
        """Rows from `first` on by their bucket, the bucket that comes first before the others. `buckets`: of each row."""
        members: dict[int, list[int]] = {}
        for row in range(first, len(buckets)):
            members.setdefault(buckets[row], []).append(row)
        starts = [0]
        for rows in members.values():
            starts.append(starts[-1] + len(rows))
        return cls(tuple(row for rows in members.values() for row in rows), tuple(starts))

    def bucket_of(self, place: int) -> int:
        """Which of the buckets, in their order, a place is in."""
        return bisect_right(self.starts, place) - 1


@dataclass(frozen=True)
class BucketGroups:
    """The places of an order cut into groups that mix no buckets; as `grid.Groups`, with the rows as members."""

    order: BucketOrder
    starts: tuple[int, ...]

    @classmethod
    def of_at_most(cls, order: BucketOrder, size: int) -> BucketGroups:
        """Groups of at most `size` rows; those of a bucket differ by one at most."""
        starts = [0]
        for first, stop in zip(order.starts, order.starts[1:], strict=False):
            count = math.ceil((stop - first) / size)
            starts += [first + (i + 1) * (stop - first) // count for i in range(count)]
        return cls(order, tuple(starts))

    @property
    def total(self) -> int:
        return self.starts[-1]

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def start(self, group: int) -> int:
        return self.starts[group]

    def members(self, group: int) -> tuple[int, ...]:
        return self.order.rows[self.starts[group] : self.starts[group + 1]]

    @property
    def sizes(self) -> Counter[int]:
        """How many groups there are of each size."""
        return Counter(b - a for a, b in zip(self.starts, self.starts[1:], strict=False))
