"""Outputs that lie in a folder, for verbs that were given the folder and not one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from stylebatch.data.places import entries_of
from stylebatch.data.sources.outputs import is_output

MOST_NAMED = 10
LEVELS = 3
"""How far beneath a folder outputs are looked for."""
MOST_FOLDERS = 1000


def outputs_beneath(place: str) -> Iterator[str]:
    """Outputs in a folder of this machine, level by level."""
    folders, asked = [place.rstrip(os.sep) or os.sep], 0
    for _ in range(LEVELS):
        inner: list[str] = []
        for folder in folders:
            for name, is_folder in entries_within(folder).items():
                path = os.path.join(folder, name)
                if not is_folder or name.startswith(".") or os.path.islink(path):
                    continue
                asked += 1
                if asked > MOST_FOLDERS:
                    return
                if is_output(path):
                    yield os.path.normpath(path)
                else:
                    inner.append(path)
        folders = inner


def entries_within(folder: str) -> dict[str, bool]:
    """Names, and whether they are folders; none of a folder that cannot be read."""
    try:
        return entries_of(folder)
    except OSError:
        return {}


def named(places: Sequence[str]) -> str:
    """The first of them, for people: `a, b, ...`."""
    return ", ".join(places[:MOST_NAMED]) + ", ..." * (len(places) > MOST_NAMED)
