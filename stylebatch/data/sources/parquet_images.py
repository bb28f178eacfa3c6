"""Parquet files whose rows hold images. Only columns that are used are read, and of the images only those that are asked for."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import Stamp, absolute, is_folder
from stylebatch.data.sources.container_files import ContainerFiles
from stylebatch.data.sources.further import Kinds, has_gaps, is_plain
from stylebatch.data.sources.image_columns import (
    ImageColumns,
    find_columns,
    has_images,
    image_bytes,
    regions_of_rows,
    texts_of_rows,
    unread_pictures,
)
from stylebatch.data.sources.local import require_few_bytes
from stylebatch.data.sources.parquet_rows import file_stamp, leaves_of, opened, place_of, row_of
from stylebatch.data.sources.patterns import is_pattern
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import USUAL, Item, Ref
from stylebatch.data.tables.parquet_table import rows_at_once
from stylebatch.errors import ManifestError, StorageError
from stylebatch.paths import is_address

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


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
        self._unread: dict[str, None] = {}

    @classmethod
    def recognises(cls, uri: str) -> bool:
        """A single file as well by its schema: rows of paths are a table."""
        if not super().recognises(uri):
            return False
        return is_pattern(uri) or is_folder(uri) or _file_has_images(uri)

    def items(self) -> Iterator[Item]:
        import pyarrow as pa

        self._begin_classes()
        self._passed_over, self._texts, self._numbers, self._unread = Counter(), {}, [], {}
        kinds = Kinds()
        found = self.files()
        columns: ImageColumns | None = None
        for file in found.files:
            path = absolute(file)
            prefix = self.prefix(found, file) or f"{os.path.basename(file)}/"
            try:
                with opened(path) as table:
                    columns = self._columns_in(table.schema_arrow, path)
                    columns.learn_classes(self, path)
                    self._unread |= dict.fromkeys(columns.unread)
                    self._learn(kinds, table, columns)
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

    def _columns_in(self, schema: pa.Schema, path: str) -> ImageColumns:
        return find_columns(schema, self.options, path, self.fault)

    def _learn(self, kinds: Kinds, table: pq.ParquetFile, columns: ImageColumns) -> None:
        """Add the columns of a file; of those with numbers all values are looked at."""
        rows = table.metadata.num_rows
        kinds.add_rows(rows)
        for name in columns.further:
            kind = table.schema_arrow.field(name).type
            batches = table.iter_batches(1 << 16, columns=[name]) if is_plain(kind) else ()
            gaps = any(has_gaps(batch.column(name)) for batch in batches)
            kinds.add_column(name, kind, rows=rows, has_gaps=gaps)

    def _rows(
        self, table: pq.ParquetFile, columns: ImageColumns, path: str, prefix: str
    ) -> Iterator[Item]:
        number = 1
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            # All rows of a group share its address, and groups the numbers of their rows: a million of each are 64 MB.
            address = f"{path}\0{group}"
            self._numbers += map(str, range(len(self._numbers), rows))
            empty = _without_image(table, group, columns, columns.image)
            labels = columns.segmentation
            unlabelled = _without_image(table, group, columns, labels) if labels else frozenset()
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
                        segmentation=self._labels_at(address, row, columns) if labels and row not in unlabelled else None,
                    )  # fmt: skip
                number += 1

    def _labels_at(self, address: str, row: int, columns: ImageColumns) -> Ref:
        return Ref(address, f"{row}\0{columns.segmentation}", self.field)

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
        path = place_of(ref)[0]
        name = ref.member.partition("\0")[2] or self._columns(path).image
        data = image_bytes(row_of(ref, (name,))[name], os.path.dirname(path))
        require_few_bytes(len(data))
        return data

    def further(self, item: Item) -> Mapping[str, Any]:
        names = self._columns(place_of(item.ref)[0]).carried(self.options)
        return row_of(item.ref, names) if names else item.extra

    def _columns(self, path: str) -> ImageColumns:
        # The stamp is part of the key, so that a changed file is looked at anew.
        return _known_columns(path, file_stamp(path), self.options)

    def size(self, ref: Ref) -> int | None:
        path = place_of(ref)[0]
        return 0 if is_address(path) or os.path.isfile(path) else None

    def passed_over(self) -> Counter[str]:
        return self._passed_over

    def notes(self) -> list[str]:
        return [*super().notes(), *unread_pictures(self._unread, self.field)]


@lru_cache(maxsize=64)
def _known_columns(path: str, stamp: Stamp, options: SourceOptions) -> ImageColumns:
    """The columns of a file as it was at `stamp`."""
    with opened(path) as table:
        return find_columns(
            table.schema_arrow, options, path, lambda what, option: ManifestError(what)
        )


def _file_has_images(path: str) -> bool:
    import pyarrow as pa

    try:
        with opened(path) as table:
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
    leaves = set(leaves_of(table, group, columns.objects))
    size = rows_at_once(table, group, leaves)
    for batch in table.iter_batches(size, row_groups=[group], columns=[columns.objects]):
        yield from regions_of_rows(batch, columns, path, first)
        first += batch.num_rows


def _without_image(
    table: pq.ParquetFile, group: int, columns: ImageColumns, name: str
) -> frozenset[int]:
    """Rows of a group whose picture has neither bytes nor path; looked at only where the statistics say that some are missing."""
    bytes_path, is_struct = columns.bytes_path(name), name in columns.structs
    facts = table.metadata.row_group(group)
    of_bytes = next(
        c for c in map(facts.column, range(facts.num_columns)) if c.path_in_schema == bytes_path
    )
    statistics = of_bytes.statistics
    # Without statistics no row is looked at: one without an image fails when it is read.
    if statistics is None or not statistics.has_null_count or statistics.null_count == 0:
        return frozenset()
    # Paths are short, and come first: where each row has one, no bytes need be read.
    has_paths = is_struct and table.schema_arrow.field(name).type.num_fields > 1
    missing: set[int] = set()
    if has_paths:
        row = 0
        for batch in table.iter_batches(1024, row_groups=[group], columns=[f"{name}.path"]):
            paths = batch.column(name).field("path").to_pylist()
            missing |= {row + i for i, path in enumerate(paths) if not path}
            row += len(paths)
        if not missing:
            return frozenset()
    empty, row = set(), 0
    size = rows_at_once(table, group, {bytes_path})
    for batch in table.iter_batches(size, row_groups=[group], columns=[bytes_path]):
        column = batch.column(name)
        values = column.field("bytes") if is_struct else column
        empty |= {row + i for i, is_set in enumerate(values.is_valid().to_pylist()) if not is_set}
        row += batch.num_rows
    if has_paths:
        empty &= missing
    return frozenset(empty)
