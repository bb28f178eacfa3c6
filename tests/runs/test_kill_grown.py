"""kill -9 while an output grows or is repaired, then the same command: the bytes of an undisturbed one, nothing else left."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.store.verify import verify
from tests.support.forked import forked
from tests.support.images import picture
from tests.support.runs import digests, leftovers, small_manifest

QUICK = ("after rename:1", "before marker:1")
"""run.json is not yet grown; a shard is not yet committed."""
slow = pytest.mark.slow
STATES = ("after open", "before rename", "after rename")
"""Of a file that is being written: begun, whole under its temporary name, in its place. Other points kill in one of these."""
MOST_PASSAGES = 60
"""Passages of a point in either command, at most; after the last one the command ends unharmed."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest; its output `out`; and `grown`, what an undisturbed run makes of it when a content was added."""
    folder = tmp_path_factory.mktemp("grown")
    manifest = small_manifest(folder, contents=2, styles=1)
    assert _run(manifest, folder / "out") == 0
    picture(77, 48, 40).save(folder / "contents" / "added.png")
    shutil.copytree(folder / "out", folder / "grown")
    assert _run(manifest, folder / "grown") == 0
    return folder


def _run(manifest: Path, output: Path) -> int:
    return main(["run", str(manifest), "--output", str(output)])


def _end_to_end(command: list[str], fault: str) -> int:
    """Runs a command in a process of its own with a fault, then without; the first exit code."""
    first = forked(*command, STYLEBATCH_FAULT=fault)
    assert first.returncode in (0, -signal.SIGKILL), first.stderr
    assert main(command) == 0
    return first.returncode


def _grow(base: Path, output: Path, fault: str) -> int:
    shutil.copytree(base / "out", output)
    return _end_to_end(["run", str(base / "run.yaml"), "--output", str(output)], fault)


def _repair(base: Path, output: Path, fault: str) -> int:
    """Of a grown output whose shards are all damaged: one by its rungs, one without marker, one without tar."""
    shutil.copytree(base / "grown", output)
    marker = output / "metadata/train-00000_stats.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"executed": [[1, 1, 1]]}))
    (output / "data/train-00000.tar").write_bytes(b"")
    (output / "metadata/train-00001_stats.json").unlink()
    (output / "data/train-00002.tar").unlink()
    code = _end_to_end(["repair", str(output)], fault)
    assert json.loads(marker.read_text())["executed"] == [[1, 1, 1]]
    return code


def _is_as(expected: Path, output: Path) -> None:
    assert digests(output) == digests(expected)
    assert leftovers(output) == []
    assert list(verify(output)) == []


@pytest.mark.parametrize("fault", QUICK)
def test_growing_goes_on_after_a_kill(base: Path, tmp_path: Path, fault: str) -> None:
    assert _grow(base, tmp_path / "out", fault) == -signal.SIGKILL
    _is_as(base / "grown", tmp_path / "out")


def test_a_repair_goes_on_after_a_kill(base: Path, tmp_path: Path) -> None:
    assert _repair(base, tmp_path / "out", "before marker:1") == -signal.SIGKILL
    _is_as(base / "grown", tmp_path / "out")


@slow
@pytest.mark.parametrize("command", [_grow, _repair])
@pytest.mark.parametrize("point", STATES)
def test_a_kill_in_every_state_of_every_file(
    base: Path, tmp_path: Path, command, point: str
) -> None:  # type: ignore[no-untyped-def]
    for passage in range(1, MOST_PASSAGES + 1):
        output = tmp_path / str(passage)
        code = command(base, output, f"{point}:{passage}")
        _is_as(base / "grown", output)
        if code == 0:
            break
    else:
        pytest.fail(f"{point} is passed more than {MOST_PASSAGES} times")
    assert passage > 1
