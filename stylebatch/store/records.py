"""One row per planned sample: its columns, their types, and the JSON that goes into a shard."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.data.sources.further import JSON
from stylebatch.methods.input_kinds import PADDING, REFERENCE, SET, TEXT
from stylebatch.methods.method import MethodOptions
from stylebatch.planning.plan import Plan
from stylebatch.quality.asked import asked_columns
from stylebatch.quality.measures import Measure, measures_of
from stylebatch.store.label_columns import TRANSFORM, objects_type

TYPES = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "list<int32>": pa.list_(pa.int32()),
    "list<double>": pa.list_(pa.float64()),
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
    "list<bool>": pa.list_(pa.bool_()),
    "transform": TRANSFORM,
}
"""Types of columns by Arrow's names, as options of methods give them."""
NOTHING: Mapping[str, str] = MappingProxyType({})
INPUT_COLUMNS = {
    "split": "string",
    "captions": "list<string>",
    "row": "int64",
    "style_images": "list<string>",
    "style_weights": "list<double>",
    "mask_id": "string",
    "objects": "objects",
    "transform": "transform",
}
"""Columns about inputs, in runs that need them (`Plan.input_columns`); they stand before `width`.

`split`: where a run makes some. `captions`: all of the image, where each sample draws one. `row`: its number in a list of
pairs that is not rendered in its order. `style_images`, `style_weights`: what a style is made of, itself with weight 1 where it
is no blend. `mask_id`: the mask's path relative to the content's folder, "" for none. `objects`, `transform`: what is annotated in
the rendered picture, and how it came there (`label_columns.py`).
"""
IS_ORIGINAL = "is_original"
"""Column of an export with contents as samples."""
TRIED = {"attempt": "int32", "rejections": "string"}
"""Columns of runs whose gates try samples again: which attempt at the sample this is, from 1, and why those before it were rejected."""
SEGMENTATION = "segmentation.png"
"""Member with the label image of a sample."""


def schema_of_plan(plan: Plan) -> pa.Schema:
    """Columns of the records of a plan."""
    carried = {one.column: "string" if one.kind == JSON else one.kind for one in plan.carried}
    found = schema_of(plan.options, plan.input_columns, blends=plan.has_blends, carried=carried)
    asked = {one.column: "double" for one in asked_of(plan)}
    gates = plan.spec.gates
    tried = TRIED if gates is not None and gates.retry else {}
    added = asked | tried
    return pa.schema([*found, *(pa.field(name, TYPES[kind]) for name, kind in added.items())])


def asked_of(plan: Plan) -> list[Measure]:
    """The measures by a network that the manifest asks for."""
    return [] if plan.spec.quality is None else asked_columns(plan.spec.quality.measures)


def schema_of(
    options: MethodOptions,
    inputs: Sequence[str] = (),
    *,
    blends: bool = False,
    carried: Mapping[str, str] = NOTHING,
) -> pa.Schema:
    """Columns of `metadata/*.parquet`: what a sample was made from, the method's options, sizes, state, quality.

    `inputs`: further columns (see `INPUT_COLUMNS`; those of PADDING stand behind the sizes); `carried`: types of those that the
    inputs brought. Quality columns are null in failed rows, nothing else ever is but options and seeds of originals in exports.
    """
    columns = {
        "key": "string",
        "shard": "int32",
        **dict.fromkeys(axis_columns(options), "string"),
        **dict.fromkeys(("label", "caption", "method", "model"), "string"),
        "seed": "int64",
        **options.record_types(blends=blends),
        **{name: INPUT_COLUMNS[name] for name in inputs if name in INPUT_COLUMNS},
        **dict.fromkeys(("width", "height"), "int32"),
        **dict.fromkeys(original_columns(options), "int32"),
        **dict.fromkeys((name for name in inputs if name in PADDING), "int32"),
        **carried,
        **dict.fromkeys(("status", "error_code", "error_message", "sha256"), "string"),
        **{measure.column: "double" for measure in measures_of(input_names(options))},
    }
    if TEXT in columns:
        columns["prompt_truncated"] = "bool"
    types = TYPES | {"objects": objects_type(inputs)}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def axis_columns(options: MethodOptions) -> tuple[str, ...]:
    """Columns that say where on the axes a sample stands."""
    kinds = [kind.column for kind in options.input_kinds()]
    if TEXT not in options.axes():
        return tuple(kinds)
    if REFERENCE.column in kinds:
        kinds.insert(kinds.index(REFERENCE.column), SET)
    return ("id", TEXT, "negative_prompt", "prompt_truncated", *kinds)


def original_columns(options: MethodOptions) -> tuple[str, ...]:
    """Columns of the size that a sample's first picture had, where there is one that keeps its structure."""
    has_image = any(kind.name in ("content", "image") for kind in options.input_kinds())
    return ("original_width", "original_height") if has_image else ()


def input_names(options: MethodOptions) -> tuple[str, ...]:
    """Names of the kinds of pictures that samples of this method are made from."""
    return tuple(kind.name for kind in options.input_kinds())


def option_columns(names: Sequence[str]) -> list[str]:
    """Columns of the method's options, among those of records in their order."""
    behind = {"width", *INPUT_COLUMNS}
    return list(takewhile(lambda name: name not in behind, names[names.index("seed") + 1 :]))


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


def as_json(row: dict[str, Any], schema: pa.Schema) -> bytes:
    """The JSON member of a sample: the same keys and types in every record, floats always floats."""
    record = {name: row[name] for name in json_columns(schema)}
    for name, value in record.items():
        if pa.types.is_floating(schema.field(name).type):
            # 1 and 1.5 would be two types to a loader that infers them
            record[name] = None if value is None else float(value)
    # NaN is no JSON: a loader would fail on it long after the run
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()


def as_parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as a Parquet file; the same bytes for the same rows and library version."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
