"""Why samples failed, for a terminal: the commonest reasons, each with an example."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from stylebatch.methods.input_kinds import kinds_of

MAX_EXAMPLE = 240
SHORT_NAME = 4
"""Letters of a name that may also be part of any word."""


class Reason(NamedTuple):
    """`example`: the message of the first sample that failed so."""

    code: str
    num_samples: int
    example: str

    def line(self) -> str:
        return f"{self.code} {self.num_samples:,}, such as {self.example}"


class Reasons:
    """Counts records of failed samples. Messages that differ in names and numbers alone are one reason."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[str, str]]()
        self._examples: dict[tuple[str, str], str] = {}

    def add(self, failed: pa.Table) -> None:
        ids = [axis.column for axis in kinds_of(failed.column_names)]
        columns = failed.select(["error_code", "error_message", *ids]).to_pydict().values()
        for code, message, *names in zip(*columns, strict=True):
            kind = code, _kind(message, names)
            self._counts[kind] += 1
            self._examples.setdefault(kind, _short(message))

    def sorted(self) -> tuple[Reason, ...]:
        """The reasons, most first."""
        order = sorted(self._counts, key=lambda kind: (-self._counts[kind], kind))
        return tuple(Reason(kind[0], self._counts[kind], self._examples[kind]) for kind in order)


def _kind(message: str, names: Iterable[str]) -> str:
    """The message without the names of the sample's inputs and without numbers."""
    for name in names:
        # an id such as `a` would take letters out of every word
        if name and (len(name) > SHORT_NAME or message.startswith(name)):
            message = message.replace(name, "")
    return re.sub(r"\d+", "#", message)


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= MAX_EXAMPLE else line[: MAX_EXAMPLE - 3] + "..."
