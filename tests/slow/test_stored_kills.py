"""kill -9 at every boundary of a run whose output lies in S3, then resume: the bytes of an undisturbed run, nothing else left."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from stylebatch.engine.run import run
from stylebatch.errors import OutputLockedError
from stylebatch.faults import POINTS, UPLOADS, arm
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.store.run_lock import LOCK
from stylebatch.store.verify import verify
from tests.support.forked import become
from tests.support.runs import small_manifest
from tests.support.s3 import (
    BUCKET,
    contents,
    proxied,
    s3_server,
    short_pauses,
    store,
    unreliable,
)

pytestmark = pytest.mark.slow
NUM_UPLOADS = 14
"""Of a run of two shards: run.json, two lists, tar, rows and marker of each, files, errors, sheet, gallery, card.

The heartbeat of the lock may come between them.
"""
BOUNDARIES = [f"{point}:1" for point in POINTS]
# every third upload, since each case takes two runs; the points above are all there are within a shard
BOUNDARIES += [f"{UPLOADS[0]}:{n}" for n in range(1, NUM_UPLOADS + 1, 3)]
BOUNDARIES += [f"{UPLOADS[1]}:{NUM_UPLOADS}"]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(tmp_path_factory.mktemp("kill"), contents=1, styles=2)


@pytest.fixture(scope="module")
def expected(s3: str, manifest: Path) -> dict[str, bytes]:
    address = f"s3://{BUCKET}/expected"
    assert _end(_start(manifest, address)) == 0
    return _lasting(address)


def _render(manifest: Path, address: str, fault: str, environment: dict[str, str]) -> None:
    """What a process of its own does."""
    become(environment, os.getcwd())
    arm(fault)
    with short_pauses():
        result = run(load_spec(manifest, output=address))
    raise SystemExit(result.exit_code)


def _start(manifest: Path, address: str, fault: str = "") -> ForkServerProcess:
    """A run in a process that is forked from one which has loaded the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.slow.test_stored_kills"])
    process = context.Process(target=_render, args=(manifest, address, fault, dict(os.environ)))
    process.start()
    return process


def _end(process: ForkServerProcess) -> int | None:
    process.join(600)
    return process.exitcode


def _lasting(address: str) -> dict[str, bytes]:
    """Objects whose bytes the plan decides, and the names of the others."""
    decided = (".tar", ".parquet", ".png")
    return {
        name: data if name.endswith(decided) else b"" for name, data in contents(address).items()
    }


def _unfinished() -> list[object]:
    listed = store(f"s3://{BUCKET}").filesystem.call_s3("list_multipart_uploads", Bucket=BUCKET)
    return list(listed.get("Uploads", []))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_resuming_after_a_kill_gives_the_same_bytes(
    boundary: str, manifest: Path, expected: dict[str, bytes]
) -> None:
    address = f"s3://{BUCKET}/{boundary.replace(' ', '-').replace(':', '-')}"
    assert _end(_start(manifest, address, boundary)) == -signal.SIGKILL
    assert _lasting(address) != expected
    assert _end(_start(manifest, address)) == 0
    assert _lasting(address) == expected
    assert list(verify(address)) == []
    assert _unfinished() == []


def test_kills_at_random_times_while_the_network_fails(
    s3: str, manifest: Path, expected: dict[str, bytes]
) -> None:
    draw, address = random.Random(5), f"s3://{BUCKET}/random"
    kills = 0
    with proxied(s3, unreliable):
        for _ in range(6):
            process = _start(manifest, address)
            time.sleep(draw.uniform(0.5, 4.0))
            process.kill()
            kills += _end(process) == -signal.SIGKILL
        assert kills
        assert _end(_start(manifest, address)) == 0
    assert _lasting(address) == expected


def test_of_two_writers_one_is_refused_and_told_the_other(
    manifest: Path, expected: dict[str, bytes]
) -> None:
    address = f"s3://{BUCKET}/two"
    first = _start(manifest, address)
    folder, deadline = Folder.at(address), time.monotonic() + 120
    while folder.facts(LOCK) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    try:
        with pytest.raises(OutputLockedError, match=rf"being written by process {first.pid} on "):
            run(load_spec(manifest, output=address))
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert _end(first) == 0
    assert _lasting(address) == expected
