"""The folder of a style cache: a lock for commits, marks of readers, times of use.

On a remote folder those functions do nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from stylebatch.errors import OddFileError
from stylebatch.features.cache_index import ADVICE, damaged
from stylebatch.folder import Folder, Place
from stylebatch.local_files import explained, open_regular

LOCK = ".lock"


def folder_at(root: Place) -> Folder:
    """The folder at a path or URL; a local one by its absolute path."""
    return Folder.at(root, ADVICE).absolute()


@contextmanager
def regular(where: str) -> Iterator[None]:
    """Inside, something that has a style's name and is no file raises DamagedStyleError; FileNotFoundError passes."""
    try:
        with explained(where, "read", ADVICE, passing=(FileNotFoundError,)):
            yield
    except OddFileError as error:
        raise damaged(where, "is no file") from error


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Exclude other processes of this host that commit, move or remove files here.

    It guards the two renames of a commit. Without it (a remote store, a file system without locks) a reader may find the
    tar of one build with the index of another; checksums detect that.
    """
    if folder.local is None:
        yield
        return
    with explained(folder.shown, "written", folder.advice):
        folder.local.mkdir(parents=True, exist_ok=True)
        file = _open_lock(folder.local / LOCK)
    with file:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def in_use(folder: Folder, name: str) -> bool:
    """Whether a reader in any process of this host has the file mapped (see `hold`)."""
    if folder.local is None:
        return False
    try:
        with open_regular(folder.local / name) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def hold(file: IO[bytes]) -> None:
    """Mark an open file as in use until its last duplicate, such as a mapping, is closed."""
    # flock, not lockf: a lock of lockf ends when any descriptor of the file is closed, a mapping's survives
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)


def touch(folder: Folder, name: str) -> None:
    """Record that a file was used now; in a read-only folder nothing changes."""
    if folder.local is not None:
        with suppress(OSError):
            os.utime(folder.local / name)


def _open_lock(path: Path) -> IO[bytes]:
    # O_NONBLOCK: a named pipe of that name would block here for ever
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    return os.fdopen(handle, "r+b", buffering=0)
