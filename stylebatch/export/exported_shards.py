"""Writes the shards of an export: stretches of the selection, copied sample by sample from shards that are sound."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa

from stylebatch.data.image_section import ImageFormat
from stylebatch.errors import ManifestError
from stylebatch.export.export_options import MOST_SHARD_SIZE
from stylebatch.export.originals import original
from stylebatch.export.rendered import Rendered
from stylebatch.export.selection import Selection
from stylebatch.folder import Folder
from stylebatch.planning.shard_cuts import USUAL_WORKERS
from stylebatch.spec.output import OutputFormat
from stylebatch.store.output_record import Generation
from stylebatch.store.records import IS_ORIGINAL, Record
from stylebatch.store.sinks import sink_of
from stylebatch.store.sinks.columns import Shape
from stylebatch.store.sinks.sink import Members, Row

SOURCE_KEY, SOURCE = "source_key", "source"
"""Columns of an export: a sample's key before, and of joined outputs the name of the one it is from."""


class Stretch(NamedTuple):
    """Samples of one split from `first` on, in shards of `size` from `first_shard` on."""

    split: str
    first: int
    num_samples: int
    size: int
    first_shard: int

    @property
    def num_shards(self) -> int:
        return -(-self.num_samples // self.size)


@dataclass(frozen=True)
class Exported:
    """What is written: the outputs, what is taken of them, and how a sample looks.

    `names`: of the outputs; the records tell them where there are several. `shard_size`: None for up to 256 in four shards at
    least, of each split.
    """

    given: Sequence[Rendered]
    names: Sequence[str]
    selection: Selection
    format: OutputFormat
    shard_size: int | None
    labels: tuple[str, ...]
    has_originals: bool

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the records: those of the outputs, and behind `shard` those that an export adds."""
        fields = list(self.given[0].schema)
        added = {SOURCE_KEY: pa.string()}
        if len(self.given) > 1:
            added[SOURCE] = pa.string()
        if self.has_originals:
            added[IS_ORIGINAL] = pa.bool_()
        there = {field.name: field.type for field in fields}
        for name, kind in added.items():
            if there.get(name, kind) != kind:
                raise ManifestError(
                    f"{self.given[0].folder}: found a column {name} of type {there[name]}; accepted: {kind}, as an export writes it"
                )
        new = [pa.field(name, kind) for name, kind in added.items() if name not in there]
        place = self.given[0].schema.get_field_index("shard") + 1
        return pa.schema([*fields[:place], *new, *fields[place:]])

    @property
    def shape(self) -> Shape:
        first = self.given[0]
        return Shape(
            first.image,
            self.schema,
            first.inputs,
            self.selection.has_captions,
            self.labels,
            shared=self.shares_inputs,
            split=self.stretches[0].split,
        )

    @property
    def shares_inputs(self) -> bool:
        """Whether each input is stored once in a shard, as in the output."""
        # an input is known by its id there: two outputs may give one id to two pictures, originals have none of a style
        return len(self.given) == 1 and not self.has_originals and self.given[0].shares_inputs

    @cached_property
    def stretches(self) -> list[Stretch]:
        """The shards of each split, in order."""
        found: list[Stretch] = []
        first = shard = 0
        for split, count in self.selection.splits.items():
            size = self.shard_size or min(MOST_SHARD_SIZE, -(-count // USUAL_WORKERS))
            found.append(Stretch(split, first, count, size, shard))
            first, shard = first + count, shard + found[-1].num_shards
        return found

    @property
    def num_shards(self) -> int:
        return self.stretches[-1].first_shard + self.stretches[-1].num_shards

    def places(self, number: int) -> slice:
        """Where the samples of a shard stand in the selection."""
        one = next(one for one in reversed(self.stretches) if one.first_shard <= number)
        first = one.first + (number - one.first_shard) * one.size
        return slice(first, min(first + one.size, one.first + one.num_samples))

    def write(self, output: Folder, part: Generation, number: int) -> dict[str, Any]:
        """Write and commit a shard; returns its stats."""
        started, name = time.monotonic(), part.shard_name(number)
        with sink_of(self.format)(
            output, name, self.schema, labels=self.labels, shares_inputs=self.shares_inputs
        ) as sink:
            for place, (row, members) in enumerate(self._samples(number)):
                key = f"{number:0{part.digits}d}{place:04d}"
                sink.write(self._record(row | {"key": key, "shard": number}, members))
            return sink.commit(
                {
                    "shard": number,
                    "plan_digest": part.digest,
                    "seconds": round(time.monotonic() - started, 3),
                    "evaluations": 0,
                }
            )

    def _samples(self, number: int) -> Iterator[tuple[Row, Members]]:
        """Row and pictures of each sample of a shard."""
        part = self.selection.part(self.places(number))
        entries = zip(
            part.output.tolist(),
            part.shard.tolist(),
            part.row.tolist(),
            part.is_original.tolist(),
            strict=True,
        )
        for (output, shard), group in groupby(entries, lambda entry: entry[:2]):
            asked: dict[int, list[bool]] = {}
            for *_, row, is_original in group:
                asked.setdefault(row, []).append(is_original)
            yield from self._of_shard(output, shard, asked)

    def _of_shard(
        self, output: int, shard: int, asked: dict[int, list[bool]]
    ) -> Iterator[tuple[Row, Members]]:
        """Samples of one shard of an output; `asked`: of each row, whether the sample or its content is meant."""
        source = self.given[output]
        found = source.shards[shard]
        # a damaged shard must not be copied under a new checksum, which would call it sound
        source.require_sound(found)
        rows = source.rows(found).take(pa.array(list(asked))).to_pylist()
        wanted = {row["key"]: places for row, places in zip(rows, asked.values(), strict=True)}
        by_key = {row["key"]: row for row in rows}
        image = ImageFormat(format=source.image)  # type: ignore[arg-type]
        for key, members in source.samples(found, by_key):
            pictures = {name: members[name] for name in (source.image, *source.inputs)}
            # in the order of the first: joined outputs may have their columns in another
            row = {name: by_key[key][name] for name in self.given[0].schema.names}
            told = row | self._added(key, output) | self._objects(row)
            for is_original in wanted[key]:
                yield original(told, pictures, image) if is_original else (told, pictures)

    def _added(self, key: str, output: int) -> Row:
        """Values of the columns that an export adds; they take the place of those of an earlier export."""
        added: Row = {SOURCE_KEY: key}
        if len(self.given) > 1:
            added[SOURCE] = self.names[output]
        if self.has_originals:
            added[IS_ORIGINAL] = False
        return added

    @cached_property
    def class_numbers(self) -> dict[str, int]:
        """Numbers of the classes by name."""
        return {name: number for number, name in enumerate(self.labels)}

    def _objects(self, row: Row) -> Row:
        """The annotated objects with the numbers that their classes have here, which are others where outputs are joined."""
        if "objects" not in row:
            return {}
        named = row["objects"]["category"]
        numbers = [self.class_numbers.get(name, -1) for name in named]
        return {"objects": row["objects"] | {"category_id": numbers}}

    def _record(self, row: Row, members: Members) -> Record:
        files = dict(members)
        if self.selection.has_captions:
            files["txt"] = row["caption"].encode()
        if self.labels:
            number = self.class_numbers[row["label"]] if row["label"] else -1
            files["cls"] = str(number).encode()
        return Record(row, files)
