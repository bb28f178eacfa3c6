"""One listing of a folder in a store, told as a walk over folders of this machine would tell it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple

from stylebatch.data.places import INPUT
from stylebatch.data.sources.outputs import COMMIT, is_output
from stylebatch.folder import Folder


class StoredListing(NamedTuple):
    """Folders by the beginning of their files' paths, each with names of its files; hidden folders, and outputs of this program."""

    folders: list[tuple[str, list[str]]]
    hidden: list[str]
    outputs: list[str]


def stored_listing(address: str) -> StoredListing:
    """What lies in a folder and below. Raises StorageError for a store that does not answer."""
    folder = Folder.at(address, INPUT)
    paths = [PurePosixPath(name) for name, _ in folder.find()]
    outputs = _outputs(address, paths)
    hidden: dict[str, None] = {}
    kept: list[PurePosixPath] = []
    for path in paths:
        above = [parent for parent in path.parents if parent.name.startswith(".")]
        if above:
            # Parents go upwards: the last is the outermost, where a walk would have stopped.
            hidden[above[-1].as_posix()] = None
        elif outputs.isdisjoint(path.parents):
            kept.append(path)
    return StoredListing(
        by_folder(kept), list(hidden), sorted(output.as_posix() for output in outputs)
    )


def by_folder(paths: Iterable[PurePosixPath]) -> list[tuple[str, list[str]]]:
    """Folders, as the beginning of their files' paths, with names of these, in the order of a walk."""
    return [
        ("" if parent == PurePosixPath() else f"{parent}/", [path.name for path in found])
        for parent, found in groupby(sorted(paths, key=_files_first), key=lambda path: path.parent)
    ]


def _files_first(path: PurePosixPath) -> list[tuple[bool, str]]:
    """Sorts the files of a folder before those of the folders in it, each by name."""
    return [*((True, part) for part in path.parts[:-1]), (False, path.name)]


def _outputs(address: str, paths: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """Outputs of this program beneath the folder, by a commit or by their run.json."""
    # The address itself is looked at before: a commit of that one has two parts.
    found = {path.parent.parent for path in paths if path.match(COMMIT) and len(path.parts) > 2}
    records = (path.parent for path in paths if path.name == "run.json" and len(path.parts) > 1)
    return found | {above for above in records if is_output(f"{address}/{above}")}
