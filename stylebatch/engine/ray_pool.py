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

import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar

from stylebatch.engine.accounts import Account, Executed, Failure, StyleBooks, here
from stylebatch.engine.drive import (
    POLL_S,
    SAY_WAITING_EVERY_S,
    ActorSetup,
    Cluster,
    Drive,
    RayError,
)
from stylebatch.engine.ladder import is_device_fault
from stylebatch.engine.local_engine import LocalEngine
from stylebatch.engine.measure import measure
from stylebatch.engine.queue import ShardQueue
from stylebatch.engine.worker import Worker
from stylebatch.errors import ManifestError, StylebatchError
from stylebatch.folder import Folder
from stylebatch.planning.choice import Measurements
from stylebatch.planning.plan import Plan
from stylebatch.progress import Event
from stylebatch.usable_cores import usable_cores

T = TypeVar("T")
LOOPBACK = "127.0.0.2" if sys.platform == "linux" else None
"""For the cluster of one run; Ray turns 127.0.0.1 into the machine's outer address."""
CONNECT_S = 10.0
STARTS = 3
TIMED_OUT = "timed out during startup"
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set for the driver of a submitted job."""


Outcome = tuple[Literal["done", "failed", "fatal"], Any]


def _outcome(function: Callable[[], Any]) -> Outcome:
    """The result or the failure of `function`, as a value."""
    try:
        return "done", function()
    except StylebatchError as error:
        return "fatal", error
    except (Exception, SystemExit) as error:
        if getattr(error.__cause__ or error, "is_ray_terminate", False):
            raise SystemExit from error  # Ray ends this worker
        if is_device_fault(error):
            os._exit(70)  # nothing else works in a process whose device faulted
        return "failed", Failure.of(error)


class ShardActor:
    """One worker process: a `Worker` that is loaded once. Methods return outcomes, so that no error is lost on its way."""

    def __init__(self, plan: Plan, output: Folder, threads: int) -> None:
        self._worker = Worker(plan, output, threads=threads)

    def start(self) -> Outcome:
        """Load the model; where it is."""
        return _outcome(lambda: here(self._worker.__enter__().model.device))

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


class RayEngine(LocalEngine):
    """Workers of a Ray cluster; see the module."""

    name = "ray"

    def __enter__(self) -> RayEngine:
        self.address = self.spec.address or os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.address is None and "ray" not in sys.modules:
            # Ray listens on all interfaces whatever address it is given; a token keeps strangers out
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        self.ray = ray
        self._joined = ray.is_initialized()
        with _our_signals():
            if not self._joined:
                try:
                    self._connect()
                except BaseException:
                    ray.shutdown()  # what it had started
                    raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._joined:
            with _our_signals():
                self.ray.shutdown()

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self.address
        try:
            if address is not None:
                _knock(address)
                self.ray.init(address=address, runtime_env={"env_vars": _passed_on()}, **quiet)
                return
            self._start_own(quiet)
        except getattr(self.ray.exceptions, "AuthenticationError", ()) as error:  # of newer Rays
            raise RayError(
                f"{address or 'a Ray cluster of this machine'} asks for a token: {str(error).split('. ')[0]}. Next: put "
                "the cluster's token in RAY_AUTH_TOKEN or its file in RAY_AUTH_TOKEN_PATH"
            ) from error
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"engine.address: {address}" if address else "a Ray cluster of this machine"
            raise RayError(
                f"{where} cannot be used: {error}. Next: check that the head is up (`ray status`), or leave the "
                "address out to use this machine alone"
            ) from error

    def _start_own(self, quiet: dict[str, Any]) -> None:
        """A cluster of this machine; Ray gives its processes a fixed 30 s to start, which a busy machine may exceed."""
        cores = usable_cores()
        asked = (self.spec.workers or 1) * (self.spec.cpus_per_worker or 1)
        for start in range(1, STARTS + 1):
            try:
                self.ray.init(
                    address="local",
                    # Ray counts, it does not pin: more workers than cores are allowed where they are asked for
                    num_cpus=max(cores, int(asked + 0.999)),
                    include_dashboard=False,
                    _node_ip_address=LOOPBACK,
                    **quiet,
                )
                return
            except Exception as error:  # Ray raises no narrower kind
                if TIMED_OUT not in str(error):
                    raise
                self.ray.shutdown()
                if start == STARTS:
                    raise RuntimeError(str(error)) from error

    def call(self, function: Callable[[], T]) -> T:
        cluster = self.cluster(1)
        # retried: a node may leave between placing and running it
        call = self.ray.remote(max_retries=3, **cluster.need)(_outcome).remote(function)
        said = time.monotonic()
        while not self.ray.wait([call], timeout=POLL_S)[0]:
            if time.monotonic() - said > SAY_WAITING_EVERY_S:
                said = time.monotonic()
                self.progress.event(Event("waiting", cluster.shortage()))
        try:
            kind, value = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            raise RayError(f"a worker could not be asked what device it has: {error}") from error
        if kind == "fatal":
            raise value
        if kind == "failed":
            raise RayError.with_trace(f"a worker failed: {value.reason}", value.trace)
        result: T = value
        return result

    def measure(self, plan: Plan, *, threads: int, batch_gb: float | None) -> Measurements:
        return self.call(partial(measure, plan, threads=threads, batch_gb=batch_gb))

    def cluster(self, threads: int) -> Cluster:
        """The cluster, and what a worker asks of it. Raises ManifestError for what one of this machine will never have."""
        total, spec = self.ray.cluster_resources(), self.spec
        gpus = spec.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if total.get("GPU", 0) >= 1 and spec.device != "cpu" else 0.0
        cpus = spec.cpus_per_worker
        if cpus is None:
            cpus = 1.0 if gpus or spec.workers else float(threads)
        for field, found, kind in (("gpus", gpus, "GPU"), ("cpus", cpus, "CPU")):
            has = total.get(kind, 0)
            if self.address is None and not self._joined and found > has:
                raise ManifestError(
                    f"engine.{field}_per_worker: found {found:g}; accepted: at most {has:g}, the {kind}s of this machine. "
                    "Next: lower it, or join a cluster with --address"
                )
        return Cluster(self.ray, self.progress, {"num_cpus": cpus, "num_gpus": gpus})

    def render(
        self,
        plan: Plan,
        output: Folder,
        shards: Sequence[int],
        *,
        threads: int,
        executed: Executed | None = None,
    ) -> None:
        # workers may start in another working directory
        plan, output = plan.anchored(), output.absolute()
        queue = ShardQueue(shards, max_attempts=self.spec.max_attempts)
        account = _RemoteAccount(plan, output, queue, self.progress)
        # once in the object store; as an argument it would be sent with every actor
        reference = self.ray.put(plan)
        setup = ActorSetup(ShardActor, lambda _: (reference, output, threads), self.spec.workers)
        drive = Drive(self.cluster(threads), setup, drain_s=_drain_s(self.spec.drain_s))
        try:
            if plan.cached_columns:
                drive.run(
                    "precompute",
                    StyleBooks(
                        ShardQueue(plan.cached_columns, max_attempts=self.spec.max_attempts)
                    ),
                )
            drive.run("render", account, executed)
        finally:
            drive.dismiss()


def _drain_s(asked: float) -> float:
    """Seconds to drain: Ray kills the driver of a stopped job soon after SIGTERM, and the workers must be ended before."""
    if JOB_CONFIG not in os.environ:
        return asked
    killed_after = float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "3"))
    return min(asked, max(0.0, killed_after - 2.0))


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
_PASSED_ON_AS_SET = ("ACCELERATE_MIXED_PRECISION",)


def _passed_on() -> dict[str, str]:
    """Variables that the job's runtime environment does not set: Ray refuses one that both set."""
    job = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    ours = {name: os.environ[name] for name in _PASSED_ON_AS_SET if name in os.environ}
    return {name: value for name, value in (_PASSED_ON | ours).items() if name not in given}


@contextmanager
def _our_signals() -> Iterator[None]:
    """Keep our signal handlers for a `with` block: Ray replaces them when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sig, handler in former.items():
            signal.signal(sig, handler)
