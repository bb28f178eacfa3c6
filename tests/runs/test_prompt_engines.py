"""Runs of prompts give the same bytes from every engine, and after a kill."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.prompt_runs import write_prompts
from tests.support.runs import command, digests, environment, render, render_by_ranks

pytestmark = pytest.mark.slow

SMALL = {"image": {"size": 32}, "engine": {"threads": 1, "batch": 8}}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StyleAligned sets on the embedded model, in shards of two samples."""
    folder = tmp_path_factory.mktemp("prompts")
    return write_prompts(folder, "stylealigned", "tiny", **SMALL)


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    """Digests of an undisturbed local run."""
    done = render(manifest, manifest.parent / "local")
    assert done.returncode == 0, done.stderr
    found = digests(manifest.parent / "local")
    assert sum(name.endswith(".tar") for name in found) == 2
    return found


def test_ray_with_two_workers(manifest: Path, expected: dict[str, str], tmp_path: Path) -> None:
    done = render(manifest, tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ray") == expected


def test_two_ranks(manifest: Path, expected: dict[str, str], tmp_path: Path) -> None:
    done = render_by_ranks(manifest, tmp_path / "ranks")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ranks") == expected


def test_a_killed_run_resumes_to_the_same_bytes(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    run = subprocess.Popen(
        command(manifest, output, "--engine", "local"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(output.glob("metadata/*_stats.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=60)
    done = render(manifest, output)
    assert done.returncode == 0, done.stderr
    assert digests(output) == expected
