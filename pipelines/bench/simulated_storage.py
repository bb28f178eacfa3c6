"""Storage that many transfers share equally, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False)
class Transfer:
    """Bytes under way; `then` is called when they are there, unless it was stopped."""

    ends_at: float
    then: Callable[[], None]
    is_stopped: bool = False


class SharedStorage:
    """`total`: bytes per second for all transfers together, `link`: for one at most.

    All transfers have the same share at any time, so each ends when the bytes of such a share, counted from the beginning,
    reach what it was when it began and its own: one number and a heap, however many there are.
    """

    def __init__(self, total: float, link: float) -> None:
        self.total, self.link = total, link
        self._share = self._at = 0.0
        self._under_way: list[tuple[float, int, Transfer]] = []
        self._numbers = itertools.count()
        self._count = 0

    @property
    def _rate(self) -> float:
        """Bytes per second of one transfer."""
        return min(self.link, self.total / self._count) if self._count else self.link

    def start(self, now: float, num_bytes: float, then: Callable[[], None]) -> Transfer:
        """Begin a transfer."""
        self._advance(now)
        transfer = Transfer(self._share + num_bytes, then)
        heapq.heappush(self._under_way, (transfer.ends_at, next(self._numbers), transfer))
        self._count += 1
        return transfer

    def stop(self, now: float, transfer: Transfer) -> None:
        """The rest of a transfer is not needed."""
        self._advance(now)
        transfer.is_stopped = True
        self._count -= 1

    @property
    def next_end(self) -> float:
        """When the next transfer ends, if none begins before; infinity without any."""
        while self._under_way and self._under_way[0][2].is_stopped:
            heapq.heappop(self._under_way)
        if not self._under_way:
            return math.inf
        return self._at + max(0.0, self._under_way[0][0] - self._share) / self._rate

    def end_next(self, now: float) -> Transfer:
        """The transfer that ends at `now`, which is `next_end`."""
        self._advance(now)
        ends_at, _, transfer = heapq.heappop(self._under_way)
        # a rounding error must not let it end before its bytes are counted
        self._share = max(self._share, ends_at)
        self._count -= 1
        return transfer

    def _advance(self, now: float) -> None:
        self._share += (now - self._at) * self._rate if self._count else 0.0
        self._at = now
