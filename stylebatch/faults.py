"""Kills the process at a named point of writing, so that tests can prove that a crash there loses nothing.

`STYLEBATCH_FAULT="after rename:3"` on the command line kills it the third time it passes that point. Without the variable
nothing happens.
"""

from __future__ import annotations

import os
import signal

STEPS = ("open", "payload", "fsync", "rename", "metadata", "marker")
"""Open a temporary file, write a sample into the tar, fsync, rename, write the metadata Parquet, write the commit marker."""
POINTS = tuple(f"{when} {step}" for step in STEPS for when in ("before", "after"))
UPLOADS = ("before upload", "after upload")
"""Passed beside them where the output is in a store."""

_armed: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm one fault, `POINT` or `POINT:N`; an empty text disarms. Raises ValueError for a point that does not exist."""
    _armed.clear()
    if not text:
        return
    point, _, passage = text.partition(":")
    if point not in (*POINTS, *UPLOADS) or not (passage or "1").isdecimal():
        raise ValueError(
            f"STYLEBATCH_FAULT: found {text!r}; accepted: one of {', '.join((*POINTS, *UPLOADS))}, with :N for the N-th passage"
        )
    _armed[point] = int(passage or "1")


def passing(point: str) -> None:
    """Mark a point of the program; the process ends here when it is the armed one."""
    if point not in _armed:
        return
    _armed[point] -= 1
    if _armed[point] <= 0:
        # SIGKILL, not an exception or exit: no `finally`, handler or buffer may tidy up.
        os.kill(os.getpid(), signal.SIGKILL)
