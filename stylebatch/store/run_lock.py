"""One writer per output directory: a lock file with owner and heartbeat.

1. The file is created only if it is not there. Its owner writes it anew every few seconds.
2. An owner on this machine is judged by its process: gone, or the same pid started at another time, is dead.
3. An owner elsewhere (another host, another container) is judged by whether its heartbeat still changes, watched with
   our own clock: clocks of machines differ. A dead owner's lock is taken over.
4. An owner that finds another's name in its lock, because it was suspended for so long that it was taken for dead,
   stops its run.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from stylebatch.errors import OutputLockedError
from stylebatch.store.commit import TEMPORARY, create_exclusive, write_bytes
from stylebatch.store.ledger import read_json

HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0
"""A lock that did not change for so long belongs to nobody."""
WATCHED_S = 15.0
"""How long a lock that looks older than that is watched nevertheless: its owner's clock may be wrong."""
_LOOK_EVERY_S = 0.5


class RunLock:
    """A context manager. Raises OutputLockedError, naming the owner, when another run is alive.

    `note` is told when an owner elsewhere is watched. A lock lost while it was held ends the block with
    OutputLockedError: the main thread is interrupted.
    """

    def __init__(self, output: Path, *, note: Callable[[str], None] | None = None) -> None:
        self.path = output / ".run.lock"
        self.note = note
        self.owner = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "token": os.urandom(8).hex(),
        }
        self._taken_by: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="run-lock")

    def __enter__(self) -> RunLock:
        while not create_exclusive(self.path, self._content()):
            holder = read_json(self.path)
            if holder is not None and not self._dead(holder):
                raise OutputLockedError(
                    f"{self.path.parent} is being written by {_named(holder)} (last seen {_age(holder):.0f} s ago). "
                    "Next: wait for it, stop it, or give this run another directory with --output DIR."
                )
            self._set_aside(holder)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._taken_by is not None:
            raise OutputLockedError(
                f"{self.path.parent} was taken over by {_named(self._taken_by)} while this run was suspended for more "
                f"than {STALE_AFTER_S:.0f} s. Next: let that one finish; committed shards are kept."
            ) from error
        holder = read_json(self.path)
        if holder is not None and self._is_ours(holder):
            self.path.unlink(missing_ok=True)

    def _set_aside(self, holder: dict[str, Any] | None) -> None:
        """Remove a dead owner's lock; renaming first lets exactly one taker win."""
        grave = self.path.with_name(f"{TEMPORARY}{self.path.name}.{self.owner['token']}")
        try:
            os.rename(self.path, grave)
        except FileNotFoundError:
            return
        if read_json(grave) != holder:
            os.replace(grave, self.path)
            return
        grave.unlink()

    def _dead(self, holder: dict[str, Any]) -> bool:
        try:
            pid, _ = int(holder["pid"]), float(holder["heartbeat"])
        except (KeyError, TypeError, ValueError):
            return True
        if all(holder.get(name) == self.owner[name] for name in ("host", "machine")):
            return _process_start(pid) != holder.get("started")
        return self._is_still(holder)

    def _is_still(self, holder: dict[str, Any]) -> bool:
        """Whether an owner elsewhere gives no sign of life while its lock is watched."""
        for_s = WATCHED_S if _age(holder) > STALE_AFTER_S else STALE_AFTER_S
        if self.note is not None:
            self.note(
                f"{self.path.parent} is locked by {_named(holder)}; watching for {for_s:.0f} s whether it is alive"
            )
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
            if not self.path.exists():
                return True
            now = read_json(self.path)
            if now is not None and now != holder:
                return False
        return True

    def _is_ours(self, holder: dict[str, Any]) -> bool:
        return holder.get("token") == self.owner["token"]

    def _content(self) -> bytes:
        return json.dumps({**self.owner, "heartbeat": time.time()}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            holder = read_json(self.path)
            if holder is not None and not self._is_ours(holder):
                self._taken_by = holder
                _thread.interrupt_main(signal.SIGINT)
                return
            with contextlib.suppress(OSError):  # a full disk may recover; the next beat tries again
                if holder is not None:
                    write_bytes(self.path, self._content())
                elif not self.path.exists():
                    create_exclusive(self.path, self._content())


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"


def _age(holder: dict[str, Any]) -> float:
    """Seconds since the heartbeat, as far as the clocks agree."""
    return max(0.0, time.time() - float(holder.get("heartbeat", 0)))


def _machine() -> str:
    """Where process numbers mean the same: this boot of this kernel, and this container (Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """Start time of a live process of this host (it tells a reused pid apart), or None.

    One that ended but was not yet waited for by its parent is dead.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "alive"
        return "alive"
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else fields[19]
