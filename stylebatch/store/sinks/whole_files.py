"""Files of an output that appear whole, hashed while they are written, or not at all; and how they are checked later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder

CHUNK = 1 << 20


class WholeFile:
    """The file `name` of an output while it is written; it is created when it is opened, and visible once it is closed."""

    def __init__(self, output: Folder, name: str) -> None:
        self.output, self.name = output, name
        self._files = ExitStack()
        self._stream: Hashing | None = None

    @property
    def is_open(self) -> bool:
        return self._stream is not None

    def open(self) -> Hashing:
        """What is written to."""
        self._stream = Hashing(self._files.enter_context(self.output.writing(self.name)))
        return self._stream

    def close(self) -> tuple[str, int]:
        """Make it durable; its sha256 and bytes."""
        assert self._stream is not None, "only what was opened is closed"
        written, self._stream = self._stream, None
        self._files.close()
        return written.sha256.hexdigest(), written.size_bytes

    def remove(self) -> None:
        """Remove the file that an earlier attempt left."""
        self.output.remove(self.name)

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Drop it, unless it was closed; to be called as `__exit__` is."""
        # the file must be dropped, though nothing was raised: the context was left without `close`
        if self._stream is not None and kind is None:
            kind, error = _Uncommitted, _Uncommitted()
        if self._stream is not None:
            self._stream.abandon()
        try:
            return self._files.__exit__(kind, error, trace)
        except _Uncommitted:
            return None


class _Uncommitted(Exception):
    """Unwinds the files of a shard that was left without `commit`."""


class Hashing:
    """File-like that hashes and counts what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.abandoned = False
        self.closed = False

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        return len(data) if self.abandoned else self.file.write(data)

    def abandon(self) -> None:
        """Pass nothing on from now: a file that was left ends itself when it is collected, after the stream was closed."""
        self.abandoned = True


class Hashed:
    """A file that hashes what is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        return data

    def whole(self) -> str:
        """sha256 of the file, once the rest of it was read too."""
        while self.read(CHUNK):
            pass
        return self.sha256.hexdigest()


def file_faults(output: Folder, file: str, sha256: str) -> Iterator[tuple[str, str]]:
    """The file with its fault where it is not as it was committed."""
    yield from _faults(output, file, sha256, "its bytes changed since the commit (sha256)")


def unlike(output: Folder, sums: Mapping[str, Any], what: str) -> Iterator[tuple[str, str]]:
    """File and fault of each whose sha256 is not the one in `sums`: `what`, or why it cannot be read."""
    for file, expected in sums.items():
        yield from _faults(output, file, expected.hexdigest(), what)


def _faults(output: Folder, file: str, sha256: str, what: str) -> Iterator[tuple[str, str]]:
    try:
        with output.open(file) as opened:
            found = Hashed(opened).whole()
    # a store that does not answer says nothing of the file
    except UnansweredError:
        raise
    except OSError as error:
        yield file, "missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        return
    if found != sha256:
        yield file, what
