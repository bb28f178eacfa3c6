"""A disk that fills up under a run: the error names path and bytes, nothing is corrupt, resuming completes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.store.verify import verify
from tests.support.forked import forked
from tests.support.runs import digests, leftovers, render, small_manifest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True, check=False,
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "engine",
    [
        ("--engine", "local"),
        pytest.param(("--engine", "ray", "--workers", "2"), marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_stops_the_run_which_resumes_when_there_is_room(
    engine: tuple[str, ...], small_disk: Path, tmp_path: Path
) -> None:
    manifest = small_manifest(tmp_path / "in", contents=3, styles=3)
    whole = tmp_path / "whole"
    assert main(["run", str(manifest), "--output", str(whole)]) == 0
    output = small_disk / "out"
    (small_disk / "filler").write_bytes(bytes(4_030_000))
    words = ("run", str(manifest), "--output", str(output))
    is_local = engine == ("--engine", "local")
    stopped = forked(*words) if is_local else render(manifest, output, *engine)
    assert stopped.returncode == 5, stopped.stderr
    assert str(output) in stopped.stderr
    assert "bytes are free" in stopped.stderr
    assert "Free space" in stopped.stderr
    committed = {name for name in digests(output) if name.endswith(".tar")}
    problems = list(verify(output))
    assert problems
    assert all(problem.text.endswith("never committed") for problem in problems)
    (small_disk / "filler").unlink()
    done = forked(*words) if is_local else render(manifest, output, *engine)
    assert done.returncode == 0, done.stderr
    assert 0 < len(committed) < len(list(output.glob("data/*.tar")))
    assert digests(output) == digests(whole)
    assert leftovers(output) == []
