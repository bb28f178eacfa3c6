"""Parquet with pictures: `data/train-00000.parquet`, a row per sample, its images as `datasets` stores them.

A row group ends after `ROWS` samples or `BYTES` of pictures, so that a reader that wants a few rows reads little, and
writing a shard needs the memory of one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.spec.output import OutputFormat
from stylebatch.store.records import Record
from stylebatch.store.sinks.columns import (
    PICTURE,
    RESULT,
    Column,
    Shape,
    arrow_schema,
    card_features,
    columns_of,
    shared_words,
)
from stylebatch.store.sinks.one_file import OneFile, sample_faults
from stylebatch.store.sinks.shared_inputs import Named
from stylebatch.store.sinks.sink import RECORD_FILES, Members, Row
from stylebatch.store.sinks.whole_files import Hashed

ROWS = 100
BYTES = 1 << 25
LOADING = """\
import duckdb

duckdb.sql("SELECT key, label FROM 'PATH_OF_THIS_FOLDER/data/*.parquet'")
"""


class ParquetShard(OneFile):
    """A Parquet file with the features of `datasets` in its schema."""

    format: ClassVar[OutputFormat] = "parquet"
    suffix = ".parquet"

    def _begin(self, file: Any, record: Record) -> None:
        image, *inputs = [name for name in record.files if name not in RECORD_FILES]
        columns = columns_of(self.schema, image, inputs, has_classes=bool(self.labels))
        self._columns, self._arrow = columns, arrow_schema(columns, self.labels)
        self._pending: list[Row] = []
        self._pending_bytes = 0
        # pictures are compressed already
        plain = {f"{c.name}.bytes" for c in columns if c.kind == "picture"}
        leaves = {leaf for field in self._arrow for leaf in _leaves(field)}
        self._writer = pq.ParquetWriter(
            file,
            self._arrow,
            compression={leaf: "NONE" if leaf in plain else "ZSTD" for leaf in leaves},
            use_dictionary=sorted(leaves - plain),
            write_statistics=sorted(leaves - plain),
        )

    def _append(self, record: Record) -> None:
        self._pending.append({c.name: _value(c, record) for c in self._columns})
        self._pending_bytes += sum(map(len, record.files.values()))
        if len(self._pending) >= ROWS or self._pending_bytes >= BYTES:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._arrow))
        self._pending, self._pending_bytes = [], 0

    def _end(self) -> None:
        if self._pending:
            self._flush()
        self._writer.close()

    @classmethod
    def _samples(
        cls, output: Folder, name: str, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        left = set(rows)
        with output.open(cls.payload(name)) as file:
            for key, pictures in _rows(file, left):
                yield key, pictures
                left.discard(key)
                if not left:
                    return

    @classmethod
    def _shared(cls, output: Folder, name: str) -> Iterator[tuple[Named, bytes]]:
        with output.open(cls.inputs_file(name)) as file:
            try:
                table = pq.read_table(file, columns=["kind", "id", RESULT])
            except pa.ArrowException as error:
                raise ValueError(str(error)) from None
        for row in table.to_pylist():
            yield (row["kind"], row["id"]), row[RESULT]["bytes"]

    @classmethod
    def _faults(cls, output: Folder, file: str, success: list[Row], sha256: str) -> Iterator[str]:
        found: dict[str, set[str]] = {}
        with output.open(file) as opened:
            whole = Hashed(opened).whole()
            opened.seek(0)
            try:
                for key, pictures in _rows(opened, None):
                    results = (data for name, data in pictures.items() if "." not in name)
                    found[key] = {hashlib.sha256(data).hexdigest() for data in results}
            except UnansweredError:
                raise
            except (OSError, ValueError) as error:
                yield f"cannot be read to its end: {error}"
                return
        faults = list(sample_faults(success, found))
        yield from faults
        if not faults and whole != sha256:
            yield "its bytes changed since the commit (sha256)"

    @classmethod
    def loading(cls, shape: Shape) -> str:
        return LOADING

    @classmethod
    def data_files(cls, split: str) -> str:
        return f"data/{split}-*.parquet"

    @classmethod
    def features(cls, shape: Shape) -> list[dict[str, Any]]:
        return card_features(_columns(shape), shape.labels)

    @classmethod
    def members(cls, shape: Shape) -> list[tuple[list[str], str]]:
        columns = _columns(shape)
        found: list[tuple[list[str], str]] = [
            ([RESULT], "the rendered image"),
            ([c.name for c in columns if c.source == "label"], _words_of_label(shape)),
            ([c.name for c in columns if c.source == "caption"], "the caption, or an empty text"),
        ]
        if shape.beside:
            names = [c.name for c in columns if c.kind == "picture" and c.name != RESULT]
            found.append((names, "the inputs as fitted"))
        shared = shared_words(shape, "`image`, `kind` and `id`")
        return [*found, (["key", "..."], "ids, parameters, measures"), *shared]


def _words_of_label(shape: Shape) -> str:
    return "the class; -1 where there is none" if shape.labels else "an empty text"


def _columns(shape: Shape) -> list[Column]:
    return columns_of(shape.schema, shape.image, shape.beside, has_classes=bool(shape.labels))


def _value(column: Column, record: Record) -> Any:
    if column.kind == "picture":
        # `datasets` takes the format of a picture from the ending of its path
        path = f"{record.row['key']}.{column.source}"
        return {"bytes": record.files[column.source], "path": path}
    if column.kind == "class":
        return int(record.files["cls"])
    return record.row[column.source]


def _leaves(field: pa.Field) -> Iterator[str]:
    """Paths of the columns that Parquet stores for a field."""
    yield from _leaves_of(field.name, field.type)


def _leaves_of(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_struct(kind):
        for inner in kind:
            yield from _leaves_of(f"{path}.{inner.name}", inner.type)
    elif pa.types.is_list(kind):
        yield from _leaves_of(f"{path}.list.element", kind.value_type)
    else:
        yield path


def _rows(file: Any, wanted: set[str] | None) -> Iterator[tuple[str, Members]]:
    """Key and pictures of the rows that are wanted, None for all; row group by row group."""
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        if schema.get_field_index("key") < 0 or schema.field("key").type != pa.string():
            raise ValueError("found no column key of text")
        pictures = [field.name for field in schema if field.type == PICTURE]
        # keys first: pictures of a group without wanted rows are never read
        for group in range(parquet.num_row_groups):
            keys = parquet.read_row_group(group, columns=["key"])["key"].to_pylist()
            if wanted is not None and not wanted.intersection(keys):
                continue
            table = parquet.read_row_group(group, columns=pictures)
            for place, key in enumerate(keys):
                if wanted is None or key in wanted:
                    yield str(key), _pictures(table, pictures, place)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def _pictures(table: pa.Table, names: list[str], place: int) -> Members:
    found: Members = {}
    for name in names:
        value = table[name][place].as_py()
        if not value or value["bytes"] is None or value["path"] is None:
            raise ValueError(f"found no {name} in row {place}")
        found[value["path"].partition(".")[2]] = value["bytes"]
    return found
