"""The process that plans serves metrics of all workers, and the output has the bytes of a run without."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stylebatch.monitoring.status import status
from tests.support.runs import command, digests, environment, render, small_manifest

pytestmark = pytest.mark.slow
SERVED = ("--metrics-port", "0", "--set", "engine.metrics_host=127.0.0.1")
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(tmp_path_factory.mktemp("in") / "in", contents=6, styles=3, steps=20)


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    assert render(manifest, manifest.parent / "alone").returncode == 0
    return digests(manifest.parent / "alone")


def _values(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        # one label is the output's; of workers by host and of samples by status the sum is enough here
        return {one.name: sum(s.value for s in one.samples) for one in families}


@pytest.mark.parametrize("engine", ["ray", "accelerate"])
def test_two_workers_are_counted(
    manifest: Path, expected: dict[str, str], tmp_path: Path, engine: str
) -> None:
    output = tmp_path / "out"
    words = command(manifest, output, *SERVED)
    by_ranks = [sys.executable, *LAUNCH, *words[1:]]
    words = by_ranks if engine == "accelerate" else [*words, "--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    with process:
        assert process.stdout is not None
        line = ""
        while "Metrics are at" not in line:
            line = process.stdout.readline()
            assert line, "the run ended"
        url, seen = line.split("Metrics are at ")[1].partition(";")[0].strip(), dict[str, float]()
        while process.poll() is None and not (
            seen.get("stylebatch_workers") == 2 and seen["stylebatch_samples"]
        ):
            time.sleep(0.2)
            seen = _values(url)
        assert seen["stylebatch_workers"] == 2
        assert 0 < seen["stylebatch_samples"] <= seen["stylebatch_samples_planned"] == 18
        assert seen["stylebatch_samples_per_second"] > 0
        rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert status(output).state == "finished"
    assert digests(output) == expected
