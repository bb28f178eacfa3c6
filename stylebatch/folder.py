"""A place that holds files: a folder of this machine, or any fsspec URL. What writes or reads outputs knows nothing else.

Names are relative and may have `/` in them; folders come into being with their first file. A file appears whole or not
at all: by a rename on this machine, by one upload of a temporary file of this machine elsewhere (`object_store.py`).
Every method raises StorageError with the next step, of it UnansweredError where a store does not tell what it holds; one
that opens or renames what is not there, FileNotFoundError.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from stylebatch.errors import OddFileError, StorageError, UnansweredError
from stylebatch.faults import passing
from stylebatch.local_files import (
    OUTPUT,
    TEMPORARY,
    Advice,
    Facts,
    atomic_file,
    create_exclusive,
    explained,
    files_in,
    names_in,
    open_regular,
    require_at_most,
    write_bytes,
)
from stylebatch.masking import masked
from stylebatch.object_store import connect
from stylebatch.remote_files import Pieces, Store, by_name

COPY_BYTES, MOST_BYTES = 1 << 20, 1 << 34
_Asking = AbstractContextManager[None]


class Folder(ABC):
    """Use `Folder.at`. `shown` is what people are told, without credentials, and `str` of it; `advice` their next step.

    `local`: its path when it is on this machine, else None.
    """

    advice: Advice

    @property
    @abstractmethod
    def shown(self) -> str: ...

    @property
    def local(self) -> Path | None:
        return None

    @staticmethod
    def at(place: Place, advice: Advice = OUTPUT) -> Folder:
        """The folder at a path or URL; nothing is made or read. Raises StorageError for a protocol that fsspec lacks."""
        if isinstance(place, Folder):
            return place
        text = os.fspath(place)
        if "://" not in text and "::" not in text:
            return LocalFolder(Path(text).expanduser(), advice)
        try:
            store, root = connect(text)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"{masked(text)}: {error}. Accepted: a folder, or a URL of an installed fsspec file system."
            ) from error
        if store.is_local:
            return LocalFolder(Path(root), advice)
        advice = replace(advice, refused=advice.remote or advice.refused)
        return RemoteFolder(store, root, masked(text).rstrip("/"), advice)

    def __str__(self) -> str:
        return self.shown

    def where(self, name: str) -> str:
        """The file, for people."""
        return f"{self.shown.rstrip('/')}/{name}"

    def absolute(self) -> Folder:
        """The same folder for a process that works elsewhere."""
        return self

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether the folder is there; object stores have no empty ones."""

    @abstractmethod
    def sub(self, name: str) -> Folder:
        """A folder in this one."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """All names with this prefix, sorted, also of what is no file; nothing of the folders beneath."""

    @abstractmethod
    def facts(self, name: str) -> Facts | None:
        """What a name stands for, None where there is nothing."""

    @abstractmethod
    def list(self, prefix: str = "") -> dict[str, Facts]:
        """Files with this prefix, sorted by name; nothing of the folders beneath."""

    def find(self, within: str = "") -> Iterator[tuple[str, Facts]]:
        """Every file of the folder and of those beneath, by its name; `within`: `a/b/`, or all."""
        for name in self.names(within):
            facts = self.facts(name)
            if facts is not None and facts.is_file:
                yield name, facts
            elif facts is not None:
                yield from self.find(f"{name}/")

    @abstractmethod
    def read(self, name: str, most_bytes: int = MOST_BYTES) -> bytes:
        """Bytes of a file. A pipe of that name is refused (OddFileError), not waited for."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file to be read piece by piece."""

    @abstractmethod
    def writing(self, name: str, *, is_last: bool = True) -> AbstractContextManager[IO[bytes]]:
        """A file to be written; it gets its name when the block ends well, and leaves nothing otherwise.

        `is_last`: see `atomic_file`.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file."""

    @abstractmethod
    def put(self, name: str, local_file: Path) -> Facts | None:
        """Copy a file of this machine here; what the store says of it."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Make a file unless the name is taken; whether this call made it. Of many callers one wins."""

    def swap(self, name: str, is_former: Callable[[str], bool], data: bytes) -> bool:
        """Put `data` in the place of a file that `is_former`, asked by the name that it then has; whether that was done.

        Of many callers one wins; on a store that is not S3, two within the time of a copy may.
        """
        folder, last = _split(name)
        grave = f"{folder}{TEMPORARY}{last}.{secrets.token_hex(8)}"
        try:
            self.rename(name, grave)
        except FileNotFoundError:
            return False
        if not is_former(grave):
            self.rename(grave, name)
            return False
        self.remove(grave)
        return self.create(name, data)

    def drop_unfinished(self, is_ours: Callable[[str], bool]) -> None:  # noqa: B027
        """Give up what killed writers began to upload in parts, of names that `is_ours`; it has no name here yet."""

    @abstractmethod
    def rename(self, name: str, new: str) -> None:
        """Give a file another name, whatever had that one. Remote it is a copy and a removal."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


Place = str | os.PathLike[str] | Folder
"""What people may give where a folder is meant."""


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of this machine."""

    path: Path
    advice: Advice = OUTPUT

    @property
    def local(self) -> Path:
        return self.path

    @property
    def shown(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        return os.path.isdir(self.path)  # which takes names of any length

    def where(self, name: str) -> str:
        return str(self.path / name)

    def absolute(self) -> LocalFolder:
        return LocalFolder(self.path.absolute(), self.advice)

    def sub(self, name: str) -> LocalFolder:
        return LocalFolder(self.path / name, self.advice)

    def names(self, prefix: str = "") -> list[str]:
        folder, start = _split(prefix)
        with explained(self.where(folder), "listed", self.advice):
            return [folder + name for name in names_in(self.path / folder, start)]

    def list(self, prefix: str = "") -> dict[str, Facts]:
        folder, start = _split(prefix)
        with explained(self.where(folder), "listed", self.advice):
            return {folder + name: facts for name, facts in files_in(self.path / folder, start)}

    def facts(self, name: str) -> Facts | None:
        path = self.path / name
        with explained(str(path), "read", self.advice):
            try:
                # a link that leads nowhere has its name too
                status = path.stat() if path.exists() else path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return Facts(status.st_size, status.st_mtime, stat.S_ISREG(status.st_mode))

    def read(self, name: str, most_bytes: int = MOST_BYTES) -> bytes:
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            require_at_most(self.where(name), size, most_bytes)
            return file.read(size)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        path = self.path / name
        with (
            explained(str(path), "read", self.advice, passing=(FileNotFoundError,)),
            open_regular(path) as file,
        ):
            yield file

    def writing(self, name: str, *, is_last: bool = True) -> AbstractContextManager[IO[bytes]]:
        return atomic_file(self.path / name, is_last=is_last, advice=self.advice)

    def write(self, name: str, data: bytes) -> None:
        write_bytes(self.path / name, data, self.advice)

    def put(self, name: str, local_file: Path) -> Facts | None:
        with local_file.open("rb") as source, self.writing(name) as file:
            shutil.copyfileobj(source, file, COPY_BYTES)
        return self.facts(name)

    def create(self, name: str, data: bytes) -> bool:
        return create_exclusive(self.path / name, data, self.advice)

    def rename(self, name: str, new: str) -> None:
        with explained(self.where(name), "renamed", self.advice, passing=(FileNotFoundError,)):
            os.replace(self.path / name, self.path / new)

    def remove(self, name: str) -> None:
        with explained(self.where(name), "removed", self.advice):
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteFolder(Folder):
    """A folder of a store."""

    store: Store
    root: str
    address: str
    advice: Advice = OUTPUT

    @property
    def shown(self) -> str:
        return self.address

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")

    def _asking(self, name: str, action: str, *passing: type[OSError]) -> _Asking:
        """Stores raise errors of many kinds."""
        return explained(
            self.where(name), action, self.advice,
            kind=Exception, passing=passing, become=UnansweredError,
        )  # fmt: skip

    @property
    def exists(self) -> bool:
        with self._asking("", "read"):
            return self.store.is_folder(self.root)

    def sub(self, name: str) -> RemoteFolder:
        return RemoteFolder(self.store, self._path(name), self.where(name), self.advice)

    def names(self, prefix: str = "") -> list[str]:
        return list(self._listed(prefix))

    def list(self, prefix: str = "") -> dict[str, Facts]:
        return {name: facts for name, facts in self._listed(prefix).items() if facts.is_file}

    def _listed(self, prefix: str) -> dict[str, Facts]:
        folder, start = _split(prefix)
        with self._asking(folder, "listed"):
            found = by_name(self.store.ls(self._path(folder), start))
        return {folder + name: facts for name, facts in found.items()}

    def find(self, within: str = "") -> Iterator[tuple[str, Facts]]:
        with self._asking(within, "listed"):
            for path, facts in self.store.find(self._path(within)):
                yield path[len(self.root) + 1 :], facts

    def facts(self, name: str) -> Facts | None:
        with self._asking(name, "read"), suppress(FileNotFoundError, NotADirectoryError):
            return self.store.facts(self._path(name))
        return None

    def read(self, name: str, most_bytes: int = MOST_BYTES) -> bytes:
        with self._reading(name):
            data = self.store.read(self._path(name), most_bytes)
        if len(data) > most_bytes and (facts := self.facts(name)) is not None:
            require_at_most(self.where(name), facts.size_bytes, most_bytes)
        return data

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with self._reading(name):
            file = self.store.open(self._path(name))
        pieces = Pieces(file, lambda: self._reading(name))
        with file, io.BufferedReader(pieces, COPY_BYTES) as buffered:
            yield buffered

    def part(self, name: str, offset: int, count: int) -> bytes:
        """So many bytes of a file from `offset` on, fewer where it ends, by one request."""
        with self._reading(name):
            return self.store.part(self._path(name), offset, count)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        with self._asking(name, "read", FileNotFoundError):
            try:
                yield
            except IsADirectoryError:
                raise OddFileError.at(self.where(name)) from None

    @contextmanager
    def writing(self, name: str, *, is_last: bool = True) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryDirectory(prefix="stylebatch-") as scratch:
            path = Path(scratch) / PurePosixPath(name).name
            with atomic_file(path, is_last=False, advice=self.advice) as file:
                yield file
            self._upload(name, path)

    def write(self, name: str, data: bytes) -> None:
        passing("before upload")
        with self._asking(name, "written"):
            self.store.write(self._path(name), data)
        passing("after upload")

    def put(self, name: str, local_file: Path) -> Facts | None:
        self._upload(name, local_file)
        return self.facts(name)

    def _upload(self, name: str, local_file: Path) -> None:
        passing("before upload")
        with self._asking(name, "uploaded"):
            self.store.upload(self._path(name), local_file)
        passing("after upload")

    def create(self, name: str, data: bytes) -> bool:
        with self._asking(name, "written"):
            return self.store.create(self._path(name), data)

    def swap(self, name: str, is_former: Callable[[str], bool], data: bytes) -> bool:
        with self._asking(name, "written"):
            done = self.store.swap(self._path(name), lambda: is_former(name), data)
        return super().swap(name, is_former, data) if done is None else done

    def drop_unfinished(self, is_ours: Callable[[str], bool]) -> None:
        with self._asking("", "listed"):
            self.store.drop_unfinished(self.root, lambda path: is_ours(path[len(self.root) + 1 :]))

    def rename(self, name: str, new: str) -> None:
        with self._asking(name, "renamed", FileNotFoundError):
            self.store.rename(self._path(name), self._path(new))

    def remove(self, name: str) -> None:
        with self._asking(name, "removed"):
            self.store.remove(self._path(name))


def _split(prefix: str) -> tuple[str, str]:
    """`metadata/train-` is the folder `metadata/` and what names in it begin with."""
    folder, slash, start = prefix.rpartition("/")
    return folder + slash, start
