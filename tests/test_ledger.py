"""Who may write, what is committed, and what a changed plan says."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stylebatch.errors import ManifestError, OutputLockedError, PlanChangedError
from stylebatch.store.ledger import Ledger, RunLock, diff


def _run(gamma: float) -> dict[str, Any]:
    return {
        "digest": f"{gamma}",
        "identity": {"method": {"gamma": gamma, "tau": 1.5}, "contents": f"{gamma:.62f}"[:64]},
    }


def test_second_writer_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    with (
        RunLock(tmp_path),
        pytest.raises(OutputLockedError, match=f"process {os.getpid()} on {socket.gethostname()}"),
        RunLock(tmp_path),
    ):
        pass
    with RunLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from stylebatch.store.ledger import RunLock\n"
        f"with RunLock(Path({str(tmp_path)!r})):\n print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputLockedError, match=f"process {process.pid}"), RunLock(tmp_path):
            pass
        process.kill()
        process.wait()
    with RunLock(tmp_path) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(("age_s", "dead"), [(10.0, False), (600.0, True)])
def test_lock_of_another_host_is_judged_by_its_heartbeat(
    tmp_path: Path, age_s: float, dead: bool
) -> None:
    (tmp_path / ".run.lock").write_text(
        json.dumps(
            {
                "host": "elsewhere",
                "pid": 1,
                "started": "1",
                "token": "t",
                "heartbeat": time.time() - age_s,
            }
        )
    )
    if dead:
        with RunLock(tmp_path):
            pass
    else:
        with pytest.raises(OutputLockedError, match="elsewhere"), RunLock(tmp_path):
            pass


def test_changed_plan_is_refused_with_a_readable_diff(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = ledger.open(_run(0.75))
    assert ledger.open(_run(0.75)) == first
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "train-00000_stats.json").write_text("{}")
    with pytest.raises(PlanChangedError) as caught:
        ledger.open(_run(0.5))
    assert "method.gamma: 0.75 -> 0.5" in str(caught.value)
    assert "contents: file names, labels or captions changed" in str(caught.value)
    assert "tau" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ManifestError, match=r"thesis\.tex"):
        Ledger(tmp_path).open(_run(0.75))


@pytest.mark.parametrize(
    "damage",
    ["none", "other plan", "short tar", "no tar", "no metadata", "bad metadata", "half stats"],
)
def test_only_whole_commits_of_this_plan_count(tmp_path: Path, damage: str) -> None:
    for folder in ("data", "metadata"):
        (tmp_path / folder).mkdir()
    tar, metadata, stats = (
        tmp_path / "data/train-0.tar",
        tmp_path / "metadata/train-0.parquet",
        tmp_path / "metadata/train-0_stats.json",
    )
    tar.write_bytes(b"x" * 100)
    metadata.write_bytes(b"m")
    stats.write_text(
        json.dumps(
            {
                "plan_digest": "other" if damage == "other plan" else "mine",
                "bytes": 100,
                "metadata_sha256": hashlib.sha256(b"m").hexdigest(),
                "num_success": 1,
            }
        )
    )
    if damage == "short tar":
        tar.write_bytes(b"x" * 99)
    elif damage == "no tar":
        tar.unlink()
    elif damage == "bad metadata":
        metadata.write_bytes(b"n")
    elif damage == "no metadata":
        metadata.unlink()
    elif damage == "half stats":
        stats.write_text(stats.read_text()[:20])
    assert (Ledger(tmp_path).stats("train-0", "mine") is not None) == (damage == "none")


def test_diff_walks_nested_values() -> None:
    assert diff({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "d": 3}) == [
        "c: 2 -> null",
        "d: null -> 3",
    ]


def test_a_plan_under_which_nothing_was_committed_may_change(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open(_run(0.75))
    assert ledger.open(_run(0.5))["digest"] == "0.5"


def test_a_damaged_run_record_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"digest": ')
    with pytest.raises(ManifestError, match=r"run\.json is damaged"):
        Ledger(tmp_path).open(_run(0.75))


def test_an_unreadable_lock_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / ".run.lock").write_text('{"host": "x", "pid": null}')
    with RunLock(tmp_path):
        pass
