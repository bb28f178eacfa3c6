"""Parquet files whose rows hold images. Only columns that are used are read, and of the images only those that are asked for."""

from __future__ import annotations

import itertools
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import Stamp, absolute, for_arrow, is_folder, stamp_of
from stylebatch.data.sources.container_files import ContainerFiles
from stylebatch.data.sources.further import Kinds, has_gaps, is_plain
from stylebatch.data.sources.image_columns import (
    ImageColumns,
    find_columns,
    has_images,
    image_bytes,
    regions_of_rows,
    texts_of_rows,
)
from stylebatch.data.sources.local import require_few_bytes
from stylebatch.data.sources.patterns import is_pattern
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import USUAL, Item, Ref
from stylebatch.data.tables.parquet_table import rows_at_once
from stylebatch.errors import ManifestError, SampleError, StorageError
from stylebatch.paths import is_address

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

HELD_BYTES = 256 * 2**20
"""Of images around those that were read last, in a process; reading in order then costs each page once."""
MAX_READERS = 8


class ParquetImages(ContainerFiles):
    """Rows of Parquet files, in the order of the files; ids are file and row, from 1."""

    accepted = "a .parquet file with images, or a folder or pattern of them"
    takes = frozenset(("split", "image", "label", "caption", "captions", "damaged"))
    suffix = ".parquet"

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._passed_over: Counter[str] = Counter()
        self._texts: dict[str, str] = {}
        self._numbers: list[str] = []

    @classmethod
    def recognises(cls, uri: str) -> bool:
        """A single file as well by its schema: rows of paths are a table."""
        if not super().recognises(uri):
            return False
        return is_pattern(uri) or is_folder(uri) or _file_has_images(uri)

    def items(self) -> Iterator[Item]:
        import pyarrow as pa

        self._passed_over, self._texts, self._numbers = Counter(), {}, []
        kinds = Kinds()
        found = self.files()
        columns: ImageColumns | None = None
        for file in found.files:
            path = absolute(file)
            prefix = self.prefix(found, file) or f"{os.path.basename(file)}/"
            try:
                with _opened(path) as table:
                    columns = find_columns(table.schema_arrow, self.options, path, self.fault)
                    _learn(kinds, table, columns.further)
                    yield from self._rows(table, columns, path, prefix)
            except StorageError:  # a store that does not answer says nothing of the file
                raise
            except (pa.ArrowException, OSError) as error:
                if self.options.damaged == "refuse":
                    raise self.fault(
                        f"{path}: cannot be read as Parquet: {str(error)[:300]}; accepted: whole files. Next: copy it anew, or pass "
                        "over what is lost with `damaged: pass_over`"
                    ) from None
                self._passed_over["damaged file, from the damage on"] += 1
        self.types = kinds.types()
        self._numbers = []  # a source holds nothing of what it listed

    def _rows(
        self, table: pq.ParquetFile, columns: ImageColumns, path: str, prefix: str
    ) -> Iterator[Item]:
        number = 1
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            # All rows of a group share its address, and groups the numbers of their rows: a million of each are 64 MB.
            address = f"{path}\0{group}"
            self._numbers += map(str, range(len(self._numbers), rows))
            empty = _without_image(table, group, columns)
            texts = self._texts_of(table, group, rows, columns, path, number)
            regions = _regions_of(table, group, rows, columns, path)
            for row, (label, caption, license) in enumerate(texts):
                objects = next(regions)
                if row in empty:
                    self._passed_over["row without an image"] += 1
                else:
                    yield Item(
                        f"{prefix}{number}", Ref(address, self._numbers[row], self.field),
                        self._shared(label), caption, self._shared(license), regions=objects,
                    )  # fmt: skip
                number += 1

    def _shared(self, text: str) -> str:
        """The same object for the same text, of which there are few."""
        return self._texts.setdefault(text, text)

    @staticmethod
    def _texts_of(
        table: pq.ParquetFile, group: int, rows: int, columns: ImageColumns, path: str, first: int
    ) -> Iterator[tuple[str, str, str]]:
        if not columns.texts:
            for _ in range(rows):
                yield "", "", ""
            return
        size = rows_at_once(table, group, set(columns.texts))
        for batch in table.iter_batches(size, row_groups=[group], columns=list(columns.texts)):
            yield from texts_of_rows(batch, columns, path, first)
            first += batch.num_rows

    def read(self, ref: Ref) -> bytes:
        """The image's bytes. Raises SampleError for a row without any, and for a file that is not as it was listed."""
        path = _place(ref)[0]
        columns = self._columns(path)
        cell = _row(ref, (columns.image,))[columns.image]
        data = image_bytes(cell, columns, os.path.dirname(path))
        require_few_bytes(len(data))
        return data

    def further(self, item: Item) -> Mapping[str, Any]:
        names = self._columns(_place(item.ref)[0]).carried(self.options)
        return _row(item.ref, names) if names else item.extra

    def _columns(self, path: str) -> ImageColumns:
        # The stamp is part of the key, so that a changed file is looked at anew.
        return _known_columns(path, _stamp(path), self.options)

    def size(self, ref: Ref) -> int | None:
        path = _place(ref)[0]
        return 0 if is_address(path) or os.path.isfile(path) else None

    def passed_over(self) -> Counter[str]:
        return self._passed_over


def _opened(path: str) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    # pyarrow would otherwise fetch whole columns of a row group to give one image.
    return pq.ParquetFile(for_arrow(path), pre_buffer=False, buffer_size=2**20)


def _stamp(path: str) -> Stamp:
    """As `stamp_of`. One in a store is asked once: a request for each image would double the cost of reading it."""
    return _stored_stamp(path) if is_address(path) else stamp_of(path)


_stored_stamp = lru_cache(maxsize=4096)(stamp_of)


@lru_cache(maxsize=64)
def _known_columns(path: str, stamp: Stamp, options: SourceOptions) -> ImageColumns:
    """The columns of a file as it was at `stamp`."""
    with _opened(path) as table:
        return find_columns(
            table.schema_arrow, options, path, lambda what, option: ManifestError(what)
        )


def _file_has_images(path: str) -> bool:
    import pyarrow as pa

    try:
        with _opened(path) as table:
            return has_images(table.schema_arrow)
    except StorageError:
        raise
    except (pa.ArrowException, OSError):
        return False  # reading it as a table says what is wrong


def _regions_of(
    table: pq.ParquetFile, group: int, rows: int, columns: ImageColumns, path: str
) -> Iterator[tuple[Region, ...]]:
    """Objects of each row of a group; none where the table has no such column."""
    if not columns.objects:
        yield from itertools.repeat((), rows)
        return
    first = 1 + sum(table.metadata.row_group(before).num_rows for before in range(group))
    leaves = set(_leaves(table, group, columns.objects))
    size = rows_at_once(table, group, leaves)
    for batch in table.iter_batches(size, row_groups=[group], columns=[columns.objects]):
        yield from regions_of_rows(batch, columns, path, first)
        first += batch.num_rows


def _learn(kinds: Kinds, table: pq.ParquetFile, names: Sequence[str]) -> None:
    """Add the columns of a file; of those with numbers all values are looked at."""
    rows = table.metadata.num_rows
    kinds.add_rows(rows)
    for name in names:
        kind = table.schema_arrow.field(name).type
        batches = table.iter_batches(1 << 16, columns=[name]) if is_plain(kind) else ()
        gaps = any(has_gaps(batch.column(name)) for batch in batches)
        kinds.add_column(name, kind, rows=rows, has_gaps=gaps)


def _without_image(table: pq.ParquetFile, group: int, columns: ImageColumns) -> frozenset[int]:
    """Rows of a group without bytes and path; images are looked at only where the statistics say that some are missing."""
    facts = table.metadata.row_group(group)
    of_bytes = next(
        c
        for c in map(facts.column, range(facts.num_columns))
        if c.path_in_schema == columns.bytes_path
    )
    statistics = of_bytes.statistics
    # Without statistics no row is looked at: one without an image fails when it is read.
    if statistics is None or not statistics.has_null_count or statistics.null_count == 0:
        return frozenset()
    # Paths are short, and come first: where each row has one, no bytes need be read.
    has_paths = columns.is_struct and table.schema_arrow.field(columns.image).type.num_fields > 1
    missing: set[int] = set()
    if has_paths:
        row = 0
        for batch in table.iter_batches(
            1024, row_groups=[group], columns=[f"{columns.image}.path"]
        ):
            paths = batch.column(columns.image).field("path").to_pylist()
            missing |= {row + i for i, path in enumerate(paths) if not path}
            row += len(paths)
        if not missing:
            return frozenset()
    empty, row = set(), 0
    size = rows_at_once(table, group, {columns.bytes_path})
    for batch in table.iter_batches(size, row_groups=[group], columns=[columns.bytes_path]):
        column = batch.column(columns.image)
        values = column.field("bytes") if columns.is_struct else column
        empty |= {row + i for i, is_set in enumerate(values.is_valid().to_pylist()) if not is_set}
        row += batch.num_rows
    if has_paths:
        empty &= missing
    return frozenset(empty)


class _Reader:
    """Rows of one row group and some columns: read in order once, with what lies around the last one held."""

    def __init__(self, path: str, group: int, names: Sequence[str]) -> None:
        self._table = _opened(path)
        self._group, self._names = group, list(names)
        if group >= self._table.num_row_groups:
            raise SampleError("missing", "the file has fewer rows than when it was listed")
        paths = {c for name in names for c in _leaves(self._table, group, name)}
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


def _leaves(table: pq.ParquetFile, group: int, name: str) -> list[str]:
    facts = table.metadata.row_group(group)
    paths = [facts.column(i).path_in_schema for i in range(facts.num_columns)]
    return [path for path in paths if path == name or path.startswith(f"{name}.")]


_readers: OrderedDict[tuple[Any, ...], _Reader] = OrderedDict()
_lock = Lock()


def _place(ref: Ref) -> tuple[str, int, int]:
    """The file, the row group and the row in it."""
    path, _, group = ref.uri.partition("\0")
    return path, int(group), int(ref.member)


def _row(ref: Ref, names: Sequence[str]) -> dict[str, Any]:
    """Values of columns in the row of a `Ref`; readers are kept in the process, by file and row group."""
    import pyarrow as pa

    path, group, row = _place(ref)
    key = (path, _stamp(path), group, *names)
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
