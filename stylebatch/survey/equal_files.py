"""Images of a folder that are one file twice: found by size, then by bytes of those of equal size alone."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import xxhash

from stylebatch.data.sources.source import Item
from stylebatch.folder import Folder
from stylebatch.words import size

OF_FILES = ("folder", "table", "coco", "voc", "yolo")
"""Kinds whose images are files of their own."""
BEGINNING = 1 << 12
MOST_BYTES = 1 << 29
"""Of files whose beginnings are equal, about a second of reading."""


def equal_files(place: str, kind: str, items: Sequence[Item]) -> str:
    """How many images are one that stands there already, with an example, of other classes where there is one; "" for none.

    Raises StorageError for a store that does not answer.
    """
    is_whole = True
    if kind == "store":
        groups = _by_version(place, items)
    elif kind in OF_FILES:
        groups, is_whole = _by_bytes(items)
    else:
        return ""
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return ""
    count = sum(len(group) - 1 for group in groups)
    mixed = [pair for group in groups if (pair := _of_two_classes(group))]
    one, other = mixed[0] if mixed else groups[0][:2]
    limits = "" if is_whole else f" (of {size(MOST_BYTES)} that were read)"
    classes = ", of different classes" if mixed else ""
    return f"equal files: {count:,}{limits}, such as {other.id}, which is {one.id}{classes}"


def _of_two_classes(group: Sequence[Item]) -> tuple[Item, Item] | None:
    first = group[0]
    return next(((first, other) for other in group if other.label != first.label), None)


def _by_bytes(items: Iterable[Item]) -> tuple[list[list[Item]], bool]:
    """Items of equal bytes, and whether all that may be equal were read. Files that cannot be read are for others to tell."""
    read = 0

    def whole(item: Item) -> Hashable:
        nonlocal read
        read += os.path.getsize(item.ref.place)
        if read > MOST_BYTES:
            raise OSError
        return _digest(item, -1)

    groups = _split(items, _size)
    groups = [
        part for group in groups for part in _split(group, lambda one: _digest(one, BEGINNING))
    ]
    groups = [part for group in groups for part in _split(group, whole)]
    return groups, read <= MOST_BYTES


def _size(item: Item) -> Hashable:
    found = os.stat(item.ref.place)
    if not stat.S_ISREG(found.st_mode):
        raise OSError
    return found.st_size


def _digest(item: Item, count: int) -> str:
    with open(item.ref.place, "rb") as file:
        return xxhash.xxh3_128_hexdigest(file.read(count))


def _split(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Groups of two and more of one key; without those that it raises OSError or ValueError for."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        try:
            groups[key(item)].append(item)
        except (OSError, ValueError):
            continue
    return [group for group in groups.values() if len(group) > 1]


def _by_version(address: str, items: Sequence[Item]) -> list[list[Item]]:
    """Items of equal size and version (an ETag, which stands for the bytes), by another listing; nothing is read."""
    known = {item.id: item for item in items}
    groups: dict[tuple[int, str], list[Item]] = defaultdict(list)
    for name, facts in Folder.at(address).find():
        if facts.version and name in known:
            groups[facts.size_bytes, facts.version].append(known[name])
    return list(groups.values())
