"""Which worker renders which shard next: the queue of an engine's driver.

Shards are handed out as spans of neighbours, because neighbours share contents and styles: a worker goes on where it
was, and one that has nothing left takes the later half of the longest span. A shard whose worker died, or that failed,
is tried again after all others, by another worker where there is one, so that one bad machine poisons nothing; after
`max_attempts` it is poisoned and the run goes on without it.

At the very end a slow worker is given nothing that the others have done sooner without it.
Cost per shard does not depend on how many there are: spans are pairs of numbers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

TAIL = 4
"""Waiting shards per worker below which each is given one at a time: who is three times slower is not left with two."""


@dataclass
class _WorkerState:
    """A worker's span of positions, `first` to `stop` (exclusive), and what it was given, oldest first.

    `pace`: seconds per shard since it `joined`, None before its first; `speed`: shards per second while it is at one, else 0.
    """

    joined: float
    first: int = 0
    stop: int = 0
    given: list[int] = field(default_factory=list)
    num_done: int = 0
    pace: float | None = None
    speed: float = 0.0


class ShardQueue:
    """Shards to be done, by number. Workers are known by name; they may join and leave at any time.

    `in_flight`: shards that a worker is given at once, so that it never waits for the driver; one
    towards the end (`TAIL`), where what a slow worker holds is missing to the others.
    """

    def __init__(
        self,
        shards: Sequence[int],
        *,
        in_flight: int = 2,
        max_attempts: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shards = shards
        self.clock = clock
        self.in_flight = in_flight
        self.max_attempts = max_attempts
        self.poisoned: dict[int, str] = {}
        self.num_done = 0
        self._free: deque[tuple[int, int]] = deque([(0, len(shards))] if len(shards) else [])
        self._again: deque[int] = deque()
        self._failed_at: dict[int, list[str]] = {}
        self._workers: dict[str, _WorkerState] = {}
        self._num_given = 0
        # sums over workers that are at a shard, of those that have done one
        self._num_paced, self._speed = 0, 0.0

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
        if worker in self._workers:
            raise ValueError(f"worker {worker} is there already; accepted: a name not in use")
        self._workers[worker] = _WorkerState(self.clock())

    def leave(self, worker: str, reason: str) -> list[int]:
        """A worker is gone: the shard it was at has failed once, what else it was given waits again.

        Returns the shards that wait again or are poisoned by this, the failed one first.
        """
        state = self._workers.pop(worker, None)
        if state is None:
            return []
        if state.first < state.stop:
            self._free.append((state.first, state.stop))
        given, state.given = state.given, []
        self._weigh(state)
        self._num_given -= len(given)
        # innocent: they were given ahead and never begun, so they count no attempt
        self._again.extendleft(reversed(given[1:]))
        if given:
            self._failed(worker, given[0], reason)
        return given

    def next(self, worker: str) -> int | None:
        """The next shard for `worker`, or None while it has enough or nothing waits that it should try."""
        state = self._workers[worker]
        waiting = self.num_waiting
        at_once = self.in_flight if waiting > TAIL * len(self._workers) else 1
        if waiting <= 0 or len(state.given) >= at_once or self._is_too_slow(state, waiting):
            return None
        if state.first >= state.stop:
            self._find_span(state)
        if state.first < state.stop:
            shard = self.shards[state.first]
            state.first += 1
        # only the first is looked at: it waits for a worker at whom it has not failed yet
        elif self._again and not self._is_for_others(worker, self._again[0]):
            shard = self._again.popleft()
        else:
            return None
        state.given.append(shard)
        self._weigh(state)
        self._num_given += 1
        return shard

    def done(self, worker: str, shard: int) -> None:
        """`worker` has committed `shard`."""
        self._take_back(worker, shard)
        self.num_done += 1
        state = self._workers[worker]
        state.num_done += 1
        # since it joined, not since it was given the shard: two are given at once
        state.pace = (self.clock() - state.joined) / state.num_done
        self._weigh(state)

    def fail(self, worker: str, shard: int, reason: str, *, is_final: bool = False) -> None:
        """`worker` is well, but could not make `shard`; another attempt is in vain where that `is_final`."""
        self._take_back(worker, shard)
        self._failed(worker, shard, reason, is_final)

    def attempts(self, shard: int) -> int:
        """How often `shard` has failed."""
        return len(self._failed_at.get(shard, ()))

    def _take_back(self, worker: str, shard: int) -> None:
        state = self._workers[worker]
        state.given.remove(shard)
        self._weigh(state)
        self._num_given -= 1

    def _weigh(self, state: _WorkerState) -> None:
        """Keep the sums: at thousands of workers the driver has no time to add them up for each."""
        speed = 1 / state.pace if state.given and state.pace else 0.0
        self._num_paced += bool(speed) - bool(state.speed)
        # without anybody the rounding errors of a long run end too
        self._speed = self._speed + speed - state.speed if self._num_paced else 0.0
        state.speed = speed

    def _is_too_slow(self, state: _WorkerState, waiting: int) -> bool:
        """Whether the others, busy now, will have done what waits before `state` were done with one shard.

        Each of them needs about half its pace for what it is at and one pace for every shard after it; a full one
        is counted for the half, because the last of them matters.
        """
        if state.pace is None or waiting > TAIL * len(self._workers):
            return False
        others, speed = self._num_paced - bool(state.speed), self._speed - state.speed
        return others > 0 and state.pace * speed > others + waiting

    def _is_for_others(self, worker: str, shard: int) -> bool:
        """Whether `shard` failed at `worker`, and somebody is there at whom it did not."""
        failed_at = self._failed_at.get(shard, ())
        return worker in failed_at and any(other not in failed_at for other in self._workers)

    def _failed(self, worker: str, shard: int, reason: str, is_final: bool = False) -> None:
        self._failed_at.setdefault(shard, []).append(worker)
        if is_final or self.attempts(shard) >= self.max_attempts:
            self.poisoned[shard] = reason
        else:
            self._again.append(shard)

    def _find_span(self, state: _WorkerState) -> None:
        """A span nobody has, or the later half of the longest."""
        if self._free:
            state.first, state.stop = self._free.popleft()
            return
        longest = max(self._workers.values(), key=lambda other: other.stop - other.first)
        if longest.first < longest.stop:
            # rounds down, so that a span of one is taken whole: its owner is at an earlier shard
            middle = (longest.first + longest.stop) // 2
            state.first, state.stop = middle, longest.stop
            longest.stop = middle
