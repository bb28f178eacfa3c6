"""Whether the owner of a lock lives, over several looks: clocks of machines differ, but a heartbeat that changes is a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable

from stylebatch.folder import Folder
from stylebatch.store.lock_owner import STALE_AFTER_S, Owner, Unreadable, read_lock
from stylebatch.store.run_lock import WATCHED_S

LOOK_EVERY_S = 0.5
WORTH_WATCHING_S = 86400.0
"""An owner elsewhere whose heartbeat is older, by whatever clock, is dead without being watched."""
Holder = Owner | Unreadable | None


class Pulse:
    """Of the owner of an output's lock. `note` gets a text where one elsewhere is watched, which takes up to `WATCHED_S`."""

    def __init__(self, output: Folder, note: Callable[[str], None] | None = None) -> None:
        self.output, self.note = output, note
        self._last: Holder = None
        self._changed = 0.0
        self._is_watched = False

    def is_live(self, holder: Holder) -> bool:
        """Whether `holder` writes; what looks dead from elsewhere is watched once, before that is said."""
        is_live = self._is_felt(holder)
        if is_live or not isinstance(holder, Owner) or not self._is_doubtful(holder):
            return is_live
        if self.note is not None:
            self.note(
                f"{self.output} is locked by {holder} (last seen {holder.age_s:.0f} s ago by its clock); watching for "
                f"{WATCHED_S:.0f} s whether it is alive"
            )
        until = time.monotonic() + WATCHED_S
        while time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
            now = read_lock(self.output)
            if now != holder:
                return self._is_felt(now)
        return False

    def _is_felt(self, holder: Holder) -> bool:
        if holder is None:
            self._last = None
            return False
        if isinstance(holder, Unreadable):
            return holder.is_file and holder.age_s <= STALE_AFTER_S
        if holder.is_here:
            return holder.seems_alive
        former, now = self._last, time.monotonic()
        if former != holder:
            self._last, self._changed = holder, now
            # another heartbeat of the same owner is a sign of life, whatever its clock says
            self._is_watched = isinstance(former, Owner) and former.token == holder.token
        if self._is_watched:
            return now - self._changed <= STALE_AFTER_S
        return holder.seems_alive and now - self._changed <= STALE_AFTER_S

    def _is_doubtful(self, holder: Owner) -> bool:
        """Whether a clock that is wrong may make a live owner look dead, seen once."""
        return not holder.is_here and not self._is_watched and holder.age_s <= WORTH_WATCHING_S
