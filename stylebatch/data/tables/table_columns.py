"""Finds the known columns among those of a table.

Case, spaces and hyphens make no difference. A column that looks misspelt is refused if the known one is missing, so that no
label is lost to a typing error. All other columns are ignored, and listed in a note.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from stylebatch.errors import ManifestError

SHOWN = 12
MAX_UNUSED = 1000
CUTOFF = 0.75
SHORTEST_SLIP = 4
"""Shorter names are never taken for misspelt ones: `idx` is not `id`."""


@dataclass(frozen=True)
class Columns:
    """The known columns of a table. `elsewhere`: columns that have a meaning in other tables; here they are refused.

    `carries`: all others are read as well, under their names as they stand.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    carries: bool = False

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.required, *self.optional)

    def further(self, row: Mapping[str, str]) -> dict[str, str]:
        """The cells of columns that are not known."""
        known = self.known
        if not self.carries or len(row) == len(known):
            return {}
        return {column: text for column, text in row.items() if column not in known}

    def __str__(self) -> str:
        optional = ", ".join(self.optional)
        return ", ".join(self.required) + (f"[, {optional}]" if optional else "")


class Header:
    """Matches names of a table's columns; `unused` collects the unknown ones."""

    def __init__(self, uri: str, columns: Columns) -> None:
        self.uri, self.columns = uri, columns
        self.unused: dict[str, None] = {}

    def match(self, names: Sequence[str], where: str) -> dict[str, int]:
        """Position of each known column among `names`; `where` names their place in errors."""
        found: dict[str, int] = {}
        unknown: list[str] = []
        for position, name in enumerate(names):
            key = plain(name)
            if key in self.columns.elsewhere:
                raise self._error(where, f"found column `{shown(name)}`, which has no use here")
            if key not in self.columns.known:
                unknown.append(name)
            elif key in found:
                raise self._error(where, f"found column `{key}` twice")
            else:
                found[key] = position
        missing = [name for name in self.columns.known if name not in found]
        # Only names that are missing: `contents2` beside `content` is a column of its own.
        for name in unknown:
            if slip := slip_of(plain(name), missing):
                raise self._error(
                    where, f"found column `{shown(name)}`; did you mean `{slip}`? Rename it"
                )
        others = [name for name in unknown if name.strip()]
        if self.columns.carries:
            # Of a name that stands there twice the first is taken.
            return {name: names.index(name) for name in others} | found
        if len(self.unused) < MAX_UNUSED:
            self.unused |= dict.fromkeys(others)
        return found

    def require(self, found: Iterable[str], names: Sequence[str], where: str) -> None:
        """Raise ManifestError if a required column is missing."""
        missing = [name for name in self.columns.required if name not in set(found)]
        if missing:
            some = ", ".join(shown(name) for name in names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
            # names that look like files are the first row of a table without a header
            is_data = any(PurePath(name).suffix or "/" in name for name in names)
            hint = "; the first row must name the columns" if is_data else ""
            raise self._error(where, f"has no `{missing[0]}` (found columns {some}{hint})", "")

    def _error(self, where: str, text: str, mark: str = ":") -> ManifestError:
        return ManifestError(f"{self.uri}: {where}{mark} {text}; accepted columns: {self.columns}")


def plain(name: str) -> str:
    """A name in the form that is compared: ` Negative-Prompt` becomes `negative_prompt`."""
    return re.sub(r"[\s_-]+", "_", name.strip("\ufeff \t\r\n").casefold()).strip("_")


def shown(text: str, most: int = 60) -> str:
    """The text as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def slip_of(name: str, known: Sequence[str]) -> str | None:
    """The known name that `name` misspells, or None. `license_url` is a name of its own."""
    for other in known:
        if min(len(name), len(other)) < SHORTEST_SLIP or other in name.split("_"):
            continue
        # alike with the same first letter, or with transposed letters, or a plural
        alike = difflib.SequenceMatcher(None, name, other).ratio() >= CUTOFF
        if (alike and name[0] == other[0]) or sorted(name.removesuffix("s")) == sorted(other):
            return other
    return None
