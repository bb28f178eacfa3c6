"""One row per planned sample: its columns, their types, and the JSON that goes into a shard."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("content_id", pa.string()),
        ("style_id", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("method", pa.string()),
        ("model", pa.string()),
        ("seed", pa.int64()),
        ("gamma", pa.float64()),
        ("tau", pa.float64()),
        ("steps", pa.int32()),
        ("convention", pa.string()),
        ("start", pa.string()),
        ("sites", pa.list_(pa.int32())),
        ("init_adain", pa.bool_()),
        ("inject", pa.bool_()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("sha256", pa.string()),
        ("structure", pa.float64()),
        ("color_distance", pa.float64()),
        ("contrast", pa.float64()),
    ]
)
"""Columns of `metadata/*.parquet`; quality columns are null in failed rows, nothing else ever is."""

JSON_COLUMNS = tuple(name for name in SCHEMA.names if name not in ("shard", "error_code"))
"""Columns of the JSON member; it exists for successful samples alone."""


@dataclass(frozen=True)
class Record:
    """A sample's row (all columns of `SCHEMA`) and, when it succeeded, the files of its shard entry."""

    row: dict[str, Any]
    files: dict[str, bytes]

    @property
    def ok(self) -> bool:
        return bool(self.row["status"] == "success")


def as_json(row: dict[str, Any]) -> bytes:
    """The JSON member of a sample: the same keys and types in every record, floats always floats."""
    record = {name: row[name] for name in JSON_COLUMNS}
    for name, value in record.items():
        if pa.types.is_floating(SCHEMA.field(name).type):
            record[name] = float(value)
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file; the same bytes for the same rows and library version."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()
