"""A run on many machines in virtual time: the run's own queue hands out shards; machines differ, start late and are taken away.

1. A machine is asked for, is placed after a while, and reads the weights from the storage that all share.
2. It reads what a shard needs while it computes, writes the shard, commits it, and goes on with the next that it was given.
3. The driver hears of all that has ended since it listened last, and hands out shards. It hears late of a lost machine, and
   replaces it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pipelines.bench.simulated_storage import SharedStorage, Transfer
from stylebatch.engine.queue import TAIL, ShardQueue


@dataclass(frozen=True)
class Cost:
    """Of a shard: seconds of a device of speed 1 that the plan counts, and those that images inverted again take; bytes."""

    useful_s: float
    again_s: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0


class Phase(Protocol):
    """Numbers that a queue hands out. `cost`: of one by a machine that keeps `kept`, which it may change."""

    @property
    def numbers(self) -> range: ...
    def cost(self, number: int, kept: dict[str, Any]) -> Cost: ...


@dataclass(frozen=True)
class Conditions:
    """What machines and storage are like. Spreads are deviations of the logarithm; `placed_s`: mean of the wait for a machine.

    `driver_s`, `driver_per_worker_s`: what the driver takes to listen and to hand out.
    """

    seed: int = 0
    speed_spread: float = 0.05
    shard_spread: float = 0.03
    slow_share: float = 0.01
    slow_speed: float = 0.5
    placed_s: float = 30.0
    load_s: float = 20.0
    weights_bytes: float = 2.1e9
    preempted_per_hour: float = 0.02
    noticed_s: float = 20.0
    storage_bytes_s: float = 20e9
    link_bytes_s: float = 1.5e9
    commit_s: float = 0.5
    driver_s: float = 6e-3
    driver_per_worker_s: float = 2.5e-6


IDEAL = Conditions(
    speed_spread=0.0, shard_spread=0.0, slow_share=0.0, placed_s=0.0, load_s=0.0, weights_bytes=0.0,
    preempted_per_hour=0.0, storage_bytes_s=1e18, link_bytes_s=1e18, commit_s=0.0,
    driver_s=0.0, driver_per_worker_s=0.0,
)  # fmt: skip
"""Equal machines that are there at once and stay, and whatever costs no device time costs none."""


@dataclass(frozen=True)
class Result:
    """One run. `spent`: seconds of all machines by what they did; `done`: how often each shard of the last phase was.

    `tail_s`: from the first machine that had nothing left to the end.
    """

    workers: int
    shards: int
    took_s: float
    spent: dict[str, float]
    tail_s: float
    read_bytes: float
    written_bytes: float
    preempted: int
    poisoned: int
    done: Counter[int]

    @property
    def efficiency(self) -> float:
        """Useful device time over the time of all machines, from when each was asked for."""
        return self.share("useful")

    def share(self, what: str) -> float:
        """Of the time of all machines."""
        return self.spent.get(what, 0.0) / sum(self.spent.values())


@dataclass(eq=False)
class _Machine:
    """`since`: until when its time is accounted for; `of_shard`: spent on the present shard, not yet known to be of use."""

    name: str
    speed: float
    since: float
    state: str = "start"
    kept: dict[str, Any] = field(default_factory=dict)
    given: deque[int] = field(default_factory=deque)
    of_shard: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    transfer: Transfer | None = None
    due: int = 0
    is_gone: bool = False


class Simulation:
    """`run` goes through the phases one after another, as a run inverts the styles of a cache before it renders."""

    def __init__(self, workers: int, conditions: Conditions, *, max_attempts: int = 3) -> None:
        self.num_workers, self.conditions, self.max_attempts = workers, conditions, max_attempts
        self.now, self._is_listening = 0.0, False
        self._unheard: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.storage = SharedStorage(conditions.storage_bytes_s, conditions.link_bytes_s)
        self.machines: dict[str, _Machine] = {}
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.bytes: defaultdict[str, float] = defaultdict(float)
        self.num_preempted = 0
        # those that the driver may give something: with fewer shards than at most, and with none
        self._short: dict[str, _Machine] = {}
        self._empty: dict[str, _Machine] = {}
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._named = itertools.count()
        self._draw = np.random.default_rng(conditions.seed)
        self.queue: ShardQueue

    def run(self, phases: Sequence[Phase]) -> Result:
        """All phases, to the last shard that the driver hears of."""
        poisoned = shards = 0
        for phase in phases:
            self._begin_phase(phase)
            while not self.queue.is_finished:
                self._next_event()
            poisoned, shards = poisoned + len(self.queue.poisoned), shards + len(phase.numbers)
        tail = 0.0
        for machine in self.machines.values():
            if machine.is_gone:
                continue
            if machine.state == "idle":
                tail = max(tail, self.now - machine.since)
            self._lose_present(machine)
        return Result(
            self.num_workers, shards, self.now, dict(self.spent), tail, self.bytes["read"],
            self.bytes["written"], self.num_preempted, poisoned, self._done,
        )  # fmt: skip

    def _begin_phase(self, phase: Phase) -> None:
        self.phase, self._done = phase, Counter[int]()
        self.queue = ShardQueue(
            phase.numbers, max_attempts=self.max_attempts, clock=lambda: self.now
        )
        spread = self.conditions.shard_spread
        self._noise = np.exp(spread * self._draw.standard_normal(len(phase.numbers)))
        for machine in self.machines.values():
            if machine.state != "start" and not machine.is_gone:
                self.queue.join(machine.name)
        self._grow()
        self._hand_out()

    def _grow(self) -> None:
        """As many machines as were wanted, and no more than there are shards left."""
        queue = self.queue
        left = len(queue.shards) - queue.num_done - len(queue.poisoned)
        while len(self.machines) < min(self.num_workers, left):
            self._ask()

    def _next_event(self) -> None:
        ends = self.storage.next_end
        if self._events and self._events[0][0] <= ends:
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
            return
        self.now = max(self.now, ends)
        self.storage.end_next(self.now).then()

    def _after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        event = (self.now + delay, next(self._numbers), call, arguments)
        heapq.heappush(self._events, event)

    def _tell_driver(self, call: Callable[..., None], *arguments: Any) -> None:
        """The driver hears of it when it listens next."""
        self._unheard.append((call, arguments))
        if not self._is_listening:
            self._listen()

    def _listen(self) -> None:
        given, heard = self.conditions, self._unheard
        self._is_listening, self._unheard = True, []
        costs = given.driver_s + given.driver_per_worker_s * len(self.machines)
        self._after(costs, self._hear, heard)

    def _hear(self, heard: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
        for call, arguments in heard:
            call(*arguments)
        self._hand_out()
        self._is_listening = False
        if self._unheard:
            self._listen()

    # A machine comes and goes.

    def _ask(self) -> None:
        given, draw = self.conditions, self._draw
        is_slow = draw.random() < given.slow_share
        speed = math.exp(given.speed_spread * draw.standard_normal())
        machine = _Machine(
            f"worker-{next(self._named)}", speed * (given.slow_speed if is_slow else 1.0), self.now
        )
        self.machines[machine.name] = machine
        wait = given.placed_s * draw.standard_exponential()
        lives_s = draw.standard_exponential()
        if given.preempted_per_hour:
            self._after(lives_s * 3600 / given.preempted_per_hour, self._preempt, machine)
        self._after(wait, self._placed, machine)

    def _placed(self, machine: _Machine) -> None:
        def loaded() -> None:
            self._after(self.conditions.load_s, self._ready, machine)

        if not machine.is_gone:
            self._move(machine, "read", self.conditions.weights_bytes, loaded)

    def _ready(self, machine: _Machine) -> None:
        if not machine.is_gone:
            self._tell_driver(self._joined, machine)

    def _joined(self, machine: _Machine) -> None:
        if machine.is_gone:
            return
        self._spend(machine, "start")
        machine.state = "idle"
        self._short[machine.name] = self._empty[machine.name] = machine
        self.queue.join(machine.name)

    def _preempt(self, machine: _Machine) -> None:
        machine.is_gone = True
        self.num_preempted += 1
        self._short.pop(machine.name, None)
        self._empty.pop(machine.name, None)
        if machine.transfer is not None:
            self.storage.stop(self.now, machine.transfer)
        self._lose_present(machine)
        self._after(self.conditions.noticed_s, self._tell_driver, self._noticed, machine)

    def _noticed(self, machine: _Machine) -> None:
        del self.machines[machine.name]
        self.queue.leave(machine.name, "preempted")
        self._grow()

    # A shard.

    def _hand_out(self) -> None:
        """As the driver, which asks the queue for each worker: here for those that may get something."""
        waiting = self.queue.num_waiting
        if waiting <= 0:
            return
        is_tail = waiting <= TAIL * len(self.machines)
        for machine in list((self._empty if is_tail else self._short).values()):
            while (number := self.queue.next(machine.name)) is not None:
                machine.given.append(number)
            self._note(machine)
            if machine.state == "idle" and machine.given:
                self._spend(machine, "idle")
                self._begin(machine)

    def _note(self, machine: _Machine) -> None:
        """What it was given has changed."""
        for group, most in ((self._short, self.queue.in_flight), (self._empty, 1)):
            if len(machine.given) < most:
                group[machine.name] = machine
            else:
                group.pop(machine.name, None)

    def _begin(self, machine: _Machine) -> None:
        number = machine.given[0]
        machine.state, machine.due = "busy", 2
        cost = self.phase.cost(number, machine.kept)
        slower = float(self._noise[number - self.phase.numbers.start]) / machine.speed
        spent = {"useful": cost.useful_s * slower, "again": cost.again_s * slower}
        machine.of_shard = defaultdict(float, spent)
        computed = sum(spent.values())

        def ready() -> None:
            machine.due -= 1
            if not machine.due and not machine.is_gone:
                machine.of_shard["read"] += self.now - machine.since - computed
                machine.since = self.now
                self._write(machine, cost)

        self._after(computed, ready)
        self._move(machine, "read", cost.read_bytes, ready)

    def _write(self, machine: _Machine, cost: Cost) -> None:
        def written() -> None:
            self._after(self.conditions.commit_s, self._committed, machine)

        self._move(machine, "written", cost.written_bytes, written)

    def _committed(self, machine: _Machine) -> None:
        if machine.is_gone:
            return
        machine.of_shard["write"] += self.now - machine.since
        machine.since = self.now
        self._tell_driver(self._heard, machine, machine.given.popleft(), machine.of_shard)
        machine.of_shard = defaultdict(float)
        machine.state = "idle"
        self._note(machine)
        if machine.given:
            self._begin(machine)

    def _heard(self, machine: _Machine, number: int, spent: dict[str, float]) -> None:
        # it was taken away, and the driver heard of that first
        if machine.name not in self.machines:
            self.spent["lost"] += sum(spent.values())
            return
        for what, seconds in spent.items():
            self.spent[what] += seconds
        self._done[number] += 1
        self.queue.done(machine.name, number)

    def _move(
        self, machine: _Machine, what: str, num_bytes: float, then: Callable[[], None]
    ) -> None:
        if not num_bytes:
            then()
            return

        def there() -> None:
            machine.transfer = None
            then()

        self.bytes[what] += num_bytes
        machine.transfer = self.storage.start(self.now, num_bytes, there)

    # Where its time went.

    def _spend(self, machine: _Machine, what: str) -> None:
        self.spent[what] += self.now - machine.since
        machine.since = self.now

    def _lose_present(self, machine: _Machine) -> None:
        """Account for what a machine is at, which nobody will hear of."""
        if machine.state != "busy":
            self._spend(machine, machine.state)
            return
        if not machine.due:
            self.spent["lost"] += sum(machine.of_shard.values())
        self._spend(machine, "lost")
