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
_ABOUT = re.compile(r"readme|licen[cs]e|classes\.txt|notes\.", re.I)
"""Files about a data set, in whatever folder of it."""
ANNOTATION_SUFFIXES = (".xml", ".txt", ".json")
"""Of Pascal VOC, YOLO, COCO; in a folder with several the first counts."""
SUBFOLDERS = 64
FILES_EACH = 256
LEVELS = 6


def holds(folder: str, suffix: str) -> bool:
    """Whether files of `suffix` stand in the folder, or one level below, and no pictures."""
    found = False
    for name in _glance(folder):
        kind = os.path.splitext(name)[1].lower()
        if kind in IMAGE_SUFFIXES:
            return False
        found = found or kind == suffix
    return found


def kind_within(folder: str, suffixes: Sequence[str]) -> str:
    """The first of `suffixes` that files in the folder have, or at the next level below, and so on; "" for none."""
    level = [folder]
    for _ in range(LEVELS):
        names, below = list[str](), list[str]()
        for path in level:
            found, folders = _listed(path)
            names += found
            below += folders
        kinds = {os.path.splitext(name)[1].lower() for name in names if not _ABOUT.match(name)}
        for suffix in suffixes:
            if suffix in kinds:
                return suffix
        # scandir has no order: sorted, the answer is the same on every machine.
        level = sorted(below)[:SUBFOLDERS]
    return ""


def _listed(folder: str) -> tuple[list[str], list[str]]:
    """Names of files, and paths of folders, in a folder; of a store some files of it and below."""
    if is_address(folder):
        return [name.rpartition("/")[2] for name in first_names(folder)], []
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return [], []
    return [e.name for e in found if not e.is_dir()], [e.path for e in found if e.is_dir()]


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


def one_of(splits: Sequence[str]) -> str:
    """What is wrong with a source of several splits of which none is named, for people."""
    return (
        f"found the splits {', '.join(splits)}; accepted: one of them. Next: add `split: {(splits or ['train'])[0]}`, or read them as one "
        "with `split: all`, or make all of them with `split: source` beside `contents`"
    )


def no_split(wanted: str, accepted: str) -> str:
    """What is wrong with the name of a split that a source does not have, for people."""
    # `split: source` stands beside `contents`, where it means all splits.
    hint = ". Next: for all of them write `split: source` beside `contents`, not within"
    return f"found {wanted!r}; accepted: {accepted}{hint if wanted == 'source' else ''}"
