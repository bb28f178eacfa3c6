"""Files of this machine: written whole (temporary name, fsync, rename), created only if absent, read only if regular."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stylebatch.errors import ManifestError, OddFileError, StorageError
from stylebatch.faults import passing

TEMPORARY = ".tmp-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
BUFFER_BYTES = 1 << 20
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Facts:
    """Of what has a name. `modified`: seconds since the epoch, 0 where the store does not tell.

    `is_file`: a regular one, also through a link. `version`: of an object, by its store, "" where none is told.
    """

    size_bytes: int
    modified: float
    is_file: bool = True
    version: str = ""


@dataclass(frozen=True)
class Advice:
    """The next step that people are told: where the disk is `full`, and where the place is `refused` otherwise.

    `remote`: where a store refuses, if that is another.
    """

    full: str
    refused: str
    remote: str = ""


OUTPUT = Advice(
    full="Free space (or choose another output directory) and run the same command again; committed shards are kept.",
    refused="Make the directory writable, or choose another with --output, and run the same command again.",
    remote="Check the address, the credentials of this process and that the store answers, or choose another place with "
    "--output, and run the same command again; committed shards are kept.",
)


@contextmanager
def atomic_file(
    path: Path, *, is_last: bool = True, advice: Advice = OUTPUT
) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path` when the block ends well, and never half written.

    The temporary file lies in the same folder and is removed on any exception. Without `is_last` the
    caller syncs the file, and a later file in the folder brings the new name to disk with its own.
    Raises StorageError, naming the path, when the disk is full or cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        passing("before open")
        with temporary.open("wb", buffering=BUFFER_BYTES) as file:
            passing("after open")
            yield file
            file.flush()
            passing("before fsync")
            if is_last:
                os.fsync(file.fileno())
            passing("after fsync")
        passing("before rename")
        os.replace(temporary, path)
        if is_last:
            _sync_folder(path.parent)
        passing("after rename")
    except OSError as error:
        room = _room(temporary)
        remove(temporary)
        raise storage_error(path, error, advice, room=room) from error
    except BaseException:
        remove(temporary)
        raise


def start_writing(file: IO[bytes], start: int, stop: int) -> None:
    """Ask the system to bring bytes `start` to `stop` of an open file to disk while the program goes on.

    It saves waiting in a later fsync and promises nothing; only Linux can.
    """
    file.flush()
    if (ask := getattr(_LIBC, "sync_file_range", None)) is not None:
        ask(
            ctypes.c_int(file.fileno()),
            ctypes.c_int64(start),
            ctypes.c_int64(stop - start),
            ctypes.c_uint(2),  # SYNC_FILE_RANGE_WRITE
        )


def write_bytes(path: Path, data: bytes, advice: Advice = OUTPUT) -> None:
    """Atomically replace the file at `path`."""
    with atomic_file(path, advice=advice) as file:
        file.write(data)


def create_exclusive(path: Path, data: bytes, advice: Advice = OUTPUT) -> bool:
    """Create `path` with `data` unless it exists; tell whether this call made it.

    By hard link, so that it is whole when it appears; in place on file systems that have none (FAT, some network shares).
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error, advice) from error
    try:
        temporary.write_bytes(data)
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with path.open("xb") as file:
                file.write(data)
    except FileExistsError:
        return False
    except OSError as error:
        raise storage_error(path, error, advice) from error
    finally:
        remove(temporary)
    return True


def open_regular(path: Path) -> IO[bytes]:
    """The file, to be read. Raises OSError, of it OddFileError for a folder, pipe, device or looping link."""
    try:
        # a pipe without a writer would block a plain `open` for ever
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except NotADirectoryError as error:  # nothing can be there
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise OddFileError.at(str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OddFileError.at(str(path))
    return os.fdopen(handle, "rb")


def names_in(folder: Path, start: str) -> list[str]:
    """Names in a folder that begin so, sorted; none where there is no folder."""
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(start))
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_in(folder: Path, start: str) -> list[tuple[str, Facts]]:
    """As `names_in`, of files, with their facts: in one pass, since an output may have 100,000 shards."""
    found: list[tuple[str, Facts]] = []
    missing = FileNotFoundError, NotADirectoryError
    with contextlib.suppress(*missing), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(start):
                continue
            try:
                status = entry.stat()
            except OSError:
                # a link that leads nowhere or to itself, or removed since it was listed
                if entry.is_symlink() or not os.path.lexists(entry):
                    continue
                raise
            if stat.S_ISREG(status.st_mode):
                found.append((entry.name, Facts(status.st_size, status.st_mtime)))
    return sorted(found)


def require_at_most(where: str, size: int, most_bytes: int) -> None:
    """Raise OddFileError for a file that is larger than any of its name."""
    if size > most_bytes:
        raise OddFileError.at(where, f"{size} bytes; accepted: at most {most_bytes}")


WITHOUT_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
"""Errors of botocore, by name since it need not be installed: nothing was asked of a store, and no try will be."""


@contextmanager
def explained(
    where: str,
    action: str,
    advice: Advice,
    *,
    kind: type[Exception] = OSError,
    passing: tuple[type[OSError], ...] = (),
    become: type[StorageError] = StorageError,
) -> Iterator[None]:
    """Turn errors of a `kind` about `where` into StorageError (`become`), except those of `passing`.

    Raises ManifestError where the process has no credentials of a store.
    """
    unchanged: tuple[type[OSError], ...] = (StorageError, *passing)
    try:
        yield
    except unchanged:
        raise
    except kind as error:
        if type(error).__name__ in WITHOUT_CREDENTIALS:
            raise ManifestError(
                f"{where}: cannot be {action}: {error}. Next: give this process the store's credentials (environment, profile or "
                "role), or choose another place"
            ) from error
        raise storage_error(where, error, advice, action=action, become=become) from error


def storage_error(
    place: Path | str,
    error: Exception,
    advice: Advice = OUTPUT,
    *,
    action: str = "written",
    room: str = "",
    become: type[StorageError] = StorageError,
) -> StorageError:
    """Explain what happened to `place` with the next step; `room`: what was written and what is free."""
    if isinstance(error, StorageError):
        return error
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    step = advice.refused
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason, step = reason + room, advice.full
    elif isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        step = f"Move what stands in its place away. Else: {advice.refused[0].lower()}{advice.refused[1:]}"
    explained = become(f"{place}: cannot be {action}: {reason}. {step}")
    explained.strerror = reason
    return explained


def _room(temporary: Path) -> str:
    """` (N bytes were written and more are needed; M bytes are free)`, as far as it can be told."""
    try:
        written = temporary.stat().st_size
        free = shutil.disk_usage(temporary.parent).free
    except OSError:
        return ""
    return f" (more than the {written:,} bytes written so far are needed, {free:,} bytes are free)"


def remove(path: Path) -> None:
    """Remove a file, where there is one and that is allowed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def make_durable(paths: Iterable[Path], root: Path) -> None:
    """Bring files below `root` that were written without `is_last` to disk, and their names. Raises StorageError."""
    folders: dict[Path, None] = {}
    for path in paths:
        with explained(str(path), "written", OUTPUT):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        above = [folder for folder in path.parents if folder.is_relative_to(root)]
        folders |= dict.fromkeys(above)
    for folder in folders:
        _sync_folder(folder)


def remove_empty(folder: Path, above: Path) -> None:
    """Remove a folder and those it lies in, below `above`, as far as they are empty."""
    with contextlib.suppress(OSError):
        while folder != above:
            folder.rmdir()
            folder = folder.parent


def _sync_folder(folder: Path) -> None:
    """Make a renaming durable, where the file system can do that for a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)
