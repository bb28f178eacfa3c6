"""What a check found: a problem stops a run, a note does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing found, and what to do about it."""

    level: Literal["problem", "note"]
    message: str
    next_step: str

    def line(self) -> str:
        return f"{self.level}: {self.message}. Next: {self.next_step}"


def problem(message: str, next_step: str) -> Finding:
    return Finding("problem", message, next_step)


def note(message: str, next_step: str) -> Finding:
    return Finding("note", message, next_step)
