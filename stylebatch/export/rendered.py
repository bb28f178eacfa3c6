"""An output that is to be exported: its record, its committed shards, and what each of its samples has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.errors import DamagedError, ManifestError, OutputLockedError
from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import kinds_of
from stylebatch.reports.committed import (
    Committed,
    CommittedShard,
    NothingCommittedError,
    damaged,
    read_samples,
)
from stylebatch.store.lock_owner import activity
from stylebatch.store.names import metadata_file
from stylebatch.store.output_record import RunRecord
from stylebatch.store.sinks import sink_of
from stylebatch.store.sinks.sink import RECORD_FILES, Members, Row


@dataclass(frozen=True)
class Rendered:
    """`image`: the ending of the results; `inputs`: members that hold pictures of inputs, in the order of a shard."""

    committed: Committed
    schema: pa.Schema
    image: str
    inputs: tuple[str, ...]

    @classmethod
    def at(cls, folder: Folder) -> Rendered:
        """The output in `folder`.

        Raises ManifestError where none is, or it has no sample yet, OutputLockedError while a run writes it.
        """
        committed = Committed(folder)
        lock = activity(folder, committed.run)
        if lock is not None and lock.is_live:
            raise OutputLockedError(
                f"{folder} cannot be exported: {lock.text}. Next: wait for it or stop it, and export then"
            )
        first = next((s for s in committed.shards if s.stats.num_success), None)
        if first is None:
            raise NothingCommittedError(
                f"{folder}: found no committed sample; accepted: an output with one at least. Next: start or resume its run"
            )
        table = _rows(committed, first)
        row = table.slice(table["status"].to_pylist().index("success"), 1).to_pylist()[0]
        wanted = {first.name: {row["key"]: row}}
        members = next((found for _, found in read_samples(folder, wanted)), None)
        if members is None:
            raise _lost(folder, first, row["key"])
        beside = {field.name for field in sink_of(committed.run.output_format).columns}
        schema = pa.schema([field for field in table.schema if field.name not in beside])
        image, inputs = _pictures(members, schema)
        return cls(committed, schema.remove_metadata(), image, inputs)

    @property
    def folder(self) -> Folder:
        return self.committed.output

    @property
    def run(self) -> RunRecord:
        return self.committed.run

    @property
    def shards(self) -> Sequence[CommittedShard]:
        return self.committed.shards

    @property
    def shares_inputs(self) -> bool:
        """Whether a shard has each input once, not beside every sample."""
        output = self.run.identity.get("output")
        return isinstance(output, dict) and output.get("inputs") == "reference"

    def rows(self, shard: CommittedShard) -> pa.Table:
        """Records of a shard. Raises DamagedError where its files are not those of its commit."""
        return _rows(self.committed, shard)

    def samples(
        self, shard: CommittedShard, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        """Key and files of samples, in key order; `rows`: of the metadata by key. Raises DamagedError where one is missing."""
        left = dict.fromkeys(rows)
        for key, members in read_samples(self.folder, {shard.name: rows}):
            yield key, members
            left.pop(key, None)
        if left:
            raise _lost(self.folder, shard, next(iter(left)))

    def require_sound(self, shard: CommittedShard) -> None:
        """Raise DamagedError where the shard's payload is not what was committed; it is read once in a process."""
        if shard.name in self._sound:
            return
        rows = self.rows(shard)
        success = rows.filter(pc.equal(rows["status"], "success"))
        sink = sink_of(self.run.output_format)
        for file, text in sink.problems(self.folder, shard.name, success.to_pylist(), shard.stats):
            raise damaged(self.folder, file, text)
        self._sound.add(shard.name)

    @cached_property
    def _sound(self) -> set[str]:
        return set()

    @cached_property
    def digest(self) -> str:
        """Of all records and payloads that are committed: another one where a single byte of them differs."""
        digest = hashlib.sha256(self.run.digest.encode())
        for shard in self.shards:
            stats = shard.stats
            digest.update(f"{shard.name} {stats.metadata_sha256} {stats.sha256}\n".encode())
        return digest.hexdigest()


def require_alike(given: Sequence[Rendered]) -> None:
    """Raise ManifestError where outputs that are to be joined differ in columns or pictures."""
    first = given[0]
    for other in given[1:]:
        ours, theirs = (
            dict(zip(one.schema.names, one.schema.types, strict=True)) for one in (first, other)
        )
        lines = [
            f"column {name}: {ours.get(name, 'missing')} and {theirs.get(name, 'missing')}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]
        if first.image != other.image:
            lines.append(f"pictures: {first.image} and {other.image}")
        if first.inputs != other.inputs:
            lines.append(
                f"inputs: {', '.join(first.inputs) or 'none'} and {', '.join(other.inputs) or 'none'}"
            )
        if lines:
            raise ManifestError(
                f"{first.folder} and {other.folder} cannot be joined: {'; '.join(lines)}; accepted: outputs of the same columns and "
                "pictures"
            )


def _lost(folder: Folder, shard: CommittedShard, key: str) -> DamagedError:
    return damaged(folder, metadata_file(shard.name), f"found no files of sample {key}")


def _rows(committed: Committed, shard: CommittedShard) -> pa.Table:
    table = committed.table(shard)
    if table is None:
        raise damaged(
            committed.output, metadata_file(shard.name), "its files are not those of its commit"
        )
    return table


def _pictures(members: Members, schema: pa.Schema) -> tuple[str, tuple[str, ...]]:
    """Ending of the result, and members of the inputs as the method has them in order."""
    pictures = [name for name in members if name not in (*RECORD_FILES, "json")]
    image = next(name for name in pictures if "." not in name)
    order = [kind.member for kind in kinds_of(schema.names)]
    others = [name for name in pictures if name not in (image, *order)]
    return image, tuple([*(name for name in order if name in pictures), *others])
