"""One row per planned sample: its columns, their types, and the JSON that goes into a shard."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.spec import PromptMethod, Section

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
"""Columns of `metadata/*.parquet` of pairs; quality columns are null in failed rows, nothing else ever is."""

EXTRA = {
    "gamma_schedule": pa.string(),
    "gamma_end_share": pa.float64(),
    "site_gammas": pa.list_(pa.float64()),
    "grid": pa.string(),
    "solver": pa.string(),
    "inversion": pa.string(),
    "blend": pa.string(),
    "style_images": pa.list_(pa.string()),
    "style_weights": pa.list_(pa.float64()),
    "mask_id": pa.string(),
}
"""Columns of pairs in runs that use what they tell (`Plan.extra_columns`); they stand before `width`.

`site_gammas`: at each of `sites`. `style_images`, `style_weights`: what a style is made of, itself with weight 1 where it is no
blend. `mask_id`: the mask's path relative to the content's folder, "" for none.
"""

_OPTION_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}


def schema_of(method: Section, extra: Sequence[str] = ()) -> pa.Schema:
    """Columns of a run with this method, of pairs with those named in `extra` (see `EXTRA`).

    Those of prompts: what a row says, the method's options, sizes, state, quality.

    Options that are no number, text or truth value are told as JSON text.
    """
    if not isinstance(method, PromptMethod):
        fields = list(SCHEMA)
        place = SCHEMA.get_field_index("width")
        return pa.schema(
            [*fields[:place], *((name, EXTRA[name]) for name in extra), *fields[place:]]
        )
    text, size, number = pa.string(), pa.int32(), pa.float64()
    has_image = "image" in method.inputs
    inputs = [*method.inputs, *(("style", "reference") if method.uses_sets else ())]
    return pa.schema(
        [
            ("key", text),
            ("shard", pa.int32()),
            ("id", text),
            ("prompt", text),
            ("negative_prompt", text),
            *((name, text) for name in inputs),
            ("label", text),
            ("caption", text),
            ("method", text),
            ("model", text),
            ("seed", pa.int64()),
            *((name, _option_type(value)) for name, value in options_of(method).items()),
            ("width", size),
            ("height", size),
            *((name, size) for name in ("original_width", "original_height") if has_image),
            *((name, text) for name in ("status", "error_code", "error_message", "sha256")),
            *((("structure", number),) if has_image else ()),
            *((("color_distance", number),) if method.uses_sets else ()),
            ("contrast", number),
        ]
    )


def options_of(method: PromptMethod) -> dict[str, Any]:
    """The options as values of columns."""
    given = method.model_dump(mode="json", exclude={"name"})
    return {
        name: "" if value is None else value if type(value) in _OPTION_TYPES else json.dumps(value)
        for name, value in given.items()
    }


def _option_type(value: Any) -> pa.DataType:
    return _OPTION_TYPES[type(value)]


def json_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Columns of the JSON member; it exists for successful samples alone."""
    return tuple(name for name in schema.names if name not in ("shard", "error_code"))


@dataclass(frozen=True)
class Record:
    """A sample's row (all columns of the schema) and, when it succeeded, the files of its shard entry."""

    row: dict[str, Any]
    files: dict[str, bytes]

    @property
    def ok(self) -> bool:
        return bool(self.row["status"] == "success")


def as_json(row: dict[str, Any], schema: pa.Schema = SCHEMA) -> bytes:
    """The JSON member of a sample: the same keys and types in every record, floats always floats."""
    record = {name: row[name] for name in json_columns(schema)}
    for name, value in record.items():
        if pa.types.is_floating(schema.field(name).type):
            record[name] = float(value)
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()


def as_parquet(rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> bytes:
    """Rows as a Parquet file; the same bytes for the same rows and library version."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
