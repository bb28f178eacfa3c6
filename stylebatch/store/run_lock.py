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
from dataclasses import asdict
from types import TracebackType
from typing import Any

from stylebatch.errors import OutputLockedError
from stylebatch.folder import Folder
from stylebatch.store.lock_owner import (
    LOCK,
    STALE_AFTER_S,
    Owner,
    Unreadable,
    machine,
    process_start,
    read_lock,
)
from stylebatch.store.underway import Underway

HEARTBEAT_S = 5.0
WATCHED_S = 15.0
"""How long a lock that looks older than `STALE_AFTER_S` is watched nevertheless: its owner's clock may be wrong."""
SETTLES_S = 2.0
"""How long a lock that was just made may name no owner, on file systems without hard links, before that is an error."""
_LOOK_EVERY_S = 0.5


class RunLock:
    """A context manager. Raises OutputLockedError, naming the owner, when another run is alive.

    `note` gets a text when an owner elsewhere is watched; `underway` is asked at each heartbeat, by its thread, how far the run is.
    A lock lost while it was held ends the block with OutputLockedError: the main thread is interrupted.
    """

    def __init__(
        self,
        output: Folder,
        *,
        note: Callable[[str], None] | None = None,
        underway: Callable[[], Underway] | None = None,
    ) -> None:
        self.output = output
        self.note = note
        self.underway = underway
        self.owner = Owner(
            host=socket.gethostname(),
            machine=machine(),
            pid=os.getpid(),
            started=process_start(os.getpid()),
            token=os.urandom(8).hex(),
            heartbeat=time.time(),
        )
        self._taken_by: Owner | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="run-lock")

    def __enter__(self) -> RunLock:
        # the one atomic step: all that follows is about a lock that was there
        while not self.output.create(LOCK, self._content()):
            holder = self.dead_holder()
            if holder is not None and self._take_over(holder):
                break
        try:
            self._thread.start()
        except BaseException:
            self.output.remove(LOCK)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # the heartbeat first: it would create the lock again after it was removed
        self._stop.set()
        self._thread.join()
        if self._taken_by is not None:
            raise OutputLockedError(
                f"{self.output} was taken over by {self._taken_by} while this run was suspended for more "
                f"than {STALE_AFTER_S:.0f} s. Next: let that one finish; committed shards are kept."
            ) from error
        if self._is_ours(read_lock(self.output)):
            self.output.remove(LOCK)

    def dead_holder(self) -> Owner | Unreadable | None:
        """Who left the lock and is gone, None where there is none. Raises OutputLockedError; takes nothing."""
        while True:
            holder = read_lock(self.output)
            if isinstance(holder, Owner):
                self._require_dead(holder)
            elif isinstance(holder, Unreadable) and not self._require_old(holder):
                continue
            return holder

    def _take_over(self, holder: Owner | Unreadable) -> bool:
        """Put our lock in the place of a dead owner's; whether that was done. Of many takers one wins."""
        return self.output.swap(
            LOCK, lambda name: read_lock(self.output, name) == holder, self._content()
        )

    def _require_dead(self, holder: Owner) -> None:
        """Raise OutputLockedError where the holder is alive."""
        dead = not holder.seems_alive if holder.is_here else self._is_still(holder, str(holder))
        if not dead:
            raise OutputLockedError(
                f"{self.output} is being written by {holder} (last seen {holder.age_s:.0f} s ago). "
                "Next: wait for it, stop it, or give this run another directory with --output DIR."
            )

    def _require_old(self, holder: Unreadable) -> bool:
        """Whether a lock that names no owner stays as it is; a live owner writes it anew within seconds.

        Raises OutputLockedError where it is too young to be sure, or no file.
        """
        until = time.monotonic() + SETTLES_S
        while time.monotonic() < until:
            if read_lock(self.output) != holder:
                return False
            time.sleep(_LOOK_EVERY_S / 5)
        if holder.is_file and holder.age_s > STALE_AFTER_S:
            return self._is_still(holder, f"a file that is {holder.reason}")
        wait = f"wait {STALE_AFTER_S:.0f} s, or remove it" if holder.is_file else "remove it"
        raise OutputLockedError(
            f"{self.output.where(LOCK)}: found a lock that is {holder.reason}; accepted: the lock of a run. Another run may be starting. "
            f"Next: {wait} when no run writes {self.output}, or give this run another directory with --output DIR."
        )

    def _is_still(self, holder: Owner | Unreadable, named: str) -> bool:
        """Whether an owner elsewhere gives no sign of life while its lock is watched."""
        # a fresh one is watched for as long as a live owner may be silent
        for_s = WATCHED_S if holder.age_s > STALE_AFTER_S else STALE_AFTER_S
        if self.note is not None:
            self.note(
                f"{self.output} is locked by {named}; watching for {for_s:.0f} s whether it is alive"
            )
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
            now = read_lock(self.output)
            if now is None:
                return True
            if now != holder and isinstance(now, Owner):
                return False
        return True

    def _is_ours(self, holder: Owner | Unreadable | None) -> bool:
        return isinstance(holder, Owner) and holder.token == self.owner.token

    def _content(self) -> bytes:
        told: dict[str, Any] = {}
        if self.underway is not None:
            # whatever is odd about these facts: without a heartbeat the run would lose its lock
            with contextlib.suppress(Exception):
                told["underway"] = self.underway().model_dump()
        return json.dumps({**asdict(self.owner), "heartbeat": time.time(), **told}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # a full disk may recover; the next beat tries again
                holder = read_lock(self.output)
                if isinstance(holder, Owner) and not self._is_ours(holder):
                    self._taken_by = holder
                    # an exception in this thread would stop the heartbeat alone
                    _thread.interrupt_main(signal.SIGINT)
                    return
                # a lock that is gone is created, not written: another run may have just made its own
                if holder is not None:
                    self.output.write(LOCK, self._content())
                else:
                    self.output.create(LOCK, self._content())
