"""The driver's loop of the ray engine: workers, what each was given, and how it ended.

1. Workers are asked for, as many as were wanted or as the cluster has room for; whichever start get shards.
2. A worker that dies takes nothing with it: its shards go back to the queue and a new worker is asked for.
3. On SIGTERM nothing more is handed out; workers may end the shard they are at, for a while. A second signal ends them at once.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from stylebatch.engine.accounts import Books, Executed, Failure
from stylebatch.engine.queue import ShardQueue
from stylebatch.errors import Interrupted, StylebatchError
from stylebatch.progress import Event, Progress

POLL_S = 0.5
GROW_EVERY_S = 5.0
SAY_WAITING_EVERY_S = 30.0
DISMISSED_WITHIN_S = 10.0
MAX_FAILED_STARTS = 5
"""Workers in a row that died before they were ready; then the run stops."""


class RayError(StylebatchError):
    """The cluster cannot be reached, or cannot run a worker."""

    @classmethod
    def with_trace(cls, text: str, trace: str) -> RayError:
        """The error, with the trace of a worker's process."""
        error = cls(text)
        error.trace = trace
        return error


@dataclass
class _WorkerHandle:
    """A worker as the driver sees it."""

    name: str
    actor: Any
    process: dict[str, Any] = field(default_factory=dict)
    """Its `device`, `host` and `pid`, once it is ready."""

    @property
    def is_ready(self) -> bool:
        return bool(self.process)

    def is_alive_here(self) -> bool:
        """Whether its process is one of this machine that has not ended."""
        if self.process.get("host") != socket.gethostname():
            return False
        try:
            os.kill(self.process["pid"], 0)
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Cluster:
    """A connected cluster. `ray`: the library; `need`: what a worker asks of a node (`num_cpus`, `num_gpus`)."""

    ray: Any
    progress: Progress
    need: dict[str, float]

    def room(self) -> int:
        """Workers that the cluster has resources for, at least one."""
        total = self.ray.cluster_resources()
        cpus, gpus = self.need["num_cpus"], self.need["num_gpus"]
        # 1e-9: fractions such as 0.1 are not exact
        by_cpu = int(total.get("CPU", 0) / cpus + 1e-9)
        return max(1, min(by_cpu, int(total.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu)

    def shortage(self) -> str:
        """What a worker needs and what there is, where none could be placed."""
        need = ", ".join(f"{value:g} {key[4:].upper()}" for key, value in self.need.items())
        total = self.ray.cluster_resources()
        have = f"{total.get('CPU', 0):g} CPUS, {total.get('GPU', 0):g} GPUS"
        return f"no worker has started yet; one needs {need}, the cluster has {have}"


@dataclass(frozen=True)
class ActorSetup:
    """The workers of a job: class of the actors, `arguments` of each by its number, `count` None for what there is room for."""

    kind: type
    arguments: Callable[[int], tuple[Any, ...]]
    count: int | None


class Drive:
    """Workers, and what each was given. `drain_s`: seconds that workers get for the shards they are at after SIGTERM."""

    def __init__(self, cluster: Cluster, setup: ActorSetup, *, drain_s: float) -> None:
        self.ray, self.cluster, self.setup, self.drain_s = cluster.ray, cluster, setup, drain_s
        self.progress = cluster.progress
        self.workers: dict[str, _WorkerHandle] = {}
        self.calls: dict[Any, tuple[_WorkerHandle, int | None]] = {}
        self.num_named = self.failed_starts = 0
        # long ago, so that the first look at each is not skipped
        self._grown = self._heard = self._said = -1e9

    def run(self, job: str, books: Books, executed: Executed | None = None) -> None:
        """Call the actors' method `job` until every number of the queue is done or poisoned."""
        queue = books.queue
        for worker in self.workers.values():
            if worker.is_ready:
                queue.join(worker.name)
        self._heard = time.monotonic()
        with _asked_to_stop() as stop:
            while not queue.is_finished:
                if stop.is_set():
                    self._drain(books)
                self._grow(queue)
                self._hand_out(job, queue, executed or {})
                for call in self._ended():
                    self._heard = time.monotonic()
                    self._hear(call, books)
                self._say_waiting()

    def _ended(self) -> list[Any]:
        """All calls that have ended, after a while none: over thousands a wait takes milliseconds, too long for each of them."""
        calls = list(self.calls)
        ready, _ = self.ray.wait(calls, num_returns=1, timeout=POLL_S)
        if ready:
            ready, _ = self.ray.wait(calls, num_returns=len(calls), timeout=0)
        return list(ready)

    def _drain(self, books: Books) -> None:
        """Hear of the shards that workers are at, for a while; raises Interrupted."""
        oldest: dict[str, Any] = {}
        for call, (worker, number) in self.calls.items():
            if number is not None:
                # a worker is at the first of its calls; the second has not begun
                oldest.setdefault(worker.name, call)
        due, until = set(oldest.values()), time.monotonic() + self.drain_s
        if due and self.drain_s:
            self.progress.note(
                f"Stopping: shards in work have {self.drain_s:g} s to end; a second signal ends them now"
            )
        while due and (left := until - time.monotonic()) > 0:
            ready, _ = self.ray.wait(list(due), num_returns=1, timeout=min(POLL_S, left))
            for call in ready:
                self._hear(call, books)
            due &= self.calls.keys()
        raise Interrupted(signal.SIGTERM)

    def _grow(self, queue: ShardQueue) -> None:
        """Ask for workers up to what was asked of us, or what the cluster has room for."""
        if time.monotonic() - self._grown < GROW_EVERY_S and self.workers:
            return
        self._grown = time.monotonic()
        # asked each time: nodes join and leave while a run is under way
        wanted = self.setup.count or self.cluster.room()
        left = len(queue.shards) - queue.num_done - len(queue.poisoned)
        # Ray's retries would run a shard that the queue has already given to another worker
        actor = self.ray.remote(max_restarts=0, max_task_retries=0, **self.cluster.need)(
            self.setup.kind
        )
        while len(self.workers) < min(wanted, left):
            name = f"worker-{self.num_named}"
            actor_handle = actor.remote(*self.setup.arguments(self.num_named))
            self.num_named += 1
            self.workers[name] = _WorkerHandle(name, actor_handle)
            self.calls[actor_handle.start.remote()] = (self.workers[name], None)

    def _hand_out(self, job: str, queue: ShardQueue, executed: Executed) -> None:
        for worker in self.workers.values():
            while worker.is_ready and (number := queue.next(worker.name)) is not None:
                method = getattr(worker.actor, job)
                self.calls[method.remote(number, executed.get(number))] = (worker, number)

    def _hear(self, call: Any, books: Books) -> None:
        """What became of a call."""
        # its worker was lost a moment ago, with all its calls
        if call not in self.calls:
            return
        worker, number = self.calls.pop(call)
        try:
            kind, value = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            self._lose(worker, books, Failure("the worker process or its node died", str(error)))
            return
        if kind == "fatal":
            raise value
        if number is None:
            if kind == "failed":
                raise RayError.with_trace(
                    f"{worker.name} cannot start: {value.reason}", value.trace
                )
            worker.process, self.failed_starts = value, 0
            books.queue.join(worker.name)
            self.progress.event(Event("joined", "", "", worker.name, value))
        elif kind == "failed":
            books.failed(worker.name, number, value)
        else:
            books.committed(worker.name, number, value)

    def _lose(self, worker: _WorkerHandle, books: Books, failure: Failure) -> None:
        """A worker is gone: forget it, give back what it had, and replace it at the next turn."""
        del self.workers[worker.name]
        self.ray.kill(worker.actor)  # one that only lost its connection would go on
        for other in [call for call, (owner, _) in self.calls.items() if owner is worker]:
            del self.calls[other]
        self._grown = -1e9
        if worker.is_ready:
            books.lost(worker.name, failure)
        else:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise RayError(
                    f"{self.failed_starts} workers in a row died before they were ready: {failure.trace}\n"
                    "Next: look into the worker logs of the Ray session; committed shards are kept"
                )

    def _say_waiting(self) -> None:
        """Tell when no worker answers because none could be placed."""
        now = time.monotonic()
        if any(worker.is_ready for worker in self.workers.values()):
            return
        if now - max(self._heard, self._said) < SAY_WAITING_EVERY_S:
            return
        self._said = now
        self.progress.event(Event("waiting", self.cluster.shortage()))

    def dismiss(self) -> None:
        """End all workers, and wait until they are gone: what they leave is swept then."""
        until = time.monotonic() + DISMISSED_WITHIN_S
        for worker in self.workers.values():
            self.ray.kill(worker.actor)
        if self.calls:
            calls = list(self.calls)
            self.ray.wait(calls, num_returns=len(calls), timeout=DISMISSED_WITHIN_S)
        # Ray calls an actor dead before its process has ended
        while time.monotonic() < until and any(w.is_alive_here() for w in self.workers.values()):
            time.sleep(0.02)
        self.workers.clear()
        self.calls.clear()


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGTERM sets; a second raises Interrupted. Main thread only."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = signal.getsignal(signal.SIGTERM)

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(signum, former)
            raise Interrupted(signum)
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, former)
