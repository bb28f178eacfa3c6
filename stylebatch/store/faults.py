"""Faults on purpose: the process is killed at a named point of writing, to prove that a crash there costs nothing.

`STYLEBATCH_FAULT="after rename:3"` on the command line kills it at the third passage of that point. Nothing happens
unless it is armed.
"""

from __future__ import annotations

import os
import signal

STEPS = ("open", "payload", "fsync", "rename", "metadata", "marker")
"""Opening a temporary file, a sample's bytes into the tar, fsync, rename, metadata Parquet, the stats file that commits."""
POINTS = tuple(f"{when} {step}" for step in STEPS for when in ("before", "after"))

_armed: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm one fault, `POINT` or `POINT:N`; an empty text disarms. Raises ValueError for a point that does not exist."""
    _armed.clear()
    if not text:
        return
    point, _, passage = text.partition(":")
    if point not in POINTS or not (passage or "1").isdecimal():
        raise ValueError(
            f"STYLEBATCH_FAULT: found {text!r}; accepted: one of {', '.join(POINTS)}, with :N for the N-th passage"
        )
    _armed[point] = int(passage or "1")


def passing(point: str) -> None:
    """Mark a point of the program; the process ends here when it is the armed one."""
    if point not in _armed:
        return
    _armed[point] -= 1
    if _armed[point] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
