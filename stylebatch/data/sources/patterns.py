"""Patterns of file names: braces (`{0000..0099}`, `{cat,dog}`) and the wildcards `*`, `?`, `[...]`, `**`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stylebatch.data.places import name_in, names_below
from stylebatch.errors import ManifestError
from stylebatch.paths import is_address

MAX_FILES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")


@dataclass(frozen=True)
class Found:
    """Files, and the folder that their names are relative to: the last one before the pattern begins."""

    root: str
    files: tuple[str, ...]

    def name(self, file: str) -> str:
        """`a/0001.tar`, from the root."""
        return name_in(self.root, file)


def is_pattern(uri: str) -> bool:
    """Whether `uri` names files by a pattern. A file or folder of exactly that name goes first."""
    if is_address(uri):
        # A look at the store would cost a request each time.
        return bool(_BRACES.search(uri)) or _has_wildcard(uri)
    return bool(_BRACES.search(uri) or glob.has_magic(uri)) and not os.path.lexists(uri)


def _has_wildcard(text: str, *, is_stored: bool = True) -> bool:
    """Brackets and question marks are usual in the names of objects, and none there."""
    return "*" in text if is_stored else glob.has_magic(text)


def root_of(uri: str) -> str:
    """The folder before the first part that is a pattern; `uri` itself where none is."""
    if not is_pattern(uri):
        return uri
    parts, is_stored = uri.split(os.sep), is_address(uri)
    fixed = next(
        i for i, part in enumerate(parts) if "{" in part or _has_wildcard(part, is_stored=is_stored)
    )
    return os.sep.join(parts[:fixed]) or (os.sep if uri.startswith(os.sep) else os.curdir)


def find(uri: str, where: str) -> Found:
    """The files of a pattern: those of braces in their order, those of wildcards sorted.

    Raises ManifestError, naming the field `where`, for a file that braces name and that is missing, and where none matches.
    """
    files: dict[str, None] = {}
    stored = _stored(root_of(uri)) if is_address(uri) else None
    for name in expanded(uri, where):
        if not _has_wildcard(name, is_stored=stored is not None):
            # glob would leave a missing shard out and say nothing.
            if not (os.path.isfile(name) if stored is None else name in stored):
                raise ManifestError(
                    f"{where}: {uri}: found no file {name}, which the braces name; accepted: braces whose every file is there"
                )
            files[name] = None
            continue
        files |= dict.fromkeys(_matching(name) if stored is None else _alike(name, stored))
    if not files:
        raise ManifestError(f"{where}: {uri}: found no file of that pattern; accepted: one or more")
    return Found(root_of(uri), tuple(files))


def _matching(name: str) -> list[str]:
    """Files of this machine."""
    return [found for found in sorted(glob.iglob(name, recursive=True)) if os.path.isfile(found)]


def _stored(root: str) -> dict[str, None]:
    """Addresses of all files below a folder of a store, sorted."""
    return {f"{root}/{name}": None for name in names_below(root)}


def _alike(name: str, stored: Iterable[str]) -> list[str]:
    """Those that the wildcards of an address mean; `*` stops at a `/`, as on a disk."""
    parts = re.split(r"(\*\*/|\*)", name)
    meant = {"**/": "(?:.*/)?", "*": "[^/]*"}
    pattern = re.compile("".join(meant.get(part, re.escape(part)) for part in parts))
    return [found for found in stored if pattern.fullmatch(found)]


def expanded(uri: str, where: str) -> Iterator[str]:
    """Every name that the braces stand for. Raises ManifestError for a range that runs backwards or is too long."""
    found = _BRACES.search(uri)
    if found is None:
        yield uri
        return
    numbers = _RANGE.fullmatch(found[1])
    if numbers is None:
        if "," not in found[1]:
            raise ManifestError(
                f"{where}: {uri}: found {found[0]}; accepted: a range such as {{0000..0099}}, or names such as {{cat,dog}}"
            )
        choices: Iterator[str] = iter(found[1].split(","))
    else:
        choices = _counted(numbers[1], numbers[2], uri, where)
    for choice in choices:
        yield from expanded(uri[: found.start()] + choice + uri[found.end() :], where)


def _counted(first: str, last: str, uri: str, where: str) -> Iterator[str]:
    """Numbers as wide as the first one is written."""
    start, stop = int(first), int(last)
    if not start <= stop < start + MAX_FILES:
        raise ManifestError(
            f"{where}: {uri}: found {{{first}..{last}}}; accepted: an ascending range of at most {MAX_FILES:,} numbers"
        )
    return (str(number).zfill(len(first)) for number in range(start, stop + 1))
