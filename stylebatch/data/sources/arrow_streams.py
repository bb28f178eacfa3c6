"""Arrow streams of record batches, on this machine or in a store, of which only what is used is read.

A file of this machine is mapped. Of one in a store the metadata of each batch are read, and the columns that are named: the rest of
the batch stands for itself as zeros that take no memory, and only where pictures lie is told.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stylebatch.data.places import AHEAD, facts_at, part_of
from stylebatch.paths import is_address

if TYPE_CHECKING:
    import pyarrow as pa

MARK, END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"
"""Begins a message; ends a stream: one without an end was cut short, even where it stops behind a whole batch."""
MAX_METADATA = 1 << 26
HELD = 16
"""Batches of stores that a process keeps, without their pictures: images are mostly read in order."""


class Used(NamedTuple):
    """Names of columns: those that are read whole, and those of pictures, of which it is told where they lie."""

    whole: tuple[str, ...]
    pictures: tuple[str, ...] = ()


class Batch(NamedTuple):
    """`offset`: where its message begins in the file; of one in a store `body` is where its buffers begin, `base` of them in memory."""

    rows: pa.RecordBatch
    offset: int
    body: int = 0
    base: int = 0

    @property
    def is_stored(self) -> bool:
        return self.body > 0

    def spans(self, column: pa.Array) -> Iterator[tuple[int, int] | None]:
        """Where in the file the bytes of each cell lie, and how many; None where there are none."""
        import numpy as np
        import pyarrow as pa

        kinds = {pa.binary(): "<i4", pa.large_binary(): "<i8"}
        if column.type not in kinds:
            raise OSError(f"found pictures of the type {column.type}; accepted: binary")
        _, ends, data = column.buffers()
        places = np.frombuffer(ends, kinds[column.type])[column.offset :].tolist()
        start = self.body + (data.address - self.base if data else 0)
        for row, is_set in enumerate(column.is_valid().to_pylist()):
            yield (start + places[row], places[row + 1] - places[row]) if is_set else None


class Stream(Protocol):
    """`batches`: in order, of which the columns may be read that are used."""

    schema: pa.Schema

    def batches(self, used: Used) -> Iterator[Batch]: ...


@contextmanager
def opened_stream(place: str) -> Iterator[Stream]:
    """Raises OSError, EOFError or pyarrow's errors for what is no whole stream, here and where its batches are read."""
    import pyarrow as pa

    if is_address(place):
        yield StoredStream(place)
        return
    with pa.memory_map(place) as file:
        yield MappedStream(file)


class MappedStream:
    """Of a file of this machine, as long as it is mapped."""

    def __init__(self, file: Any) -> None:
        import pyarrow as pa

        self._file, self._stream = file, pa.ipc.open_stream(file)
        self.schema: pa.Schema = self._stream.schema

    def batches(self, used: Used) -> Iterator[Batch]:
        file = self._file
        while True:
            # The place is asked before the batch is read: there its message begins.
            offset = file.tell()
            try:
                rows = self._stream.read_next_batch()
            except StopIteration:
                break
            yield Batch(sound(rows, used), offset)
        # Arrow takes the end of a file for the end of its stream.
        if file.size() < len(END) or file.read_at(len(END), file.size() - len(END)) != END:
            raise EOFError("it is cut short: its end is missing")


class StoredStream:
    """Of a file in a store."""

    def __init__(self, address: str) -> None:
        import pyarrow as pa

        self._address, self._start, self._window = address, 0, b""
        facts = facts_at(address)
        if facts is None:
            raise FileNotFoundError(2, "no such file", address)
        self._size = facts.size_bytes
        first = self._message(0)
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(first))
        self._first = len(first)

    def batches(self, used: Used) -> Iterator[Batch]:
        offset = self._first
        while message := self._message(offset):
            batch, length = self._batch(offset, message, used)
            yield batch
            offset += len(message) + length

    def batch(self, offset: int, used: Used) -> Batch:
        """The one whose message begins there."""
        used = Used(tuple(name for name in used.whole if name in self.schema.names))
        return self._batch(offset, self._message(offset), used)[0]

    def _message(self, offset: int) -> bytes:
        """Metadata of a message, without its body; nothing at the end of the stream."""
        start = self._read(offset, 8)
        if start == END:
            return b""
        length = int.from_bytes(start[4:], "little")
        if len(start) == 8 and (start[:4] != MARK or length > MAX_METADATA):
            raise OSError(f"no message of Arrow at byte {offset:,}")
        found = self._read(offset, 8 + length)
        if len(start) < 8 or len(found) < 8 + length:
            raise EOFError("it is cut short: its end is missing")
        return found

    def _batch(self, offset: int, message: bytes, used: Used) -> tuple[Batch, int]:
        """A batch with the columns of these names, and the length of its body."""
        import pyarrow as pa

        body = _Body(message, self._size - offset - len(message))
        found = pa.ipc.read_message(pa.PythonFile(body, mode="r"))
        if found.type != "record batch":
            raise OSError(f"found a {found.type} at byte {offset:,}; accepted: record batches")
        rows = pa.ipc.read_record_batch(found, self.schema)
        base, start = found.body.address, offset + len(message)
        parts = [part for name in used.whole for part in rows.column(name).buffers()]
        parts += [part for name in used.pictures for part in _without_bytes(rows.column(name))]
        for first, last in _stretches(parts, base, len(body.zeros)):
            data = self._read(start + first, last - first)
            if len(data) < last - first:
                raise EOFError("it is cut short: its end is missing")
            body.zeros[first:last] = data
        return Batch(sound(rows, used), offset, start, base), len(body.zeros)

    def _read(self, offset: int, count: int) -> bytes:
        """So many bytes, fewer where the file ends."""
        if count > AHEAD:
            return part_of(self._address, offset, count)
        if not self._start <= offset <= offset + count <= self._start + len(self._window):
            self._start, self._window = offset, part_of(self._address, offset, AHEAD)
        return self._window[offset - self._start :][:count]


class _Body:
    """What pyarrow reads a message from: the metadata, then zeros for the body, which are filled in later."""

    closed = False

    def __init__(self, message: bytes, most: int) -> None:
        self._message, self._at, self._most = message, 0, most
        self.zeros: Any = b""

    def read(self, count: int) -> Any:
        if self._at < len(self._message):
            self._at += count
            return self._message[self._at - count : self._at]
        if count > self._most:
            raise EOFError("it is cut short: its end is missing")
        self.zeros = mmap.mmap(-1, count) if count else b""
        return memoryview(self.zeros)


def _without_bytes(column: pa.Array) -> Iterator[pa.Buffer]:
    """Buffers of a column of pictures, without their bytes."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        yield from column.buffers()[:1]
        for place in range(kind.num_fields):
            yield from _without_bytes(column.field(place))
    else:
        is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        yield from column.buffers()[: 2 if is_bytes else None]


def _stretches(
    buffers: Collection[pa.Buffer | None], base: int, length: int
) -> list[tuple[int, int]]:
    """Beginnings and ends of what holds the buffers, those next to each other as one. Raises OSError for buffers that are elsewhere."""
    found: list[tuple[int, int]] = []
    places = sorted((b.address - base, b.address - base + b.size) for b in buffers if b)
    for first, last in places:
        if not 0 <= first <= last <= length:
            raise OSError("its record batches are compressed; accepted: as `datasets` saves them")
        if found and first - found[-1][1] < AHEAD:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def sound(rows: pa.RecordBatch, used: Used) -> pa.RecordBatch:
    """The batch, once what is used leads nowhere outside of it: Arrow itself does not look. Raises pyarrow's errors."""
    for name in (*used.whole, *used.pictures):
        rows.column(name).validate(full=True)
    return rows


@lru_cache(maxsize=HELD)
def stored_batch(address: str, offset: int, names: tuple[str, ...]) -> pa.RecordBatch:
    """A batch of a stream in a store, of which these columns may be read."""
    return StoredStream(address).batch(offset, Used(names)).rows
