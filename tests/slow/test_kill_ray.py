"""kill -9 of the driver, a worker or the raylet of a Ray run at random times: the same bytes after resuming."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from pipelines.proofs.crashes import WORKERS, Setup, command, digests, kill_and_resume
from tests.support.runs import environment, small_manifest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("victim", WORKERS)
def test_a_ray_run_survives(victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "RAY_worker_niceness"):
        monkeypatch.setenv(name, environment()[name])
    manifest = small_manifest(tmp_path / "in", contents=6, styles=4)
    whole = tmp_path / "whole"
    subprocess.run(command(manifest, whole, []), check=True, capture_output=True)
    setup = Setup(
        manifest, tmp_path / "killed", digests(whole),
        options=["--engine", "ray", "--workers", "2"], victims=[victim], at_most_s=12.0,
    )  # fmt: skip
    done = kill_and_resume(setup, random.Random(3), 3)
    assert done.kills
    assert done.same, done
