"""kill -9 before and after every step of writing, then resume: the bytes of an undisturbed run, nothing else left."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.faults import POINTS, arm
from tests.support.forked import forked
from tests.support.runs import command, digests, environment, leftovers, small_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(tmp_path_factory.mktemp("kill"), contents=2, styles=2)


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    assert main(["run", str(manifest), "--output", str(manifest.parent / "expected")]) == 0
    return digests(manifest.parent / "expected")


def test_points_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="STYLEBATCH_FAULT: found 'after lunch'"):
        arm("after lunch")


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("passage", [1, 4])
def test_resuming_after_a_kill_gives_the_same_bytes(
    point: str, passage: int, manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = ("run", str(manifest), "--output", str(output))
    killed = forked(*words, STYLEBATCH_FAULT=f"{point}:{passage}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert digests(output) != expected or passage > 1
    assert main([*words]) == 0
    assert digests(output) == expected
    assert leftovers(output) == []


@pytest.mark.slow
def test_resuming_after_kills_at_random_times(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    draw, output = random.Random(7), tmp_path / "out"
    kills = 0
    for _ in range(4):
        run = subprocess.Popen(
            command(manifest, output),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        deadline = time.monotonic() + 600
        while not output.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 4.0))
        run.kill()
        kills += run.wait() == -signal.SIGKILL
    assert kills > 0
    assert main(["run", str(manifest), "--output", str(output)]) == 0
    assert digests(output) == expected
    assert leftovers(output) == []
