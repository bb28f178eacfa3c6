"""Nodes of a Ray cluster that go and come while a run is under way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipelines.proofs.crashes import descendants, named
from stylebatch.engine.drive import GROW_EVERY_S
from tests.support.ray_nodes import ray_nodes
from tests.support.runs import (
    command,
    digests,
    environment,
    events,
    leftovers,
    render,
    small_manifest,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


PATIENCE_S = 900.0
RENDERING = "ray::ShardActor.render"
"""What Ray calls a worker process while it is at a shard."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(tmp_path_factory.mktemp("nodes"), contents=6, styles=4, steps=5)


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    done = render(manifest, manifest.parent / "expected")
    assert done.returncode == 0, done.stderr
    return digests(manifest.parent / "expected")


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head with a core, and what the test's parameter adds."""
    monkeypatch.setenv("RAY_worker_niceness", "0")  # see `environment`
    monkeypatch.delenv(
        "CUDA_VISIBLE_DEVICES", raising=False
    )  # Ray declares no more GPUs than it names
    made = ray_nodes({"num_cpus": 1, "include_dashboard": False} | getattr(request, "param", {}))
    yield made
    made.shutdown()


class Run:
    """A run that joins a cluster, its log read while it works."""

    def __init__(self, manifest: Path, output: Path, address: str, *more: str) -> None:
        self.output = output
        self.log = output.with_suffix(".log")
        options = ("--engine", "ray", "--json-logs", "--address", address, *more)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command(manifest, output, *options),
                stdout=subprocess.DEVNULL, stderr=log, env=environment(),
            )  # fmt: skip

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in events(self.log.read_text()) if event["event"] == kind]

    def wait_for(self, kind: str, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.events(kind)) < count:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def num_committed(self) -> int:
        return len(list(self.output.glob("metadata/*_stats.json")))

    def wait_for_text(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> int:
        return self.process.wait(timeout=PATIENCE_S)


def _same(output: Path, expected: dict[str, str]) -> None:
    assert digests(output) == expected
    assert leftovers(output) == []


@contextmanager
def _paused(run: Run) -> Iterator[None]:
    """While the block runs, workers that are ready stand still, so that the others are there before the work is done."""
    run.wait_for("committed", 1)
    pids: list[int] = []
    deadline = time.monotonic() + PATIENCE_S
    while not pids:  # between two shards a worker has another name
        assert run.process.poll() is None, run.log.read_text()
        assert time.monotonic() < deadline, run.log.read_text()
        time.sleep(0.02)
        pids = [pid for pid in descendants(os.getpid()) if RENDERING in named(pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # the run has ended it
                os.kill(pid, signal.SIGCONT)


def test_a_node_lost_for_good_costs_nothing_but_time(
    manifest: Path, expected: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    second = cluster.add_node(num_cpus=1)
    run = Run(manifest, tmp_path / "out", cluster.address)
    with _paused(run):
        run.wait_for("joined", 2)
    cluster.remove_node(second, allow_graceful=False)
    assert run.end() == 0, run.log.read_text()
    assert len(run.events("lost")) == 1
    _same(run.output, expected)


def test_a_node_that_comes_later_gets_work(
    manifest: Path, expected: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    run = Run(manifest, tmp_path / "out", cluster.address)
    with _paused(run):
        assert len(run.events("joined")) == 1
        cluster.add_node(num_cpus=1)
        run.wait_for("joined", 2)
        run.wait_for("committed", len(run.events("committed")) + 1)
    assert run.end() == 0, run.log.read_text()
    workers = {event["worker"] for event in run.events("committed")}
    assert len(workers) == 2, run.log.read_text()
    _same(run.output, expected)


@pytest.mark.parametrize("cluster", [{"num_cpus": 4, "num_gpus": 1}], indirect=True)
def test_two_workers_share_a_gpu(
    manifest: Path, expected: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    """Ray counts the GPU that the node declares; nothing here computes on one."""
    half = ("--set", "engine.gpus_per_worker=0.5")
    run = Run(manifest, tmp_path / "out", cluster.address, *half)
    with _paused(run):
        run.wait_for("joined", 2)
        time.sleep(2 * GROW_EVERY_S)  # there are cores for more workers, but no share of a GPU
    assert run.end() == 0, run.log.read_text()
    assert len(run.events("joined")) == 2
    _same(run.output, expected)


def test_sigterm_lets_a_worker_end_its_shard(
    manifest: Path, expected: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    run = Run(manifest, tmp_path / "out", cluster.address, "--set", f"engine.drain_s={PATIENCE_S}")
    with _paused(run):
        before = run.num_committed()
        run.process.send_signal(signal.SIGTERM)
        run.wait_for_text("Stopping: shards in work")
        time.sleep(3)
        assert run.process.poll() is None
    assert run.end() == 143, run.log.read_text()
    assert before <= run.num_committed() <= before + 1  # its shard may have been whole just then
    assert len(run.events("committed")) == run.num_committed()
    assert leftovers(run.output) == []
    resumed = render(manifest, run.output)
    assert resumed.returncode == 0, resumed.stderr
    _same(run.output, expected)


def test_a_second_sigterm_ends_the_workers_at_once(
    manifest: Path, cluster: Any, tmp_path: Path
) -> None:
    run = Run(manifest, tmp_path / "out", cluster.address, "--set", f"engine.drain_s={PATIENCE_S}")
    with _paused(run):
        before = run.num_committed()
        run.process.send_signal(signal.SIGTERM)
        run.wait_for_text("Stopping: shards in work")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 143, run.log.read_text()
    assert run.num_committed() == before
    assert "Run the same command again" in run.log.read_text()
    assert leftovers(run.output) == []
