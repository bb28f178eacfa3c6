"""Files of this machine and of stores: what folders and tables refer to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from stylebatch.data.places import INPUT, part_of
from stylebatch.data.sources.source import Item, Ref, Source
from stylebatch.data.sources.web import fetch, is_web, web_fault
from stylebatch.errors import OddFileError, SampleError
from stylebatch.folder import Folder
from stylebatch.paths import is_address, require_place

MAX_FILE_BYTES = 1 << 30


class LocalFiles(Source):
    """Reads files by their path; lists none."""

    accepted = "a file"

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return os.path.isfile(uri)

    def items(self) -> Iterator[Item]:
        return iter(())

    def ref(self, path: str) -> Ref:
        """A file, by an address, or a path that holds in any working directory."""
        if not is_address(path) and not os.path.isabs(path):
            path = os.path.join(os.getcwd(), path)
        return Ref(path, source=self.field)

    def within(self, folder: str, name: str) -> Ref:
        """A file by its path from a folder that `ref` takes. Of a million such, folder and name are in memory once."""
        return Ref(folder, name, self.field)

    def read(self, ref: Ref) -> bytes:
        """The file's bytes. Raises SampleError for what is no regular file: reading a pipe or device may never end.

        Raises StorageError for a store that does not answer: it is no fault of the picture.
        """
        return self.head(ref, MAX_FILE_BYTES)

    def head(self, ref: Ref, count: int) -> bytes:
        place = ref.place
        if self.options.web_hosts is not None and is_web(place):
            return fetch(place, self.options.web_hosts)
        if is_address(place):
            return _stored(place, count)
        _require_regular(os.stat(place))
        # Non-blocking, for a pipe that takes the file's place meanwhile: opening it would wait for a writer.
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            # Another file may have taken its place since: what was opened is asked again.
            status = os.fstat(descriptor)
            _require_regular(status)
            require_few_bytes(status.st_size)
            # The file may be growing: no more is read than was allowed.
            return file.read(min(count, status.st_size))

    def size(self, ref: Ref) -> int | None:
        if self.options.web_hosts is not None and is_web(ref.uri):
            return 0 if web_fault(ref.uri, self.options.web_hosts) is None else None
        if is_address(ref.uri):
            return 0 if _fault(ref.place) is None else None
        try:
            return os.stat(ref.place).st_size
        # A path with a NUL raises ValueError.
        except (OSError, ValueError):
            return None


def _stored(address: str, count: int) -> bytes:
    fault = _fault(address)
    if fault is not None:
        raise SampleError("missing", fault)
    if count < MAX_FILE_BYTES:
        return part_of(address, 0, count)
    folder, _, name = address.rpartition("/")
    try:
        return Folder.at(folder, INPUT).read(name, MAX_FILE_BYTES)
    except OddFileError as error:
        raise SampleError("decode", error.strerror or str(error)) from None


def _fault(address: str) -> str | None:
    """Why an address is not asked."""
    try:
        require_place(address)
    except ValueError as error:
        return str(error)
    return None


def require_few_bytes(count: int) -> None:
    """Raise SampleError for more than a picture may have."""
    if count > MAX_FILE_BYTES:
        raise SampleError("too_large", f"{count} bytes; accepted: at most {MAX_FILE_BYTES}")


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SampleError("decode", "not a regular file; accepted: a file with a picture")
