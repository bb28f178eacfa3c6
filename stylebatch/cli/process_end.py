"""How the process of a command ends: Python's part of it whole, that of C++ libraries not at all.

Their threads, such as those that read Parquet, may be at work when their destructors run; then C++ aborts the process, whose
code would be 134.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress


def keeping_code() -> Callable[[int], int]:
    """Takes the exit code and returns it; the process ends with it once all has run that was registered after this call."""
    codes: list[int] = []

    def end() -> None:
        if not codes:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # none, a full disk, closed
                stream.flush()
        os._exit(codes[-1])

    atexit.register(end)

    def keep(code: int) -> int:
        codes.append(code)
        return code

    return keep
