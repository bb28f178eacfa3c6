"""The files of a style cache in one folder, local or any fsspec URL: list, move, copy, lock."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stylebatch.store.cache_index import CacheError
from stylebatch.store.commit import atomic_file, write_bytes

LOCK = ".lock"
COPY_BYTES = 1 << 20
TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What fsspec's file systems call the time of the last change."""


@dataclass(frozen=True)
class FileFacts:
    """Size and time of the last change (seconds since the epoch; 0 where the store does not tell)."""

    size_bytes: int
    modified: float


@dataclass(frozen=True)
class CacheFiles:
    """A folder of an fsspec file system; `folder` is its path when it is local, else None.

    All methods raise CacheError when the store fails.
    """

    filesystem: Any
    root: str
    folder: Path | None

    @classmethod
    def at(cls, root: str | Path) -> CacheFiles:
        """Raises CacheError for a URL whose protocol fsspec does not know."""
        try:
            filesystem, path = fsspec.core.url_to_fs(str(root))
        except (ImportError, ValueError) as error:
            raise CacheError(
                f"style cache {root}: {error}. Accepted: a folder, or a URL of an installed fsspec file system."
            ) from error
        return cls(
            filesystem, path, Path(path) if isinstance(filesystem, LocalFileSystem) else None
        )

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def listing(self) -> dict[str, FileFacts]:
        """Files by name, sorted; none when the folder does not exist."""
        with explained(self.root, "listed"):
            self.filesystem.invalidate_cache(self.root)
            try:
                infos = self.filesystem.ls(self.root, detail=True)
            except FileNotFoundError:
                infos = []
        found = {
            str(info["name"]).rsplit("/", 1)[-1]: FileFacts(int(info["size"]), _modified(info))
            for info in infos
            if info["type"] == "file"
        }
        return dict(sorted(found.items()))

    def is_folder(self) -> bool:
        """Whether the folder is there; object stores have no empty ones."""
        with explained(self.root, "read"):
            self.filesystem.invalidate_cache(self.root)
            return bool(self.filesystem.isdir(self.root))

    def exists(self, name: str) -> bool:
        with explained(self.path(name), "read"):
            self.filesystem.invalidate_cache(self.root)
            return bool(self.filesystem.exists(self.path(name)))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Raises FileNotFoundError when there is no such file."""
        with (
            explained(self.path(name), "read", passing=(FileNotFoundError,)),
            self._open(name) as file,
        ):
            yield file

    def _open(self, name: str) -> Any:
        return self.filesystem.open(self.path(name), "rb")

    def rename(self, name: str, new: str) -> None:
        with explained(self.path(name), "renamed"):
            self.filesystem.mv(self.path(name), self.path(new))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with explained(self.path(name), "removed"), suppress(FileNotFoundError):
            self.filesystem.rm_file(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        """Replace a small file; atomically where local, and where the store uploads atomically."""
        with explained(self.path(name), "written"):
            if self.folder is not None:
                write_bytes(self.folder / name, data)
            else:
                self.filesystem.pipe_file(self.path(name), data)

    def upload(self, local: Path) -> None:
        """Copy a local file here under its own name."""
        with explained(self.path(local.name), "uploaded"):
            self.filesystem.makedirs(self.root, exist_ok=True)
            self.filesystem.put_file(str(local), self.path(local.name))

    def download(self, name: str, local: Path) -> None:
        """Copy a file to `local`, which appears whole; raises FileNotFoundError when there is none."""
        with (
            self.open(name) as source,
            explained(str(local), "written"),
            atomic_file(local) as file,
        ):
            shutil.copyfileobj(source, file, COPY_BYTES)

    def touch(self, name: str) -> None:
        """Note a local file as used now; a folder that cannot be written keeps its times."""
        if self.folder is not None:
            with suppress(OSError):
                os.utime(self.folder / name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes of this host that commit, move or remove files here.

        It guards the pair of renames of a commit. Without it (a remote store, a file system without
        locks) a reader may meet the tar of one build with the index of another; their checksums tell.
        """
        if self.folder is None:
            yield
            return
        with explained(str(self.folder), "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / LOCK).open("wb")
        with file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def in_use(self, name: str) -> bool:
        """Whether a reader of any process of this host has the local file mapped (see `hold`)."""
        if self.folder is None:
            return False
        try:
            with (self.folder / name).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def hold(file: IO[bytes]) -> None:
    """Mark an open file as in use until its last duplicate, such as a mapping, is closed."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def explained(
    where: str, action: str, *, passing: tuple[type[OSError], ...] = ()
) -> Iterator[None]:
    """Turn an OSError about `where` into a CacheError with the next step, except those of `passing`."""
    unchanged: tuple[type[OSError], ...] = (CacheError, *passing)
    try:
        yield
    except unchanged:
        raise
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise CacheError(
            f"{where}: cannot be {action}: {cause.strerror or cause}. Next: free space "
            "(`stylebatch cache gc CACHE --max-bytes N`), make the folder accessible, or choose another cache folder."
        ) from error


def _modified(info: dict[str, Any]) -> float:
    for key in TIME_KEYS:
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0
