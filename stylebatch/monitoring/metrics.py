"""A run's status for Prometheus: as text, or served over HTTP for as long as a run lasts."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from stylebatch.errors import ManifestError, StylebatchError
from stylebatch.folder import Folder
from stylebatch.monitoring.status import STATES, Status, StatusReader
from stylebatch.store.run_lock import HEARTBEAT_S

REMOTE_EVERY_S = 15.0
"""Between two looks at an output in a store, which answers each by a request for every thousand names."""
MOST_OF_THE_TIME = 10
"""A look may take one part in so many of the time."""
ENDS_WITHIN_S = 1.0
FIRST_LOOK_S = 5.0
"""For so long an answer waits for the first look; Prometheus itself waits ten seconds."""
Rows = Iterable[tuple[tuple[str, ...], float | None]]


class _Metric(NamedTuple):
    """`rows`: values of the labels, and the value; None is left out."""

    name: str
    help: str
    labels: tuple[str, ...]
    rows: Callable[[Status], Rows]


def _one(value: float | None) -> Rows:
    return [((), value)]


def _counted(counts: dict[str, int]) -> Rows:
    return [((reason,), float(count)) for reason, count in counts.items()]


METRICS = (
    _Metric(
        "state",
        "1 for the state that the run is in, 0 for the others",
        ("state",),
        lambda s: [((state,), float(state == s.state)) for state in STATES],
    ),
    _Metric(
        "run_info",
        "1; what the run is called, and who holds its lock",
        ("name", "owner"),
        lambda s: [((s.name, s.owner), 1.0)],
    ),
    _Metric("samples_planned", "Samples of the whole run", (), lambda s: _one(s.samples_planned)),
    _Metric(
        "samples",
        "Samples in committed shards, by status",
        ("status",),
        lambda s: [
            (("success",), s.success),
            (("failed",), s.failed),
            (("rejected",), s.rejected),
        ],
    ),
    _Metric(
        "failures",
        "Samples that failed, by error code",
        ("reason",),
        lambda s: _counted(s.failures),
    ),
    _Metric(
        "rejections",
        "Samples that gates rejected, by rule",
        ("reason",),
        lambda s: _counted(s.rejections),
    ),
    _Metric("shards_planned", "Shards of the whole run", (), lambda s: _one(s.shards_planned)),
    _Metric(
        "shards_committed", "Shards that are committed", (), lambda s: _one(s.shards_committed)
    ),
    _Metric("shards_left_out", "Shards that failed too often", (), lambda s: _one(len(s.left_out))),
    _Metric(
        "damaged_files",
        "Files that are not as they were committed, by name and size",
        (),
        lambda s: _one(s.num_problems),
    ),
    _Metric("output_bytes", "Bytes of the payload", (), lambda s: _one(s.bytes)),
    _Metric(
        "evaluations", "Network evaluations in committed shards", (), lambda s: _one(s.evaluations)
    ),
    _Metric(
        "evaluations_planned",
        "Network evaluations of the whole run",
        (),
        lambda s: _one(s.evaluations_planned),
    ),
    _Metric(
        "worker_seconds",
        "Time that workers spent on committed shards",
        (),
        lambda s: _one(s.worker_s),
    ),
    _Metric(
        "progress_ratio",
        "Share of this start's work that is done; only while it renders",
        (),
        lambda s: _one(s.fraction),
    ),
    _Metric(
        "samples_per_second",
        "Mean rate since this start began to render",
        (),
        lambda s: _one(s.samples_per_s),
    ),
    _Metric(
        "remaining_seconds", "Time until the end, at that rate", (), lambda s: _one(s.remaining_s)
    ),
    _Metric(
        "workers",
        "Workers at work, by host and kind of device",
        ("host", "device"),
        lambda s: [
            ((place.host, place.device), place.count)
            for place in (s.underway.workers if s.state == "live" and s.underway else ())
        ],
    ),
    _Metric(
        "workers_lost",
        "Workers that died in this start",
        (),
        lambda s: _one(s.underway.workers_lost if s.underway else None),
    ),
    _Metric(
        "shard_retries",
        "Attempts at shards that failed in this start",
        (),
        lambda s: _one(s.underway.retries if s.underway else None),
    ),
    _Metric(
        "heartbeat_timestamp_seconds",
        "When who holds the lock, or left it, was last seen, since the epoch",
        (),
        lambda s: _one(s.heartbeat or None),
    ),
    _Metric(
        "last_commit_timestamp_seconds",
        "When the last shard was committed, since the epoch",
        (),
        lambda s: _one(s.last_commit or None),
    ),
)


def exposition(status: Status) -> str:
    """The status in the text format of Prometheus. Every metric has the label `output`."""
    client = _client("--prometheus")
    return str(client.generate_latest(_registry(client, lambda: status)).decode())


@contextmanager
def served(
    output: Folder, port: int | None, host: str, note: Callable[[str], None]
) -> Iterator[None]:
    """For the time of the block, answer Prometheus on that port of these addresses; None: on none.

    Raises ManifestError where the port cannot be had: before any work, and the one who asked for it is still there.
    """
    if port is None:
        yield
        return
    client = _client("engine.metrics_port")
    looks = _Looks(StatusReader(output), HEARTBEAT_S if output.local else REMOTE_EVERY_S)
    try:
        server, thread = client.start_http_server(port, host, _registry(client, looks.latest))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"engine.metrics_port: found {port} ({reason}, at {host}); accepted: a free port from 1024 on. Next: give another, or 0 for "
            "one that is free, which the run tells"
        ) from error
    with looks:
        note(f"Metrics are at {_addresses(host, server.server_port)}")
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _addresses(host: str, port: int) -> str:
    """Where metrics can be opened: of all addresses (0.0.0.0, ::), which nobody can open, the names of this machine."""
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
        return f"http://localhost:{port}/metrics; for other machines, http://{name}:{port}/metrics"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _client(field: str) -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ManifestError(
            f"{field}: the package prometheus_client is not installed; next: pip install prometheus_client"
        ) from error
    return prometheus_client


def _registry(client: Any, status: Callable[[], Status | None]) -> Any:
    registry = client.CollectorRegistry()
    registry.register(_Statuses(client, status))
    return registry


class _Statuses:
    """Collects the metrics of a status for `prometheus_client`, which asks `collect`."""

    def __init__(self, client: Any, status: Callable[[], Status | None]) -> None:
        self._family, self._status = client.metrics_core.GaugeMetricFamily, status

    def collect(self) -> Iterator[Any]:
        status = self._status()
        if status is None:
            return
        # the same for everybody who asks, in whatever directory
        output = status.output if "://" in status.output else os.path.abspath(status.output)
        for metric in METRICS:
            family = self._family(
                f"stylebatch_{metric.name}", metric.help, labels=["output", *metric.labels]
            )
            for labels, value in metric.rows(status):
                if value is not None:
                    family.add_metric([output, *labels], value)
            yield family


class _Looks:
    """A thread that keeps the latest status: Prometheus waits for an answer no longer than ten seconds, a look may take more."""

    def __init__(self, reader: StatusReader, every_s: float) -> None:
        self.reader, self.every_s = reader, every_s
        self._status: Status | None = None
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="metrics")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # it only reads, and a slow store must not hold the run's end up
        self._thread.join(ENDS_WITHIN_S)

    def latest(self) -> Status | None:
        self._looked.wait(FIRST_LOOK_S)
        return self._status

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            # before the run's first record there is nothing to tell; a store may answer next time
            with suppress(StylebatchError, OSError, ValueError):
                self._status = self.reader.look()
            self._looked.set()
            took = time.monotonic() - began
            if self._stop.wait(max(self.every_s, MOST_OF_THE_TIME * took)):
                return
