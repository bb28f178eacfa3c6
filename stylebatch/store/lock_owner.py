"""Who holds an output: the lock file, read with types, and whether its owner lives."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.local_files import Facts
from stylebatch.store.output_record import RunRecord
from stylebatch.store.underway import Underway
from stylebatch.words import counted, is_or_are

LOCK = ".run.lock"
STALE_AFTER_S = 60.0
"""A lock that did not change for so long belongs to nobody."""
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Owner:
    """A run that holds a lock. `machine`: this boot of this kernel and this container; `heartbeat`: by the clock of its host.

    `underway`: how far it is, where it told.
    """

    host: str
    machine: str
    pid: int
    started: str | None
    token: str
    heartbeat: float
    underway: Underway | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def age_s(self) -> float:
        """Seconds since the heartbeat, as far as the clocks agree; a time in the future is as old."""
        return abs(time.time() - self.heartbeat)

    @property
    def is_here(self) -> bool:
        """Whether its process can be looked at from this one."""
        return (self.host, self.machine) == (socket.gethostname(), machine())

    @property
    def seems_alive(self) -> bool:
        """By its process, or elsewhere by its heartbeat, without waiting for the next one."""
        if self.is_here:
            return process_start(self.pid) == self.started
        return self.age_s <= STALE_AFTER_S


@dataclass(frozen=True)
class Unreadable:
    """A lock that names no owner: still empty, cut, foreign, or no file at all. `version` changes when it is written."""

    reason: str
    version: Facts

    @property
    def is_file(self) -> bool:
        return self.version.is_file

    @property
    def age_s(self) -> float:
        """Seconds since it was written; a time in the future is as old."""
        return abs(time.time() - self.version.modified)


def read_lock(output: Folder, name: str = LOCK) -> Owner | Unreadable | None:
    """The holder of a lock, None where there is no lock. Raises StorageError where the store does not say."""
    facts = output.facts(name)
    if facts is None:
        return None
    try:
        owner = _owner(json.loads(output.read(name, _MOST_BYTES)))
    except FileNotFoundError:
        # removed since the look at its facts: as good as no lock
        return None if facts.is_file else Unreadable("a link to nothing", facts)
    except UnansweredError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        fault = getattr(error, "strerror", None) or error
        reason = "empty" if facts.is_file and not facts.size_bytes else f"not whole ({fault})"
        return Unreadable(reason, facts)
    return owner or Unreadable("not a lock of stylebatch", facts)


def _owner(value: Any) -> Owner | None:
    if not isinstance(value, dict):
        return None
    host, kernel, token = (value.get(name) for name in ("host", "machine", "token"))
    pid, started, heartbeat = (value.get(name) for name in ("pid", "started", "heartbeat"))
    if not (isinstance(host, str) and isinstance(kernel, str) and isinstance(token, str)):
        return None
    # 0 and negative numbers mean groups of processes to os.kill
    if type(pid) is not int or not 0 < pid < 2**31 or not isinstance(started, str | None):
        return None
    if not isinstance(heartbeat, int | float) or not math.isfinite(heartbeat):
        return None
    underway = Underway.of(value.get("underway"))
    return Owner(host, kernel, pid, started, token, float(heartbeat), underway)


@dataclass(frozen=True)
class Activity:
    """What the lock of an output says: whether a run is writing it now, with a text for people."""

    is_live: bool
    text: str


def activity(
    output: Folder,
    record: RunRecord | None,
    is_alive: Callable[[Owner], bool] = lambda owner: owner.seems_alive,
) -> Activity | None:
    """Whether a run writes `output`, and how far it is by `record`; None where there is no lock."""
    holder = read_lock(output)
    if holder is None:
        return None
    if isinstance(holder, Unreadable):
        young = holder.is_file and holder.age_s <= STALE_AFTER_S
        what = "a run seems to be starting" if young else "no run can be told from it"
        return Activity(
            young, f"{output.where(LOCK)} is {holder.reason}: {what}{_progress(output, record)}"
        )
    if is_alive(holder):
        return Activity(
            True,
            f"{holder} is writing it (last seen {holder.age_s:.0f} s ago){_progress(output, record)}",
        )
    return Activity(
        False,
        f"{holder} wrote it and is gone (last seen {holder.age_s:.0f} s ago){_progress(output, record)}; "
        "next: run the same command again to continue",
    )


def _progress(output: Folder, record: RunRecord | None) -> str:
    if record is None:
        return "; nothing is committed yet"
    ending = "_stats.json"
    done = sum(
        record.names_shard(path.removeprefix("metadata/").removesuffix(ending))
        for path in output.names("metadata/")
        if path.endswith(ending)
    )
    return f"; {done:,} of {counted(record.plan.num_shards, 'shard')} {is_or_are(done)} committed"


def machine() -> str:
    """Where process numbers mean the same: this boot of this kernel, and this container (Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # the pid namespace: containers of one kernel have pids of their own
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Start time of a live process of this host (it tells a reused pid apart), or None.

    One that ended but was not yet waited for by its parent is dead.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "alive"
        return "alive"
    # the command's name may hold spaces and brackets; the last one ends it
    fields = status.rsplit(")", 1)[1].split()
    # field 22 of proc(5), the start time, counted from the state (field 3)
    return None if fields[0] in "ZX" else fields[19]
