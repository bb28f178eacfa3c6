"""Reads single rows of Parquet files, in any process and thread: row groups are read in order, with what lies around the last row held."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from stylebatch.data.places import Stamp, for_arrow, stamp_of
from stylebatch.data.sources.source import Ref
from stylebatch.data.tables.parquet_table import rows_at_once
from stylebatch.errors import SampleError
from stylebatch.paths import is_address

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

HELD_BYTES = 256 * 2**20
"""Of images around those that were read last, in a process; reading in order then costs each page once."""
MAX_READERS = 8


def opened(path: str) -> pq.ParquetFile:
    """A file of this machine or of a store, to be read in parts."""
    import pyarrow.parquet as pq

    # pyarrow would otherwise fetch whole columns of a row group to give one image.
    return pq.ParquetFile(for_arrow(path), pre_buffer=False, buffer_size=2**20)


def file_stamp(path: str) -> Stamp:
    """As `stamp_of`. One in a store is asked once: a request for each image would double the cost of reading it."""
    return _stored_stamp(path) if is_address(path) else stamp_of(path)


_stored_stamp = lru_cache(maxsize=4096)(stamp_of)


class _Reader:
    """Rows of one row group and some columns: read in order once, with what lies around the last one held."""

    def __init__(self, path: str, group: int, names: Sequence[str]) -> None:
        self._table = opened(path)
        self._group, self._names = group, list(names)
        if group >= self._table.num_row_groups:
            raise SampleError("missing", "the file has fewer rows than when it was listed")
        paths = {c for name in names for c in leaves_of(self._table, group, name)}
        self._size = rows_at_once(self._table, group, paths)
        self._held: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._restart()

    def _restart(self) -> None:
        self._next = 0
        self._batches = self._table.iter_batches(
            self._size, row_groups=[self._group], columns=self._names
        )

    def row(self, row: int) -> dict[str, Any]:
        # Batches begin at multiples of the size, since a reader has one row group alone.
        start = row // self._size * self._size
        # Batches come forward alone: for a row that has gone by, reading begins anew.
        if start not in self._held and row < self._next:
            self._restart()
        while start not in self._held:
            try:
                batch = next(self._batches)
            except StopIteration:
                raise SampleError(
                    "missing", "the file has fewer rows than when it was listed"
                ) from None
            self._held[self._next] = batch
            self._next += self._size
            while (
                sum(b.nbytes for b in self._held.values()) > HELD_BYTES // MAX_READERS
                and len(self._held) > 1
            ):
                self._held.popitem(last=False)
        batch = self._held[start]
        if row - start >= batch.num_rows:
            raise SampleError("missing", "the file has fewer rows than when it was listed")
        return {name: batch.column(name)[row - start].as_py() for name in self._names}


def leaves_of(table: pq.ParquetFile, group: int, name: str) -> list[str]:
    """Paths of all that a column holds, as Parquet names them."""
    facts = table.metadata.row_group(group)
    paths = [facts.column(i).path_in_schema for i in range(facts.num_columns)]
    return [path for path in paths if path == name or path.startswith(f"{name}.")]


_readers: OrderedDict[tuple[Any, ...], _Reader] = OrderedDict()
_lock = Lock()


def place_of(ref: Ref) -> tuple[str, int, int]:
    """The file, the row group and the row in it. Behind the row a NUL may be followed by a column."""
    path, _, group = ref.uri.partition("\0")
    return path, int(group), int(ref.member.partition("\0")[0])


def row_of(ref: Ref, names: Sequence[str]) -> dict[str, Any]:
    """Values of columns in the row of a `Ref`; readers are kept in the process, by file and row group."""
    import pyarrow as pa

    path, group, row = place_of(ref)
    key = (path, file_stamp(path), group, *names)
    # A reader has a position and what it holds, so threads take turns.
    with _lock:
        try:
            if key not in _readers:
                while len(_readers) >= MAX_READERS:
                    _readers.popitem(last=False)
                _readers[key] = _Reader(path, group, names)
            _readers.move_to_end(key)
            return _readers[key].row(row)
        except pa.ArrowException as error:
            # A reader that failed on its way stands at an unknown place.
            _readers.pop(key, None)
            raise SampleError("decode", f"cannot be read: {str(error)[:200]}") from None
