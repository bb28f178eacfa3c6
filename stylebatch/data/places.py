"""Files that inputs lie in, by a path of this machine or an address in a store (`s3://bucket/x.tar`): whole, or any part.

A part of a stored file is one ranged request, and nothing stays open: a source may be read in any process and thread.
"""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import IO, Any

from stylebatch.data.one_look import asked, is_looking
from stylebatch.errors import OddFileError, UnansweredError
from stylebatch.folder import Folder, RemoteFolder
from stylebatch.local_files import Advice, Facts, explained
from stylebatch.paths import is_address
from stylebatch.remote_files import by_name

INPUT = Advice(
    *[
        "Next: check the address, the credentials of this process and that the store answers, and run the same command again; "
        "committed shards are kept."
    ]
    * 2
)
AT_ONCE = 1 << 22
"""Bytes that are asked of a store at once where a file is read from its beginning to its end."""
AHEAD = 1 << 18
"""Bytes that a request for a part of a file brings at least: readers of Parquet ask for a few at a time, most of them at its end."""
READERS = 32
"""Threads that read small files of a store, whose answers take longer than their bytes."""
GLANCE = 1000
"""Files of a store's folder that tell what it holds: one page of a listing."""
Stamp = tuple[int, int, int, str]
"""Bytes, times of the last changes of the data and of the file, version: of a file that was changed, another."""


def facts_at(address: str) -> Facts | None:
    """Of a stored file; None for a folder and where nothing is. Raises StorageError for a store that does not answer."""
    facts = asked(("facts", address), lambda: _facts_at(address))
    return facts if facts is not None and facts.is_file else None


def _facts_at(address: str) -> Facts | None:
    folder, name = _split(address)
    if not name:
        return None
    # A page of the folder's listing tells of many files that are looked for in it.
    page = _page(folder) if is_looking() else None
    return folder.facts(name) if page is None else page.get(name)


def _page(folder: Folder) -> dict[str, Facts] | None:
    """What is in a folder of a store, sorted; None where that is more than one request tells."""
    if not isinstance(folder, RemoteFolder):
        return None
    store, root = folder.store, folder.root
    with explained(folder.shown, "listed", folder.advice, kind=Exception, become=UnansweredError):
        found = asked(("page", folder.shown), lambda: store.page(root))
    return None if found is None else by_name(found)


def is_file(place: str) -> bool:
    """Whether a file is there."""
    return facts_at(place) is not None if is_address(place) else os.path.isfile(place)


def is_folder(place: str) -> bool:
    """Whether a folder is there, of a store one that holds anything."""
    if not is_address(place):
        return os.path.isdir(place)
    return asked(("folder", place), lambda: Folder.at(place, INPUT).exists)


def exists(place: str) -> bool:
    """Whether anything is there."""
    if not is_address(place):
        return os.path.exists(place)
    return is_file(place) or is_folder(place)


def stamp_of(place: str) -> Stamp:
    """Raises FileNotFoundError, or StorageError."""
    if not is_address(place):
        found = os.stat(place)
        # The time of the file changes with any writing to it, which the other one can be set to hide.
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns, ""
    facts = facts_at(place)
    if facts is None:
        raise FileNotFoundError(2, os.strerror(2), place)
    # The version tells all; listings tell the time more exactly than a look at one file does.
    return facts.size_bytes, 0 if facts.version else int(facts.modified * 1e9), 0, facts.version


def part_of(place: str, offset: int, count: int) -> bytes:
    """So many bytes from `offset` on, fewer where the file ends."""
    if not count:  # a range of no bytes would be one of all
        return b""
    folder, name = _split(place) if is_address(place) else (None, place)
    if isinstance(folder, RemoteFolder):
        return folder.part(name, offset, count)
    path = place if folder is None else os.path.join(str(folder.local), name)
    # Nothing is held open, so that a source can be pickled.
    with open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), count, offset)


def read_each(places: Sequence[str], most: int) -> Iterator[bytes | None]:
    """The first `most` bytes of each file, None where there is none. Those of stores are asked for at once. Raises OSError."""
    if not any(map(is_address, places)):
        yield from (_beginning(place, most) for place in places)
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="inputs") as pool:
        yield from pool.map(lambda place: _beginning(place, most), places)


def _beginning(place: str, most: int) -> bytes | None:
    try:
        return part_of(place, 0, most)
    except FileNotFoundError:
        return None


def entries_of(folder: str) -> dict[str, bool]:
    """Names in a folder, sorted, and whether each is a folder. Raises OSError."""
    if is_address(folder):
        there = Folder.at(folder, INPUT)
        page = _page(there) if is_looking() else None
        if page is not None:
            return {name: not facts.is_file for name, facts in page.items()}
        files = there.list()
        return {name: name not in files for name in there.names()}
    with os.scandir(folder) as entries:
        return {entry.name: entry.is_dir() for entry in sorted(entries, key=lambda e: e.name)}


def near(place: str) -> str:
    """What is there with almost that name, or with that name and another ending; "" where nothing is, and for addresses."""
    if is_address(place):
        return ""
    folder, name = os.path.split(place.rstrip(os.sep))
    if folder and not os.path.isdir(folder):
        found = os.path.join(near(folder) or folder, name)
        return found if os.path.exists(found) else ""
    try:
        names = [*entries_of(folder or os.curdir)]
    except OSError:
        return ""
    stem = os.path.splitext(name)[0]
    close = [other for other in names if os.path.splitext(other)[0] == stem != ""]
    close = close or [
        other
        for other in difflib.get_close_matches(name, names)
        # equal endings make short names look alike
        if difflib.get_close_matches(stem, [os.path.splitext(other)[0]])
    ]
    # of a folder and a file with one stem, the one that is more alike
    best = difflib.get_close_matches(name, close, n=1, cutoff=0.0)
    return os.path.join(folder, best[0]) if best else ""


def opened(place: str) -> IO[bytes]:
    """The file, to be read from its beginning."""
    if not is_address(place):
        return open(place, "rb")
    return io.BufferedReader(StoredFile(place), AT_ONCE)


def for_arrow(place: str) -> Any:
    """What pyarrow takes for the file: a path, or a file that asks for the parts which are used."""
    return StoredFile(place) if is_address(place) else place


def absolute(place: str) -> str:
    """The place for a process that works elsewhere."""
    return place if is_address(place) else os.path.abspath(place)


def name_in(folder: str, place: str) -> str:
    """`a/0001.tar`, from the folder."""
    if is_address(place):
        return place.removeprefix(folder.rstrip("/")).lstrip("/")
    return os.path.relpath(place, folder).replace(os.sep, "/")


def first_names(address: str) -> list[str]:
    """Names of some files in a folder of a store and below it, in the order of its listing; hidden ones left out."""
    names = asked(("first", address), lambda: _first_names(address))
    return [name for name in names if not _is_hidden(name)]


def _first_names(address: str) -> list[str]:
    return [name for name, _ in islice(Folder.at(address, INPUT).find(), GLANCE)]


def names_in(folder: str, prefix: str = "") -> list[str]:
    """As `Folder.names`."""
    return asked(("names", folder, prefix), lambda: Folder.at(folder, INPUT).names(prefix))


def small_file(folder: str, name: str, most: int) -> bytes | None:
    """The bytes of a file, None where there is none, or one that is too large."""
    return asked(("file", folder, name, most), lambda: _small_file(folder, name, most))


def _small_file(folder: str, name: str, most: int) -> bytes | None:
    try:
        return Folder.at(folder, INPUT).read(name, most)
    except (FileNotFoundError, OddFileError):
        return None


def names_below(address: str) -> list[str]:
    """Names of all files in a folder of a store and below it, sorted; hidden ones left out."""
    found = Folder.at(address, INPUT).find()
    return sorted(name for name, _ in found if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _split(address: str) -> tuple[Folder, str]:
    """The folder that a stored file is in, and its name; no name for what has no folder above, such as a bucket."""
    above, _, name = address.rstrip("/").rpartition("/")
    if above.endswith("/"):
        return Folder.at(address, INPUT), ""
    return Folder.at(above, INPUT), name


class StoredFile(io.RawIOBase):
    """A file of a store that is read by ranged requests, of `AHEAD` bytes at least, which it holds. It need not be closed."""

    def __init__(self, address: str) -> None:
        facts = facts_at(address)
        if facts is None:
            raise FileNotFoundError(2, os.strerror(2), address)
        self.address, self.length, self._at = address, facts.size_bytes, 0
        self._start, self._held = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.length}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), self.length - self._at)
        data = self._part(count) if count > 0 else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _part(self, count: int) -> bytes:
        if count > AHEAD:
            return part_of(self.address, self._at, count)
        if not self._start <= self._at <= self._at + count <= self._start + len(self._held):
            self._start = max(0, min(self._at, self.length - AHEAD))
            self._held = part_of(self.address, self._start, AHEAD)
        return self._held[self._at - self._start :][:count]
