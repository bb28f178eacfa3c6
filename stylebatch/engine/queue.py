"""Which worker renders which shard next: the queue of an engine's driver.

Shards are handed out as spans of neighbours, because neighbours share contents and styles: a worker goes on where it
was, and one that has nothing left takes the later half of the longest span. A shard whose worker died, or that failed,
is tried again after all others; after `max_attempts` it is poisoned and the run goes on without it.

Cost per shard does not depend on how many there are: spans are pairs of numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class _Seat:
    """A worker's span of positions, `first` to `stop` (exclusive), and what it was given, oldest first."""

    first: int = 0
    stop: int = 0
    given: list[int] = field(default_factory=list)


class ShardQueue:
    """Shards to be done, by number. Workers are known by name; they may join and leave at any time.

    `in_flight`: shards that a worker is given at once, so that it never waits for the driver; one
    when fewer shards wait than there are workers.
    """

    def __init__(self, shards: Sequence[int], *, in_flight: int = 2, max_attempts: int = 3) -> None:
        self.shards = shards
        self.in_flight = in_flight
        self.max_attempts = max_attempts
        self.poisoned: dict[int, str] = {}
        self.num_done = 0
        self._free: deque[tuple[int, int]] = deque([(0, len(shards))] if len(shards) else [])
        self._again: deque[int] = deque()
        self._attempts: dict[int, int] = {}
        self._seats: dict[str, _Seat] = {}
        self._num_given = 0

    @property
    def is_finished(self) -> bool:
        """Whether every shard is done or poisoned."""
        return self.num_done + len(self.poisoned) >= len(self.shards)

    @property
    def is_hopeless(self) -> bool:
        """Whether shard after shard is poisoned and none was ever done."""
        return self.num_done == 0 and len(self.poisoned) >= self.max_attempts

    @property
    def num_waiting(self) -> int:
        """Shards that no worker was given."""
        return len(self.shards) - self.num_done - len(self.poisoned) - self._num_given

    def join(self, worker: str) -> None:
        """A worker is ready for shards."""
        if worker in self._seats:
            raise ValueError(f"worker {worker} is there already; accepted: a name not in use")
        self._seats[worker] = _Seat()

    def leave(self, worker: str, reason: str) -> list[int]:
        """A worker is gone: the shard it was at has failed once, what else it was given waits again.

        Returns the shards that wait again or are poisoned by this, the failed one first.
        """
        seat = self._seats.pop(worker, None)
        if seat is None:
            return []
        if seat.first < seat.stop:
            self._free.append((seat.first, seat.stop))
        given = list(seat.given)
        self._num_given -= len(given)
        for shard in given[1:]:
            self._again.appendleft(shard)
        if given:
            self._failed(given[0], reason)
        return given

    def next(self, worker: str) -> int | None:
        """The next shard for `worker`, or None while it has enough or nothing waits."""
        seat = self._seats[worker]
        waiting = self.num_waiting
        if waiting <= 0 or len(seat.given) >= (self.in_flight if waiting > len(self._seats) else 1):
            return None
        if seat.first >= seat.stop:
            self._find_span(seat)
        if seat.first < seat.stop:
            shard = self.shards[seat.first]
            seat.first += 1
        elif self._again:
            shard = self._again.popleft()
        else:
            return None
        seat.given.append(shard)
        self._num_given += 1
        return shard

    def done(self, worker: str, shard: int) -> None:
        """`worker` has committed `shard`."""
        self._take_back(worker, shard)
        self.num_done += 1

    def fail(self, worker: str, shard: int, reason: str) -> None:
        """`worker` is well, but could not make `shard`."""
        self._take_back(worker, shard)
        self._failed(shard, reason)

    def attempts(self, shard: int) -> int:
        """How often `shard` has failed."""
        return self._attempts.get(shard, 0)

    def _take_back(self, worker: str, shard: int) -> None:
        self._seats[worker].given.remove(shard)
        self._num_given -= 1

    def _failed(self, shard: int, reason: str) -> None:
        self._attempts[shard] = self.attempts(shard) + 1
        if self._attempts[shard] >= self.max_attempts:
            self.poisoned[shard] = reason
        else:
            self._again.append(shard)

    def _find_span(self, seat: _Seat) -> None:
        """A span nobody has, or the later half of the longest."""
        if self._free:
            seat.first, seat.stop = self._free.popleft()
            return
        longest = max(self._seats.values(), key=lambda other: other.stop - other.first)
        if longest.first < longest.stop:
            middle = (longest.first + longest.stop) // 2
            seat.first, seat.stop = middle, longest.stop
            longest.stop = middle
