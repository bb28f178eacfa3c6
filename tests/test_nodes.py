"""Nodes of a Ray cluster that go and come while a run is under way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import command, digests, environment, events, leftovers, render, small_manifest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(
        tmp_path_factory.mktemp("nodes"), contents=12, styles=4, size=64, steps=10
    )


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    done = render(manifest, manifest.parent / "expected")
    assert done.returncode == 0, done.stderr
    return digests(manifest.parent / "expected")


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


class Run:
    """A run that joins a cluster, its log read while it works."""

    def __init__(self, manifest: Path, output: Path, address: str) -> None:
        self.output = output
        self.log = output.with_suffix(".log")
        options = ("--engine", "ray", "--json-logs", "--address", address)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command(manifest, output, *options),
                stdout=subprocess.DEVNULL, stderr=log, env=environment(),
            )  # fmt: skip

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in events(self.log.read_text()) if event["event"] == kind]

    def wait_for(self, kind: str, count: int) -> None:
        deadline = time.monotonic() + 150
        while len(self.events(kind)) < count:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> int:
        return self.process.wait(timeout=300)


def _same(output: Path, expected: dict[str, str]) -> None:
    assert digests(output) == expected
    assert leftovers(output) == []


def test_a_node_lost_for_good_costs_nothing_but_time(
    manifest: Path, expected: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    second = cluster.add_node(num_cpus=1)
    run = Run(manifest, tmp_path / "out", cluster.address)
    run.wait_for("joined", 2)
    run.wait_for("committed", 4)
    cluster.remove_node(second, allow_graceful=False)
    assert run.end() == 0, run.log.read_text()
    assert len(run.events("lost")) == 1
    _same(run.output, expected)


def test_a_node_that_comes_later_gets_work(
    manifest: Path, expected: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    run = Run(manifest, tmp_path / "out", cluster.address)
    run.wait_for("committed", 2)
    assert len(run.events("joined")) == 1
    cluster.add_node(num_cpus=1)
    assert run.end() == 0, run.log.read_text()
    workers = {event["worker"] for event in run.events("committed")}
    assert len(workers) == 2, run.log.read_text()
    _same(run.output, expected)
