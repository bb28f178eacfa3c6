"""Chooses rows while the shards of an output are read once: evenly spaced ones, the first of each set, the first of each pair.

Each collector sees the shards in key order (`add`) and keeps a bounded number of rows.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.methods.input_kinds import SET
from stylebatch.reports.committed import Row, ShardRows


def spread_indices(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spaced, the first included."""
    return (
        # in integers: floats would miss places of large counts
        [place * count // limit for place in range(limit)] if count > limit else list(range(count))
    )


@dataclass
class Spread:
    """At most `limit` of all `count` rows, evenly spaced."""

    count: int
    limit: int
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = spread_indices(self.count, self.limit)

    def add(self, shard: ShardRows) -> None:
        places = _between(self._places, shard.shard.place, len(shard.table))
        self.rows += shard.rows(places)


@dataclass
class SpreadOfSuccess:
    """At most `limit` of the `count` rows that succeeded, evenly spaced, and the first `most_failed` of those that did not."""

    count: int
    limit: int
    most_failed: int
    rows: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = spread_indices(self.count, self.limit)

    def add(self, shard: ShardRows) -> None:
        succeeded = shard.places(succeeded=True)
        # counted among successes, which the markers know before a row is read
        chosen = _between(self._places, shard.shard.place_of_success, len(succeeded))
        self.rows += shard.rows(succeeded[place] for place in chosen)
        room = self.most_failed - len(self.failed)
        if room and len(succeeded) < len(shard.table):
            self.failed += shard.rows(shard.places(succeeded=False)[:room])


def _between(places: Sequence[int], start: int, length: int) -> list[int]:
    """Those of the sorted `places` from `start` on within `length`, counted from `start`."""
    first, last = bisect.bisect_left(places, start), bisect.bisect_left(places, start + length)
    return [place - start for place in places[first:last]]


@dataclass
class FirstOfSets:
    """The first `most_of_a_set` rows of the first `most_sets` sets."""

    most_sets: int
    most_of_a_set: int
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._is_complete = False

    def add(self, shard: ShardRows) -> None:
        if self._is_complete:
            return
        places = []
        for place, name in enumerate(shard.table[SET].to_pylist()):
            # sets follow each other, so that one too many ends it
            if name not in self._counts and len(self._counts) == self.most_sets:
                self._is_complete = True
                break
            self._counts[name] = self._counts.get(name, 0) + 1
            if self._counts[name] <= self.most_of_a_set:
                places.append(place)
        self.rows += shard.rows(places)


@dataclass
class FirstPairs:
    """The first `most[0]` x `most[1]` ids of two columns, and the first row of each pair of them.

    `num_repeated`: rows of pairs that have one already.
    """

    columns: tuple[str, str]
    most: tuple[int, int]
    pairs: dict[tuple[str, str], Row] = field(default_factory=dict)
    num_repeated: int = 0

    def __post_init__(self) -> None:
        self.ids: tuple[dict[str, None], dict[str, None]] = ({}, {})

    def add(self, shard: ShardRows) -> None:
        one, other = (shard.table[column] for column in self.columns)
        for ids, most, column in zip(self.ids, self.most, (one, other), strict=True):
            if len(ids) < most:
                for name in column.unique().to_pylist():
                    if len(ids) < most:
                        ids.setdefault(name)
        shown = pc.and_(*(_is_in(c, ids) for c, ids in zip((one, other), self.ids, strict=True)))
        places = pc.indices_nonzero(shown)
        found: dict[tuple[str, str], int] = {}
        pairs = zip(one.take(places).to_pylist(), other.take(places).to_pylist(), strict=True)
        for place, pair in zip(places.to_pylist(), pairs, strict=True):
            if pair not in self.pairs:
                found.setdefault(pair, place)
        # also pairs that an earlier shard had: not in `found`, yet among `places`
        self.num_repeated += len(places) - len(found)
        self.pairs.update(zip(found, shard.rows(found.values()), strict=True))

    @property
    def is_mostly_there(self) -> bool:
        """Whether at least half of the shown pairs exist."""
        return 2 * len(self.pairs) >= len(self.ids[0]) * len(self.ids[1])


def _is_in(column: pa.ChunkedArray, ids: dict[str, None]) -> pa.ChunkedArray:
    # typed: no ids yet would be an array of nulls
    return pc.is_in(column, value_set=pa.array(list(ids), pa.string()))
