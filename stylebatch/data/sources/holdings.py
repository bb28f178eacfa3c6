"""What a folder holds, by a glance at some of its files; and which split a file belongs to, by its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.places import first_names, names_below
from stylebatch.paths import is_address

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "dev"))
_SPLIT_NAME = re.compile(rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z0-9])", re.I)
SUBFOLDERS = 64
FILES_EACH = 256


def holds(folder: str, suffix: str) -> bool:
    """Whether files of `suffix` stand in the folder, or one level below, and no pictures."""
    found = False
    for name in _glance(folder):
        kind = os.path.splitext(name)[1].lower()
        if kind in IMAGE_SUFFIXES:
            return False
        found = found or kind == suffix
    return found


def holds_first(folder: str, suffixes: Sequence[str]) -> str:
    """The one of `suffixes` that stands first in the folder, or one level below; "" for none."""
    kinds = (os.path.splitext(name)[1].lower() for name in _glance(folder))
    return next((kind for kind in kinds if kind in suffixes), "")


def _glance(folder: str) -> Iterator[str]:
    """Names of the files in the folder, then some of each of its first subfolders."""
    if is_address(folder):
        yield from first_names(folder)
        return
    below: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    below.append(entry.path)
                else:
                    yield entry.name
        # scandir has no order: sorted, the answer is the same on every machine.
        for path in sorted(below)[:SUBFOLDERS]:
            with os.scandir(path) as entries:
                yield from (entry.name for entry in islice(entries, FILES_EACH))
    except OSError:
        return  # listing the folder says what is wrong with it


def files_below(folder: str, suffix: str) -> list[str]:
    """Paths of the files of `suffix` in the folder and one level below, sorted by their names there; hidden ones left out."""
    if is_address(folder):
        return [
            f"{folder.rstrip('/')}/{name}"
            for name in names_below(folder)
            if name.count("/") <= 1 and name.lower().endswith(suffix)
        ]
    found: list[str] = []
    for place in (folder, *_subfolders(folder)):
        with os.scandir(place) as entries:
            found += [
                entry.path
                for entry in entries
                if entry.name.lower().endswith(suffix)
                and not entry.name.startswith(".")
                and entry.is_file()
            ]
    return sorted(found)


def _subfolders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [
            entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        ]


def split_of(name: str) -> str:
    """`train` of `train-00000-of-00002.parquet`, of `data/train_0.tar` and of `train/0001.tar`; "" where it tells none."""
    # The file's own name goes before those of its folders.
    for part in reversed(name.split("/")):
        if found := _SPLIT_NAME.match(part):
            return found[1].lower()
    return ""
