"""Inputs that many samples of a shard are made from, each stored once: `input_images/train-00000.tar` beside `data/train-00000.tar`.

The file is of the shard's own format, and a sample of it is an input: its `kind` and `id` are what the records of the shard's
samples have, such as `style` and the `style_id`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import pyarrow as pa

from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.store.records import Record
from stylebatch.store.sinks.sink import Members, Row

INPUT_FOLDER = "input_images"
INPUT_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "kind", "id", "sha256")])
MEMBERS = {kind.member: kind for kind in INPUT_KINDS}
Named = tuple[str, str]
"""Kind and id."""


def divided(record: Record, known: set[tuple[str, str, str]]) -> tuple[Record, list[Record]]:
    """The sample without its inputs, and those of them that are not `known` yet, which they are from now on.

    An input's key is that of the first sample that is made from it and its kind, so that no two are alike.
    """
    own = {name: data for name, data in record.files.items() if name not in MEMBERS}
    new = []
    for member, data in record.files.items():
        kind = MEMBERS.get(member)
        if kind is None:
            continue
        sha256 = hashlib.sha256(data).hexdigest()
        facts = (kind.name, str(record.row[kind.column]), sha256)
        if facts in known:
            continue
        known.add(facts)
        key = f"{record.row['key']}-{kind.name}"
        row = {"key": key, "kind": kind.name, "id": facts[1], "sha256": sha256}
        new.append(Record(row, {member.rpartition(".")[2]: data}))
    return Record(record.row, own), new


def names_of(row: Row) -> list[Named]:
    """The inputs of a sample, by its record."""
    return [(kind.name, str(row[kind.column])) for kind in INPUT_KINDS if kind.column in row]


def joined(
    samples: Iterator[tuple[str, Members]],
    named: Mapping[str, list[Named]],
    inputs: Mapping[Named, bytes],
) -> Iterator[tuple[str, Members]]:
    """Samples with their inputs, as those have them that hold their own."""
    members = {kind.name: kind.member for kind in INPUT_KINDS}
    for key, found in samples:
        yield key, found | {members[n[0]]: inputs[n] for n in named.get(key, ()) if n in inputs}
