"""Which images are held at once while others stream past: the pools of a list of pairs.

1. Neighbours among the streamed images that meet few others in all make a pool (a class with styles of its own, a list that
   was once drawn from pools).
2. A cluster grows from the images that one streamed image meets, by whoever shares most with those in it. It takes the
   streamed images that have all their pairs within it.
3. What is left is clustered in the same way, and each cluster takes all pairs that its images still have.
4. Small clusters share a pool, and so do images that share nothing.

By 1 and 2 an image may be in several pools: it must return for the rest of its pairs. That is done where it spares more
inversions than it costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

MOST_PARTNERS = 64
"""Images that meet more than this are in most pools anyway, so they do not count where pools are chosen."""
FEWEST_PAIRS = 8
"""Pairs for each image of a pool that must return, which bounds the number of pools."""
MOST_WORK = 32
"""Steps for each pair before 2 is given up: some 5 s for 10^6 pairs in which there is nothing to be found."""


def distinct(values: Numbers) -> tuple[Numbers, Numbers]:
    """The distinct values, ascending, and the index among them of each value.

    `np.unique` puts a million numbers into a hash table, which takes four times as long as to sort them.
    """
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    is_first = np.diff(ascending, prepend=ascending[:1] - 1) > 0
    index = np.empty_like(order)
    index[order] = np.cumsum(is_first) - 1
    return ascending[is_first], index


def pools_of(held: Numbers, streamed: Numbers, at_once: int) -> Numbers:
    """The pool of each pair, with at most `at_once` of `held` in one; the pairs are distinct and ascend by `held`."""
    partners = np.bincount(streamed)[streamed]
    is_shared = (partners > 1) & (partners <= MOST_PARTNERS)
    is_there = np.bincount(held) > 0
    pools, home = np.full(len(held), -1), np.full(len(is_there), -1)
    line = _Line(at_once)
    if np.count_nonzero(is_there) > at_once and is_shared.any():
        clusters = _Clusters(held[is_shared], streamed[is_shared], line)
        clusters.join_neighbours()
        clusters.grow(whole_only=True)
        clusters.grow(whole_only=False)
        pools[is_shared] = clusters.pool
        np.maximum.at(home, clusters.held, clusters.pool)
    alone = np.flatnonzero(is_there & (home < 0))
    home[alone] = (line.place + np.arange(len(alone))) // at_once
    return np.where(pools < 0, home[held], pools)


class _Line:
    """Places of pools, end to end, `at_once` in each; they are taken from the first to the last."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.place = 0

    def pool_for(self, count: int) -> int:
        """The pool that takes so many images."""
        # a cluster is never cut in two
        if self.place % self.at_once + count > self.at_once:
            self.place += -self.place % self.at_once
        self.place += count
        return (self.place - 1) // self.at_once


class _Clusters:
    """Pairs by number, ascending by `held`, to each of which a `pool` is given.

    `is_in`: the held images of the present cluster; `weight`: how many pairs of it each shares a streamed image with.
    """

    def __init__(self, held: Numbers, streamed: Numbers, line: _Line) -> None:
        self.held, self.streamed, self.line = held, streamed, line
        self.pool = np.full(len(held), -1)
        self._first_of_held = np.append(0, np.cumsum(np.bincount(held)))
        self._first_of_streamed = np.append(0, np.cumsum(np.bincount(streamed)))
        self._by_streamed = np.argsort(streamed, kind="stable")
        self.is_in = np.zeros(held[-1] + 1, dtype=bool)
        self.weight = np.zeros(held[-1] + 1, dtype=np.int64)
        self.work = 0

    def join_neighbours(self) -> None:
        """Pools for stretches of streamed images that meet at most `at_once` others in all, where that pays."""
        pairs = self._by_streamed
        held = self.held[pairs].tolist()
        starts = np.flatnonzero(np.diff(self.streamed[pairs], prepend=-1)).tolist()
        first, met, num_images = 0, set[int](), 0
        for start, stop in zip(starts, [*starts[1:], len(held)], strict=True):
            more = met.union(held[start:stop])
            if len(more) > self.line.at_once:
                self._take_stretch(pairs[first:start], met, num_images)
                first, more, num_images = start, set(held[start:stop]), 0
            met, num_images = more, num_images + 1
        self._take_stretch(pairs[first:], met, num_images)

    def _take_stretch(self, pairs: Numbers, met: set[int], num_images: int) -> None:
        pays = len(pairs) >= FEWEST_PAIRS * len(met) and len(pairs) - num_images > len(met)
        if pays and len(met) <= self.line.at_once:
            self.pool[pairs] = self.line.pool_for(len(met))

    def grow(self, *, whole_only: bool) -> None:
        """Pools from clusters. `whole_only`: for streamed images that have all their pairs in one, where that pays."""
        for start in range(len(self._first_of_held) - 1):
            while len(self._left(start)):
                if whole_only and self.work > MOST_WORK * len(self.held):
                    return
                cluster = self._cluster(start)
                pairs = self._whole(cluster) if whole_only else self._pairs_of(cluster)
                self.is_in[cluster] = False
                self.weight[:] = 0
                if not len(pairs):
                    break
                self.pool[pairs] = self.line.pool_for(len(cluster))

    def _left(self, held: int) -> Numbers:
        """Pairs of a held image that have no pool."""
        pairs = np.arange(self._first_of_held[held], self._first_of_held[held + 1])
        return pairs[self.pool[pairs] < 0]

    def _left_of(self, streamed: Numbers) -> Numbers:
        """Pairs of streamed images that have no pool."""
        first = self._first_of_streamed[streamed]
        lengths = self._first_of_streamed[streamed + 1] - first
        shift = np.repeat(first - np.cumsum(lengths) + lengths, lengths)
        pairs = self._by_streamed[shift + np.arange(len(shift))]
        self.work += len(pairs)
        return pairs[self.pool[pairs] < 0]

    def _pairs_of(self, cluster: list[int]) -> Numbers:
        return np.concatenate([self._left(held) for held in cluster])

    def _cluster(self, start: int) -> list[int]:
        """Up to `at_once` held images, `start` among them; the lowest number of several alike."""
        cluster, near = self._seed(start), np.empty(0, dtype=np.int64)
        for held in cluster:
            near = self._add(held, near)
        while len(cluster) < self.line.at_once and len(near):
            weights = self.weight[near]
            cluster.append(int(near[weights == weights.max()].min()))
            near = self._add(cluster[-1], near)
        return cluster

    def _seed(self, start: int) -> list[int]:
        """`start`, and those that it shares its most shared image with."""
        met = self.streamed[self._left(start)]
        # the first of the most shared: a tie must not depend on the order of the list
        counts = np.bincount(self.streamed[self._left_of(met)], minlength=met[-1] + 1)
        together = self.held[self._left_of(met[[np.argmax(counts[met])]])]
        return [start, *together[together != start].tolist()][: self.line.at_once]

    def _add(self, held: int, near: Numbers) -> Numbers:
        """Adds to the cluster. Returns all that share something with it, perhaps several times; `near`: those before."""
        self.is_in[held] = True
        met = self.streamed[self._left(held)]
        partners = self.held[self._left_of(met)]
        np.add.at(self.weight, partners, 1)
        near = np.concatenate((near, partners))
        # images stand there as often as they share something: a bound on memory
        if len(near) > len(self.weight):
            near = np.flatnonzero(self.weight)
        return near[~self.is_in[near]]

    def _whole(self, cluster: list[int]) -> Numbers:
        """Pairs of the streamed images that have all theirs in a cluster; none where another way costs less."""
        everything = self._pairs_of(cluster)
        met, _ = distinct(self.streamed[everything])
        pairs = self._left_of(met)
        index = np.searchsorted(met, self.streamed[pairs])
        inside = np.bincount(index, self.is_in[self.held[pairs]]).astype(np.int64)
        is_whole = inside == np.bincount(index)
        whole: Numbers = pairs[is_whole[index]]
        num_returning = len(cluster) - self._num_done(everything, whole)
        spared = int((inside[is_whole] - 1).sum())
        is_worth_it = len(whole) >= FEWEST_PAIRS * num_returning and spared > num_returning
        return whole if is_worth_it else whole[:0]

    def _num_done(self, everything: Numbers, taken: Numbers) -> int:
        """Held images of which all pairs left are taken."""
        counts = [np.bincount(self.held[p], minlength=len(self.is_in)) for p in (everything, taken)]
        return int(np.count_nonzero((counts[0] == counts[1]) & self.is_in))
