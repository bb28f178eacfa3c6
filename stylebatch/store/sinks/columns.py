"""Columns of a sample where pictures stand beside its record, and the features that `datasets` knows them by."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.store.label_columns import CLASSES
from stylebatch.store.records import json_columns

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores an image."""
RESULT = "image"
_DTYPES = {
    pa.string(): "string",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float64(): "float64",
    pa.bool_(): "bool",
}


@dataclass(frozen=True)
class Shape:
    """What every sample of an output has.

    `image`: format of the rendered one; `inputs`: members that hold input pictures, of samples or, where they are `shared`, of
    shards. `split`: the first of those that the output has.
    """

    image: str
    schema: pa.Schema
    inputs: tuple[str, ...]
    has_captions: bool
    labels: tuple[str, ...]
    shared: bool = False
    split: str = "train"

    @property
    def beside(self) -> tuple[str, ...]:
        """Members that hold input pictures, or a label image, beside each result."""
        elsewhere = {kind.member for kind in INPUT_KINDS} if self.shared else set[str]()
        return tuple(member for member in self.inputs if member not in elsewhere)


def shared_words(shape: Shape, fields: str) -> list[tuple[list[str], str]]:
    """What a card says of inputs that samples name and do not hold."""
    columns = [f"`{kind.column}`" for kind in INPUT_KINDS if kind.member in shape.inputs]
    if not shape.shared or not columns:
        return []
    what = f"the inputs as fitted, each once in a shard, which {', '.join(columns)} name; of each {fields}"
    return [(["input_images/"], what)]


class Column(NamedTuple):
    """`source`: the record's column, or the member of a picture."""

    name: str
    source: str
    kind: Literal["record", "picture", "class"]
    type: pa.DataType


def picture_name(member: str) -> str:
    """Name of an input's pictures: `content` of `content.jpg`; `input_image` where it would be that of the result."""
    stem = member.partition(".")[0]
    return f"input_{stem}" if stem == RESULT else stem


def columns_of(
    schema: pa.Schema, image: str, inputs: Iterable[str], *, has_classes: bool
) -> list[Column]:
    """The rendered image, the record, the inputs. A record's column with the name of a picture gets `_id` at its end."""
    pictures = [Column(picture_name(member), member, "picture", PICTURE) for member in inputs]
    taken = {RESULT, *(picture.name for picture in pictures), *schema.names}
    records = []
    for name in json_columns(schema):
        shown = name
        if name == RESULT or any(picture.name == name for picture in pictures):
            shown = f"{name}_id"
            while shown in taken:
                shown += "_"
            taken.add(shown)
        if name == "label" and has_classes:
            records.append(Column(shown, name, "class", pa.int64()))
        else:
            records.append(Column(shown, name, "record", schema.field(name).type))
    return [Column(RESULT, image, "picture", PICTURE), *records, *pictures]


def dtype(kind: pa.DataType) -> str:
    """What `datasets` calls a type."""
    return _DTYPES[kind]


def card_features(columns: Iterable[Column], labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Features as a dataset card lists them."""
    return [_card_feature(column, labels) for column in columns]


def _card_feature(column: Column, labels: tuple[str, ...]) -> dict[str, Any]:
    if column.kind == "picture":
        return {"name": column.name, "dtype": "image"}
    if column.kind == "class":
        return {"name": column.name, "dtype": class_label(labels)}
    return value_feature(column.name, column.type, labels)


def value_feature(name: str, kind: pa.DataType, labels: tuple[str, ...] = ()) -> dict[str, Any]:
    """A number, a text, or lists and structs of these on a card; `labels`: names of class numbers among them."""
    return {"name": name, **_on_card(kind, name in CLASSES and bool(labels), labels)}


def _on_card(kind: pa.DataType, is_class: bool, labels: tuple[str, ...]) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"struct": [value_feature(field.name, field.type, labels) for field in kind]}
    if pa.types.is_list(kind):
        inner = _on_card(kind.value_type, is_class, labels)
        # as `datasets` writes a card: `list: int64`
        return {"list": inner["dtype"] if list(inner) == ["dtype"] else inner}
    return {"dtype": class_label(labels) if is_class else dtype(kind)}


def class_label(labels: tuple[str, ...]) -> dict[str, Any]:
    """The type of a class number on a card."""
    return {"class_label": {"names": {str(index): name for index, name in enumerate(labels)}}}


def arrow_schema(columns: Iterable[Column], labels: tuple[str, ...]) -> pa.Schema:
    """Arrow types, with the features in the metadata where `datasets` looks for them."""
    columns = list(columns)
    features = {column.name: _stored_feature(column, tuple(labels)) for column in columns}
    told = json.dumps({"info": {"features": features}}, ensure_ascii=False)
    fields = [pa.field(column.name, column.type) for column in columns]
    return pa.schema(fields, metadata={"huggingface": told})


def _stored_feature(column: Column, labels: tuple[str, ...]) -> dict[str, Any]:
    if column.kind == "picture":
        return {"_type": "Image"}
    return _stored(column.type, column.kind == "class", labels)


def _stored(kind: pa.DataType, is_class: bool, labels: tuple[str, ...]) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {
            field.name: _stored(field.type, field.name in CLASSES and bool(labels), labels)
            for field in kind
        }
    if pa.types.is_list(kind):
        return {"feature": _stored(kind.value_type, is_class, labels), "_type": "List"}
    if is_class:
        return {"names": list(labels), "_type": "ClassLabel"}
    return {"dtype": dtype(kind), "_type": "Value"}
