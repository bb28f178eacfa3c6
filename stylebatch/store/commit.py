"""Atomic files: written under a temporary name, fsynced, renamed; or created only if absent."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stylebatch.errors import StorageError
from stylebatch.store.faults import passing

TEMPORARY = ".tmp-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
BUFFER_BYTES = 1 << 20
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextmanager
def atomic_file(path: Path, *, is_last: bool = True) -> Iterator[IO[bytes]]:
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
        _remove(temporary)
        raise storage_error(path, error, room) from error
    except BaseException:
        _remove(temporary)
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


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically replace the file at `path`."""
    with atomic_file(path) as file:
        file.write(data)


def create_exclusive(path: Path, data: bytes) -> bool:
    """Create `path` with `data` unless it exists; tell whether this call made it.

    By hard link, so that it is whole when it appears; in place on file systems that have none (FAT, some network shares).
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
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
        raise storage_error(path, error) from error
    finally:
        _remove(temporary)
    return True


def remove_temporaries(folder: Path) -> int:
    """Delete what crashed writers left in `folder`; the number of files removed."""
    left = list(folder.glob(f"{TEMPORARY}*")) if folder.is_dir() else []
    for path in left:
        _remove(path)
    return len(left)


def storage_error(path: Path, error: OSError, room: str = "") -> StorageError:
    """Explain an OSError about `path` with the next step; `room`: what was written and what is free."""
    if isinstance(error, StorageError):
        return error
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += room
        step = "Free space (or choose another output directory) and run the same command again; committed shards are kept."
    else:
        step = "Make the directory writable, or choose another with --output, and run the same command again."
    return StorageError(f"{path}: cannot be written: {reason}. {step}")


def _room(temporary: Path) -> str:
    """` (N bytes were written and more are needed; M bytes are free)`, as far as it can be told."""
    try:
        written = temporary.stat().st_size
        free = shutil.disk_usage(temporary.parent).free
    except OSError:
        return ""
    return f" (more than the {written:,} bytes written so far are needed, {free:,} bytes are free)"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


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
