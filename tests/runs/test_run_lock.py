"""One writer per output: who is refused, whose lock is taken over, and what a run does that lost its own."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stylebatch.errors import OutputLockedError
from stylebatch.folder import Folder
from stylebatch.interruption import interruptible
from stylebatch.local_files import write_bytes
from stylebatch.store import run_lock
from stylebatch.store.lock_owner import LOCK, activity
from stylebatch.store.run_lock import RunLock

HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("HEARTBEAT_S", 0.1),
        ("STALE_AFTER_S", 3.0),
        ("WATCHED_S", 0.3),
        ("SETTLES_S", 0.1),
        ("_LOOK_EVERY_S", 0.05),
    ):
        monkeypatch.setattr(run_lock, name, seconds)


def _write(folder: Path, **changes: Any) -> None:
    owner = {"host": "elsewhere", "machine": "m", "pid": 1, "started": "1", "token": "t",
             "heartbeat": time.time()}  # fmt: skip
    write_bytes(folder / ".run.lock", json.dumps(owner | changes).encode())


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that is alive has time for a heartbeat on a busy machine: its first one ends the watch."""
    monkeypatch.setattr(run_lock, "WATCHED_S", 20.0)
    monkeypatch.setattr(run_lock, "STALE_AFTER_S", 20.0)


@contextmanager
def _beating(folder: Path, clock_ahead_s: float, **changes: Any) -> Iterator[None]:
    """A live owner elsewhere."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            _write(folder, heartbeat=time.time() + clock_ahead_s, **changes)

    _write(folder, heartbeat=time.time() + clock_ahead_s, **changes)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_second_writer_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    with (
        RunLock(Folder.at(tmp_path)),
        pytest.raises(OutputLockedError, match=f"process {os.getpid()} on {HERE}"),
        RunLock(Folder.at(tmp_path)),
    ):
        pass
    with RunLock(Folder.at(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("waited_for", [True, False])
def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path, waited_for: bool) -> None:
    script = (
        "import time; from stylebatch.folder import Folder; from stylebatch.store.run_lock import RunLock\n"
        f"with RunLock(Folder.at({str(tmp_path)!r})):\n print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputLockedError, match=f"process {process.pid}"),
            RunLock(Folder.at(tmp_path)),
        ):
            pass
        process.kill()
        if waited_for:
            process.wait()
        else:  # dead, but its parent did not look: a zombie
            process.stdout.read()
            time.sleep(0.2)
        with RunLock(Folder.at(tmp_path)):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("age_s", [0.0, 600.0, -600.0])
def test_a_dead_owner_elsewhere_is_known_by_a_lock_that_stays_as_it_is(
    tmp_path: Path, age_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "STALE_AFTER_S", 0.6)
    _write(tmp_path, heartbeat=time.time() - age_s)
    said: list[str] = []
    with RunLock(Folder.at(tmp_path), note=said.append):
        assert json.loads((tmp_path / LOCK).read_text())["host"] == HERE
    assert len(said) == 1
    assert "process 1 on elsewhere; watching for" in said[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("clock_ahead_s", [0.0, -600.0, 600.0])
def test_a_live_owner_elsewhere_is_respected_whatever_its_clock_says(
    tmp_path: Path, clock_ahead_s: float
) -> None:
    with (
        _beating(tmp_path, clock_ahead_s),
        pytest.raises(OutputLockedError, match="elsewhere"),
        RunLock(Folder.at(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(("clock_ahead_s", "is_live"), [(0.0, True), (-600.0, False), (6e6, False)])
def test_an_owner_elsewhere_whose_clock_was_ahead_does_not_seem_alive_for_months(
    tmp_path: Path, clock_ahead_s: float, is_live: bool
) -> None:
    _write(tmp_path, heartbeat=time.time() + clock_ahead_s)
    found = activity(Folder.at(tmp_path), None)
    assert found is not None
    assert found.is_live == is_live


@pytest.mark.usefixtures("_patient")
def test_a_live_owner_in_another_container_of_this_host_is_respected(tmp_path: Path) -> None:
    with (
        _beating(tmp_path, 0.0, host=HERE, machine="other namespace", pid=2**22 + 1),
        pytest.raises(OutputLockedError, match=f"process {2**22 + 1}"),
        RunLock(Folder.at(tmp_path)),
    ):
        pass


def test_a_run_that_lost_its_lock_stops(tmp_path: Path) -> None:
    with pytest.raises(OutputLockedError, match="taken over by process 1"):  # noqa: SIM117, PT012
        with interruptible(), RunLock(Folder.at(tmp_path)):
            _write(tmp_path)
            for _ in range(100):
                time.sleep(0.1)
            pytest.fail("the run went on")
    assert json.loads((tmp_path / ".run.lock").read_text())["host"] == "elsewhere"


def test_a_lock_that_somebody_removed_is_put_back(tmp_path: Path) -> None:
    with RunLock(Folder.at(tmp_path)):
        (tmp_path / LOCK).unlink()
        for _ in range(100):
            if (tmp_path / LOCK).exists():
                break
            time.sleep(0.1)
        with pytest.raises(OutputLockedError), RunLock(Folder.at(tmp_path)):
            pass
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "empty": "",
    "cut": '{"host": "x", "pi',
    "of another program": '{"host": "x", "pid": null}',
    "of wrong types": json.dumps(
        {"host": "x", "machine": "m", "pid": 1, "started": "1", "token": "t", "heartbeat": "now"}
    ),
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_lock_that_names_no_owner_is_respected_until_it_is_old(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".run.lock"
    lock.write_text(BROKEN[kind])
    with (
        pytest.raises(OutputLockedError, match="found a lock that is"),
        RunLock(Folder.at(tmp_path)),
    ):
        pass
    assert lock.read_text() == BROKEN[kind]
    found = activity(Folder.at(tmp_path), None)
    assert found is not None
    assert found.is_live
    os.utime(lock, (time.time() - 600, time.time() - 600))
    found = activity(Folder.at(tmp_path), None)
    assert found is not None
    assert not found.is_live
    with RunLock(Folder.at(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_place_of_a_lock_is_left_alone(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / ".run.lock")
    os.utime(tmp_path / ".run.lock", (0, 0))
    with pytest.raises(OutputLockedError, match=r"Next: remove it"), RunLock(Folder.at(tmp_path)):
        pass


@pytest.mark.usefixtures("_patient")
def test_an_owner_whose_lock_was_emptied_writes_it_anew(tmp_path: Path) -> None:
    with RunLock(Folder.at(tmp_path)):
        (tmp_path / LOCK).write_text("")
        os.utime(tmp_path / LOCK, (0, 0))
        with (
            pytest.raises(OutputLockedError, match=f"process {os.getpid()}"),
            RunLock(Folder.at(tmp_path)),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with (
        RunLock(Folder.at(tmp_path)),
        pytest.raises(OutputLockedError),
        RunLock(Folder.at(tmp_path)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
