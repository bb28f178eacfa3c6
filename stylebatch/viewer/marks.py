"""Marked samples: a file of keys, one a line, that `stylebatch export --drop` takes.

Its first line says whose marks they are. A file without that line is somebody else's and stays as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.reports.page_state import MARKS_HEAD, marks_head
from stylebatch.store.output_record import RunRecord

MOST_BYTES = 1 << 28


class NotOursError(ManifestError):
    """The file of that name holds something else than marks of this output."""


class Marks:
    """The file `name` in `folder`. Each change reads it, changes it and writes it whole: two viewers may share one."""

    def __init__(self, folder: Folder, name: str, run: RunRecord) -> None:
        self.folder, self.name = folder, name
        self._head = marks_head(run)
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        return self.folder.where(self.name)

    def keys(self) -> list[str]:
        """What is marked, in order. Raises NotOursError."""
        return self._read() or []

    def change(self, keys: Collection[str], *, marked: bool) -> list[str]:
        """Mark samples, or take their marks back; returns what is marked then. Raises NotOursError."""
        with self._lock:
            for _ in range(3):
                former = self._read()
                found = set(former or ())
                found = found | set(keys) if marked else found - set(keys)
                data = "\n".join([self._head, *sorted(found), ""]).encode()
                if former is not None:
                    self.folder.write(self.name, data)
                    return sorted(found)
                # nobody's file may take this name between the look and the write
                if self.folder.create(self.name, data):
                    return sorted(found)
            raise self._not_ours()

    def _read(self) -> list[str] | None:
        """None where there is no file."""
        try:
            text = self.folder.read(self.name, MOST_BYTES).decode()
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise self._not_ours() from None
        head, *lines = text.splitlines() or [""]
        if not head.startswith(MARKS_HEAD):
            raise self._not_ours()
        # the name is for people: an output may be called otherwise tomorrow
        if _digest(head) != _digest(self._head):
            raise self._not_ours("marks of another output")
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def _not_ours(self, found: str = "a file that `stylebatch view` did not write") -> NotOursError:
        return NotOursError(
            f"--keys: {self.where}: found {found}, which stays as it is; accepted: a new file, or one of earlier marks of this "
            "output. Next: give another name with --keys FILE"
        )


def _digest(head: str) -> str:
    return head.removeprefix(MARKS_HEAD).partition(" ")[0]
