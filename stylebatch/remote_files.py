"""Files of any fsspec file system, as a folder uses them.

Paths are those of the file system (`bucket/folder/name`). What is not there is a FileNotFoundError, a folder in a file's
place an IsADirectoryError; every other error is the library's own.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from stylebatch.local_files import Facts

_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What fsspec's file systems call the time of the last change."""


@dataclass(frozen=True)
class Store:
    """Any fsspec file system."""

    filesystem: Any

    @property
    def is_local(self) -> bool:
        """Whether the paths are those of this machine."""
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.filesystem, LocalFileSystem)

    def facts(self, path: str) -> Facts:
        """What a name stands for."""
        self._forget(path)
        return facts_of(self.filesystem.info(path))

    def is_folder(self, path: str) -> bool:
        self._forget(path)
        return bool(self.filesystem.isdir(path))

    def ls(self, folder: str, start: str = "") -> Iterator[tuple[str, Facts]]:
        """Paths in a folder whose names begin with `start`, in any order; none where there is no folder."""
        self._forget(f"{folder}/")
        try:
            found = self.filesystem.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        for info in found:
            path = str(info["name"]).rstrip("/")
            # a folder that is a file lists itself, some stores' folders themselves
            if path != folder and path.rpartition("/")[2].startswith(start):
                yield path, facts_of(info)

    def page(self, folder: str) -> list[tuple[str, Facts]] | None:
        """What `ls` tells, where that takes one request; None where it takes more, or the store does not say."""
        return None

    def find(self, folder: str) -> Iterator[tuple[str, Facts]]:
        """Every file in a folder and those beneath, in any order."""
        for path, facts in self.ls(folder):
            if facts.is_file:
                yield path, facts
            else:
                yield from self.find(path)

    def read(self, path: str, most_bytes: int) -> bytes:
        """A file's bytes, of a larger one the first `most_bytes` and one more."""
        if not self.facts(path).is_file:
            raise IsADirectoryError(errno.EISDIR, "not a regular file", path)
        return bytes(self.filesystem.cat_file(path, start=0, end=most_bytes + 1))

    def open(self, path: str) -> IO[bytes]:
        """A file to be read piece by piece."""
        if not self.facts(path).is_file:
            raise IsADirectoryError(errno.EISDIR, "not a regular file", path)
        file: IO[bytes] = self.filesystem.open(path, "rb")
        return file

    def part(self, path: str, offset: int, count: int) -> bytes:
        """So many bytes of a file from `offset` on, fewer where it ends."""
        return bytes(self.filesystem.cat_file(path, start=offset, end=offset + count))

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a file."""
        try:
            self.filesystem.pipe_file(path, data)
        except FileNotFoundError:  # stores with real folders want them made
            self._make_parent(path)
            self.filesystem.pipe_file(path, data)

    def upload(self, path: str, local: Path) -> None:
        """Make or replace a file by one of this machine."""
        self._make_parent(path)
        self.filesystem.put_file(str(local), path)
        require_size(self.facts(path), local.stat().st_size)

    def create(self, path: str, data: bytes) -> bool:
        """Make a file unless the name is taken; whether this call made it."""
        self._make_parent(path)
        try:
            self.filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def swap(self, path: str, is_former: Callable[[], bool], data: bytes) -> bool | None:
        """Replace a file of which `is_former` tells that it is the one meant; whether that was done.

        Of many callers one wins. None where the store knows no such condition.
        """
        return None

    def rename(self, path: str, new: str) -> None:
        """A copy and a removal."""
        self.facts(path)
        self.filesystem.mv(path, new)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.rm_file(path)

    def drop_unfinished(self, folder: str, is_ours: Callable[[str], bool]) -> None:
        """Give up uploads in parts that a killed writer left, of paths that `is_ours`."""

    def _forget(self, path: str) -> None:
        """What the file system remembers of a folder, since others write there."""
        self.filesystem.invalidate_cache(path.rpartition("/")[0])

    def _make_parent(self, path: str) -> None:
        self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)


class Pieces(io.RawIOBase):
    """A file that is read piece by piece; `asking` says what becomes of an error."""

    def __init__(self, file: IO[bytes], asking: Callable[[], AbstractContextManager[None]]) -> None:
        self._file, self._asking = file, asking

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with self._asking():
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def by_name(found: Iterable[tuple[str, Facts]]) -> dict[str, Facts]:
    """What a folder holds, sorted. Object stores may have a file and a folder of one name: it stands for the file."""
    ordered = sorted(found, key=lambda one: (one[0], one[1].is_file))
    return {path.rpartition("/")[2]: facts for path, facts in ordered}


def facts_of(info: dict[str, Any]) -> Facts:
    """What a file system tells of a file, in its own words."""
    version = str(info.get("ETag") or "")
    return Facts(int(info.get("size") or 0), _modified(info), info["type"] == "file", version)


def _modified(info: dict[str, Any]) -> float:
    for key in _TIME_KEYS:
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def require_size(facts: Facts, size: int) -> None:
    """Raise OSError for a file of another size than was sent."""
    if facts.size_bytes != size:
        raise OSError(errno.EIO, f"the store holds {facts.size_bytes} bytes of the {size} sent")
