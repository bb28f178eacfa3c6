"""The ray engine: workers as Ray actors, shards from a queue that the driver owns.

1. A cluster is joined, or one of this machine is started for this run, on localhost alone.
2. Workers are asked for, one per GPU or group of cores; whichever start get shards, at most two at once.
3. The styles that a style cache lacks are inverted first, spread over the workers.
4. A worker that dies takes nothing with it: its shards go back to the queue and a new worker is asked for.
Only the plan (paths and ids), shard numbers and stats travel through Ray.

Actors are not restarted by Ray but replaced by the driver, which then knows each one's state; Ray's own retries hang
or fail a run when a node does not come back.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from stylebatch.data.plan import Plan
from stylebatch.engine.ladder import is_device_fault
from stylebatch.engine.local import LocalEngine
from stylebatch.engine.queue import ShardQueue
from stylebatch.engine.shards import Account, Books, Executed, Failure, StyleBooks
from stylebatch.engine.worker import Worker
from stylebatch.errors import StylebatchError
from stylebatch.progress import Event

T = TypeVar("T")
LOOPBACK = "127.0.0.2" if sys.platform == "linux" else None
"""For the cluster of one run; Ray turns 127.0.0.1 into the machine's outer address."""
POLL_S = 0.5
CONNECT_S = 10.0
GROW_EVERY_S = 5.0
SAY_WAITING_EVERY_S = 30.0
MAX_FAILED_STARTS = 5
"""Workers in a row that died before they were ready; then the run stops."""


class RayError(StylebatchError):
    """The cluster cannot be reached, or cannot run a worker."""


Outcome = tuple[Literal["done", "failed", "fatal"], Any]


def _outcome(function: Callable[[], Any]) -> Outcome:
    """What `function` came to."""
    try:
        return "done", function()
    except StylebatchError as error:
        return "fatal", error
    except Exception as error:  # noqa: BLE001 - the driver decides what follows
        if is_device_fault(error):
            os._exit(70)  # nothing else works in a process whose device faulted
        return "failed", Failure.of(error)


class ShardActor:
    """One worker process: a `Worker` that is loaded once. Methods return outcomes, so that no error is lost on its way."""

    def __init__(self, plan: Plan, output: Path, threads: int) -> None:
        self._worker = Worker(plan, output, threads=threads)

    def start(self) -> Outcome:
        """Load the model."""
        return _outcome(lambda: str(self._worker.__enter__().model.device))

    def render(self, shard: int, executed: list[list[int]] | None) -> Outcome:
        """Render and commit a shard; its stats."""
        return _outcome(lambda: self._worker.render(shard, executed))

    def precompute(self, style: int, _: None = None) -> Outcome:
        """Write a style to the cache; whether it was missing."""
        return _outcome(lambda: self._worker.precompute(style))


class _RemoteAccount(Account):
    """Evaluations count when their shard is there: its worker says nothing before."""

    def committed(self, worker: str, shard: int, stats: dict[str, Any]) -> None:
        super().committed(worker, shard, stats)
        self.progress.advance(stats["evaluations"])


@dataclass
class _Seat:
    """A worker as the driver sees it."""

    name: str
    actor: Any
    is_ready: bool = False


class RayEngine(LocalEngine):
    """Workers of a Ray cluster; see the module."""

    name = "ray"

    def __enter__(self) -> RayEngine:
        self.address = self.spec.address or os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.address is None and "ray" not in sys.modules:
            # Ray listens on all interfaces whatever it is told; a token keeps strangers out
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        self.ray = ray
        self._joined = ray.is_initialized()
        with _own_signals():
            if not self._joined:
                self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._joined:
            with _own_signals():
                self.ray.shutdown()

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self.address
        try:
            if address is not None:
                _knock(address)
                self.ray.init(address=address, runtime_env={"env_vars": _PASSED_ON}, **quiet)
                return
            cores = os.cpu_count() or 1
            asked = (self.spec.workers or 1) * (self.spec.cpus_per_worker or 1)
            self.ray.init(
                address="local",
                num_cpus=max(cores, int(asked + 0.999)),
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                **quiet,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"engine.address: {address}" if address else "a Ray cluster of this machine"
            raise RayError(
                f"{where} cannot be used: {error}. Next: check that the head is up (`ray status`), or leave the "
                "address out to use this machine alone"
            ) from error

    def call(self, function: Callable[[], T]) -> T:
        remote = self.ray.remote(max_retries=3, **self._resources(1))(_outcome)
        try:
            kind, value = self.ray.get(remote.remote(function))
        except self.ray.exceptions.RayError as error:
            raise RayError(f"a worker could not be asked what device it has: {error}") from error
        if kind == "fatal":
            raise value
        if kind == "failed":
            raise RayError(f"a worker failed: {value.reason}\n{value.trace}")
        result: T = value
        return result

    def _resources(self, threads: int) -> dict[str, float]:
        """What a worker asks of a node."""
        gpus = self.spec.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if self.ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        cpus = self.spec.cpus_per_worker
        if cpus is None:
            cpus = 1.0 if gpus or self.spec.workers else float(threads)
        return {"num_cpus": cpus, "num_gpus": gpus}

    def render(
        self,
        plan: Plan,
        output: Path,
        shards: Sequence[int],
        *,
        threads: int,
        executed: Executed | None = None,
    ) -> None:
        plan, output = plan.anchored(), output.resolve()
        queue = ShardQueue(shards, max_attempts=self.spec.max_attempts)
        account = _RemoteAccount(plan, output, queue, self.progress)
        reference = self.ray.put(plan)
        drive = Drive(
            self, ShardActor, lambda _: (reference, output, threads), threads, self.spec.workers
        )
        try:
            if plan.cached_styles:
                drive.run(
                    "precompute",
                    StyleBooks(ShardQueue(plan.cached_styles, max_attempts=self.spec.max_attempts)),
                )
            drive.run("render", account, executed)
        finally:
            drive.dismiss()


class Drive:
    """The driver's loop: seats, what each was given, and how it ended.

    `kind`: class of the actors, `arguments` of each by its number; `workers`: None for what the cluster has room for.
    """

    def __init__(
        self,
        engine: RayEngine,
        kind: type,
        arguments: Callable[[int], tuple[Any, ...]],
        threads: int,
        workers: int | None,
    ) -> None:
        self.ray, self.progress = engine.ray, engine.progress
        self.kind, self.arguments, self.workers = kind, arguments, workers
        self.resources = engine._resources(threads)
        self.seats: dict[str, _Seat] = {}
        self.calls: dict[Any, tuple[_Seat, int | None]] = {}
        self.num_named = self.failed_starts = 0
        self._grown = self._heard = self._said = -1e9

    def run(self, job: str, books: Books, executed: Executed | None = None) -> None:
        """Call the actors' method `job` until every number of the queue is done or poisoned."""
        queue = books.queue
        for seat in self.seats.values():
            if seat.is_ready:
                queue.join(seat.name)
        self._heard = time.monotonic()
        while not queue.is_finished:
            self._grow(queue)
            self._hand_out(job, queue, executed or {})
            ready, _ = self.ray.wait(list(self.calls), num_returns=1, timeout=POLL_S)
            for call in ready:
                self._heard = time.monotonic()
                self._hear(call, books)
            self._say_waiting()

    def _grow(self, queue: ShardQueue) -> None:
        """Ask for workers up to what was asked of us, or what the cluster has room for."""
        if time.monotonic() - self._grown < GROW_EVERY_S and self.seats:
            return
        self._grown = time.monotonic()
        wanted = self.workers or self._room()
        left = len(queue.shards) - queue.num_done - len(queue.poisoned)
        actor = self.ray.remote(max_restarts=0, max_task_retries=0, **self.resources)(self.kind)
        while len(self.seats) < min(wanted, left):
            name = f"worker-{self.num_named}"
            handle = actor.remote(*self.arguments(self.num_named))
            self.num_named += 1
            self.seats[name] = _Seat(name, handle)
            self.calls[handle.start.remote()] = (self.seats[name], None)

    def _room(self) -> int:
        """Workers that the cluster has resources for, at least one."""
        total = self.ray.cluster_resources()
        cpus, gpus = self.resources["num_cpus"], self.resources["num_gpus"]
        by_cpu = int(total.get("CPU", 0) / cpus + 1e-9)
        return max(1, min(by_cpu, int(total.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu)

    def _hand_out(self, job: str, queue: ShardQueue, executed: Executed) -> None:
        for seat in self.seats.values():
            while seat.is_ready and (number := queue.next(seat.name)) is not None:
                method = getattr(seat.actor, job)
                self.calls[method.remote(number, executed.get(number))] = (seat, number)

    def _hear(self, call: Any, books: Books) -> None:
        """What became of a call."""
        if call not in self.calls:
            return
        seat, number = self.calls.pop(call)
        try:
            kind, value = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            self._lose(seat, books, Failure("the worker process or its node died", str(error)))
            return
        if kind == "fatal":
            raise value
        if number is None:
            if kind == "failed":
                raise RayError(f"{seat.name} cannot start: {value.reason}\n{value.trace}")
            seat.is_ready, self.failed_starts = True, 0
            books.queue.join(seat.name)
            self.progress.event(Event("joined", "", "", seat.name, {"device": value}))
        elif kind == "failed":
            books.failed(seat.name, number, value)
        else:
            books.committed(seat.name, number, value)

    def _lose(self, seat: _Seat, books: Books, failure: Failure) -> None:
        """A worker is gone: forget it, give back what it had, and replace it at the next turn."""
        del self.seats[seat.name]
        for other in [call for call, (owner, _) in self.calls.items() if owner is seat]:
            del self.calls[other]
        self._grown = -1e9
        if seat.is_ready:
            books.lost(seat.name, failure)
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
        if any(seat.is_ready for seat in self.seats.values()):
            return
        if now - max(self._heard, self._said) < SAY_WAITING_EVERY_S:
            return
        self._said = now
        need = ", ".join(f"{value:g} {key[4:].upper()}" for key, value in self.resources.items())
        total = self.ray.cluster_resources()
        have = f"{total.get('CPU', 0):g} CPUS, {total.get('GPU', 0):g} GPUS"
        self.progress.event(
            Event("waiting", f"no worker has started yet; one needs {need}, the cluster has {have}")
        )

    def dismiss(self) -> None:
        """End all workers."""
        for seat in self.seats.values():
            self.ray.kill(seat.actor)
        self.seats.clear()
        self.calls.clear()


def _knock(address: str) -> None:
    """Raise ConnectionError where nobody listens: Ray would end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


_PASSED_ON = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}
"""Settings of the command line that workers of a cluster need too."""


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our signal handlers: Ray installs its own when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sig, handler in former.items():
            signal.signal(sig, handler)
