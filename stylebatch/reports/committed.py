"""Reads the committed shards of an output for reports: every marker and every metadata file once, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylebatch.errors import DamagedError, ManifestError, UnansweredError
from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import INPUT_KINDS, TEXT
from stylebatch.quality.asked import TABLE
from stylebatch.store.brief_stats import brief
from stylebatch.store.ledger import Ledger
from stylebatch.store.measured_columns import columns_of_measured, with_columns
from stylebatch.store.names import STATS, metadata_file
from stylebatch.store.output_record import ShardStats, read_run
from stylebatch.store.sinks import sink_of

Row = dict[str, Any]
"""A row of metadata; its `shard` is the stem of the shard's files, such as train-00000."""

REQUIRED = ("key", "label", "caption", "method", "status", "error_code", "error_message")
"""Columns of every record that reports read."""
INPUTS = tuple(axis.column for axis in INPUT_KINDS)
RESULT_FORMATS = ("jpg", "png", "webp", "avif")


class NothingCommittedError(ManifestError):
    """There is a run, and no shard to report on."""


@dataclass(frozen=True)
class CommittedShard:
    """A shard that its marker says is committed. `place`, `place_of_success`: samples, successes in the shards before it."""

    name: str
    stats: ShardStats
    place: int
    place_of_success: int


@dataclass(frozen=True)
class ShardRows:
    """A committed shard with its rows, in key order."""

    shard: CommittedShard
    table: pa.Table

    def rows(self, places: Iterable[int]) -> list[Row]:
        """The rows at these places of the table."""
        # typed: an empty list would be an array of nulls
        chosen = self.table.take(pa.array(list(places), pa.int64())).to_pylist()
        return [row | {"shard": self.shard.name} for row in chosen]

    def places(self, succeeded: bool) -> list[int]:
        """Places of the rows that succeeded, or of those that failed."""
        found = pc.equal(self.table["status"], "success")
        places: list[int] = pc.indices_nonzero(found if succeeded else pc.invert(found)).to_pylist()
        return places


class Committed:
    """The committed shards of an output's plan, by name, as their markers say.

    `stats`: what they say, where they were read already. Raises ManifestError when there is no run.
    """

    def __init__(self, output: Folder, stats: Mapping[str, ShardStats] | None = None) -> None:
        self.output, self.run, self.ledger = output, read_run(output), Ledger(output)
        self._stats = stats
        self.shards = list(self._marked())

    def _marked(self) -> Iterator[CommittedShard]:
        digests = {part.digest for part in self.run.parts}
        place = place_of_success = 0
        names = self.ledger.shards_with(STATS) if self._stats is None else self._stats
        numbers = {name: self.run.number_of(name) for name in names}
        ours = {name: number for name, number in numbers.items() if number is not None}
        # by number: as texts, validation-00004 would come after train-00005
        for name in sorted(ours, key=ours.__getitem__):
            stats = self._recorded(name, place_of_success)
            if stats is not None and stats.plan_digest in digests and not stats.revoked:
                yield CommittedShard(name, stats, place, place_of_success)
                place += stats.num_samples
                place_of_success += stats.num_success

    def _recorded(self, name: str, before: int) -> ShardStats | None:
        if self._stats is not None:
            return self._stats.get(name)
        found = self.ledger.recorded(name)
        return None if found is None else brief(found, before=before)

    @property
    def num_samples(self) -> int:
        return sum(shard.stats.num_samples for shard in self.shards)

    @property
    def num_success(self) -> int:
        return sum(shard.stats.num_success for shard in self.shards)

    def read(self) -> Iterator[ShardRows]:
        """Rows of each shard whose files are those of its commit; others do not count.

        Raises NothingCommittedError when there is no such shard, DamagedError for rows that no run writes.
        """
        schema: pa.Schema | None = None
        for shard in self.shards:
            table = self.table(shard)
            if table is None:
                continue
            # errors.parquet takes the rows of all shards, so they must agree
            if schema is not None and table.schema != schema:
                path = metadata_file(shard.name)
                raise damaged(self.output, path, "found other columns than in the first shard")
            schema = table.schema
            yield ShardRows(shard, table)
        if schema is None:
            raise NothingCommittedError(
                f"{self.output.where('metadata')}: no committed shard of this plan (stats, metadata and tar); start or resume the run, "
                "then report again"
            )

    def table(self, shard: CommittedShard) -> pa.Table | None:
        """Rows of one shard, None where its files are not those of its commit. Raises DamagedError for rows that no run writes."""
        data = self.ledger.metadata(shard.name, shard.stats)
        if data is None:
            return None
        found = read_rows(self.output, metadata_file(shard.name), data)
        return with_columns(found, columns_of_measured(self.run.measured))


def read_rows(output: Folder, path: str, data: bytes) -> pa.Table:
    """A shard's metadata, with the types that it is written with. Raises DamagedError for others."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(output, path, str(error)) from None
    for column in REQUIRED:
        # Parquet allows a name twice, and Arrow raises only where it is used
        if table.column_names.count(column) != 1:
            raise damaged(output, path, f"found no column {column}")
    texts = dict.fromkeys((*REQUIRED, *INPUTS, TEXT), pa.string())
    types = texts | {measure.column: pa.float64() for measure in TABLE}
    for field in table.schema:
        accepted = types.get(field.name, field.type)
        if field.type != accepted:
            raise damaged(output, path, f"{field.name}: found {field.type}; accepted: {accepted}")
        if field.name in texts and table[field.name].null_count:
            raise damaged(
                output, path, f"{field.name}: found nothing; accepted: a text in every row"
            )
    return table


def damaged(output: Folder, name: str, reason: str) -> DamagedError:
    """What is said of a file of a committed shard that cannot be used."""
    return DamagedError(
        f"{output.where(name)}: is damaged: {reason}. Next: `stylebatch repair {output}` renders its shard again"
    )


def read_samples(
    output: Folder, wanted: Mapping[str, Mapping[str, Row]]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (`jpg`, `content.jpg`, ...) of the samples that are wanted: rows of the metadata by shard and key."""
    sink = sink_of(read_run(output).output_format)
    for name, rows in wanted.items():
        try:
            yield from sink.samples(output, name, rows)
        except UnansweredError:
            raise
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error)
            raise damaged(output, sink.payload(name), reason) from None


def result_member(members: Mapping[str, bytes]) -> bytes:
    """The rendered image among the members of a sample."""
    found = [members[extension] for extension in RESULT_FORMATS if extension in members]
    if not found:
        raise ValueError(f"found no picture among {', '.join(members)}")
    return found[0]
