"""Reads the known columns of Parquet, in batches of bounded size.

pyarrow is imported inside functions: it imports numpy, and checking a manifest needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stylebatch.data.places import for_arrow
from stylebatch.data.tables.row_batches import Batch, Cells
from stylebatch.data.tables.table_columns import Header
from stylebatch.errors import ManifestError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_BYTES = 16 * 2**20
BATCH_ROWS = 8192


def read_parquet(uri: str, header: Header, notes: list[str]) -> Iterator[Batch]:
    """Texts of the known columns. Raises OSError for a file that is no Parquet."""
    import pyarrow as pa

    try:
        yield from _batches(uri, header)
    except pa.ArrowException as error:
        raise OSError(str(error)) from None


def _batches(uri: str, header: Header) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(for_arrow(uri), pre_buffer=False, buffer_size=2**20) as file:
        names = [field.name for field in file.schema_arrow]
        found = header.match(names, "the schema")
        header.require(found, names, "the schema")
        for column, position in list(found.items()):
            kind = file.schema_arrow.field(position).type
            if column in header.columns.known:
                require_plain(uri, column, kind)
            elif not _is_carried(column, kind):
                header.unused[column] = None
                del found[column]
        # pandas stores its index as a column of this name; a note about it would help nobody
        stored = {names[position]: column for column, position in found.items()}
        header.unused = {n: None for n in header.unused if not n.startswith("__index_level_")}
        number = 1
        # Group by group, with its own batch size: rows of images may be megabytes, rows of names some bytes.
        for group in range(file.num_row_groups):
            size = rows_at_once(file, group, set(stored))
            for batch in file.iter_batches(size, row_groups=[group], columns=list(stored)):
                texts = {
                    column: _cells(uri, number, column, batch.column(name))
                    for name, column in stored.items()
                }
                yield Batch(range(number, number + len(batch)), texts)
                number += len(batch)


def rows_at_once(file: pq.ParquetFile, group: int, names: set[str]) -> int:
    """Number of rows of a row group that decode to about 16 MB."""
    facts = file.metadata.row_group(group)
    columns = [facts.column(i) for i in range(facts.num_columns)]
    size: int = sum(c.total_uncompressed_size for c in columns if c.path_in_schema in names)
    wanted: int = BATCH_BYTES * facts.num_rows // max(1, size)
    return max(1, min(BATCH_ROWS, wanted))


def _is_binary(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def require_plain(uri: str, column: str, kind: pa.DataType) -> None:
    """Raise ManifestError for a column whose cells are no texts or numbers."""
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    if _is_binary(inner) or (not types.is_boolean(inner) and _is_plain(inner)):
        return
    raise ManifestError(
        f"{uri}: column `{column}`: found the type {str(kind)[:80]}; accepted: text, bytes that are UTF-8 text, or numbers"
    )


def _is_carried(name: str, kind: pa.DataType) -> bool:
    """Whether the texts of a column that is not known go along."""
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
    is_carried = bool(is_text or types.is_boolean(inner) or _is_plain(inner))
    return is_carried and not name.startswith("__index_level_")


def _is_plain(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_date(kind)
        or types.is_null(kind)
    )


def _cells(uri: str, first: int, column: str, values: pa.Array) -> Cells:
    """As `texts_of`, and as a column of Arrow where it is one of texts."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_binary(values.type):
        try:
            # by way of bytes, for Parquet does not check that text is UTF-8
            return values.cast(pa.large_binary()).cast(pa.large_string()).fill_null("")
        except pa.ArrowInvalid:
            pass
    return list(texts_of(uri, first, column, values))


def texts_of(uri: str, first: int, column: str, values: pa.Array) -> list[str]:
    """The column as texts, "" for null and NaN; `first` is the number of its first row."""
    # Text is decoded here, not by pyarrow: Parquet does not check that text is UTF-8, and its error would name no row.
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_binary(values.type):
        return [
            "" if value is None else _decoded(uri, first + i, column, value)
            for i, value in enumerate(values.cast(pa.large_binary()).to_pylist())
        ]
    if pa.types.is_floating(values.type):
        return [
            _number(value, text)
            for value, text in zip(
                values.to_pylist(), values.cast(pa.string()).to_pylist(), strict=True
            )
        ]
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    for i, text in enumerate(texts):
        if text is not None and text.startswith(
            "<"
        ):  # pyarrow casts such a date to `<value out of range: 1>`
            raise ManifestError(
                f"{uri}: row {first + i}: {column}: found a date out of range; accepted: a text or a number"
            )
    return ["" if text is None else text for text in texts]


def _number(value: float | None, text: str) -> str:
    """The text of a number; `2` for 2.0, which stands for 2 in a column of integers with gaps."""
    if value is None or math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else text


def _decoded(uri: str, number: int, column: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ManifestError(
            f"{uri}: row {number}: {column}: found {len(value)} bytes that are not UTF-8; accepted: a text"
        ) from None
