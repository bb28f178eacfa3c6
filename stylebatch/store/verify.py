"""Proves that an output directory holds what its plan promised: every shard, every sample, every byte.

Of each planned shard, from the commit marker down:
1. the stats file is there, whole, and of this plan;
2. the metadata Parquet has the recorded sha256;
3. the payload has the recorded size and sha256;
4. its samples are those that the metadata calls successful, in order, each image with its sha256.
Then, that loaders find nothing beside. One pass over each payload; memory for one shard's rows. While a run writes the
output, what it has yet to commit is no problem, nor is a shard that it commits anew meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import ManifestError, UnansweredError
from stylebatch.folder import Folder, Place
from stylebatch.store.ledger import DERIVED, OF_SHARDS, Ledger, is_leftover
from stylebatch.store.measured_columns import commits
from stylebatch.store.names import MOST_METADATA_BYTES, STATS, marker, metadata_file
from stylebatch.store.output_record import (
    Generation,
    RunRecord,
    ShardStats,
    read_run,
    read_stats,
)
from stylebatch.store.sinks import sink_of
from stylebatch.store.sinks.aside import aside_file
from stylebatch.store.sinks.whole_files import file_faults
from stylebatch.words import counted


@dataclass(frozen=True)
class Problem:
    """One thing that is not as promised. `shard`: its number, or None where no shard is concerned.

    `num_shards`: more than one where this shard and those that follow were never committed.
    """

    shard: int | None
    path: str
    text: str
    num_shards: int = 1

    def line(self) -> str:
        return f"{self.path}: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(output: Place, *, is_live: bool = False) -> Iterator[Problem]:
    """Everything wrong with `output`, shard by shard; `is_live`: a run is writing it.

    Raises ManifestError where there is no run, or its run.json is damaged.
    """
    output = Folder.at(output)
    run, ledger = read_run(output), Ledger(output)
    numbers = map(run.number_of, ledger.shards_with(STATS))
    marked = sorted(number for number in numbers if number is not None)
    is_whole = True
    for problem in _of_shards(ledger, run, marked, is_live=is_live):
        is_whole = False
        yield problem
    yield from _strangers_in_metadata(output, run, is_live=is_live)
    yield from _strangers(ledger, run, is_live=is_live)
    if is_whole and not is_live:
        yield from _unfinished(ledger, run)


def _of_shards(
    ledger: Ledger, run: RunRecord, marked: list[int], *, is_live: bool
) -> Iterator[Problem]:
    """Problems of all shards, by number; `marked`: those with a marker."""
    for part in run.parts:
        following = part.first_shard
        for number in [n for n in marked if n in part.shards]:
            if not is_live:
                yield from _never_committed(ledger, part, range(following, number))
            following = number + 1
            yield from _of_shard(ledger, part, number, is_live=is_live)
        if not is_live:
            yield from _never_committed(ledger, part, range(following, part.shards.stop))


def _never_committed(ledger: Ledger, part: Generation, missing: range) -> Iterator[Problem]:
    """Shards in a row without markers, as one problem."""
    if missing:
        text = "missing: the shard was never committed"
        if len(missing) > 1:
            last = part.shard_name(missing[-1])
            text = f"missing, and those up to {last}: {len(missing):,} shards were never committed"
        path = ledger.output.where(marker(part.shard_name(missing[0])))
        yield Problem(missing[0], path, text, len(missing))


def _of_shard(ledger: Ledger, part: Generation, number: int, *, is_live: bool) -> Iterator[Problem]:
    """Problems of a shard with a marker."""
    name = part.shard_name(number)
    try:
        stats = read_stats(ledger.output, marker(name))
    except ManifestError as error:
        path = ledger.output.where(marker(name))
        yield Problem(number, path, str(error).removeprefix(f"{path}: "))
        return
    if stats is None:
        if not is_live:
            yield from _never_committed(ledger, part, range(number, number + 1))
        return
    # taken back by the run that writes now, and about to be rendered again
    if is_live and stats.revoked:
        return
    found = list(_shard_problems(ledger.output, name, part.digest, stats))
    # committed anew while it was read: what was found is of two shards
    if found and is_live and ledger.recorded(name) != stats:
        return
    yield from (Problem(number, ledger.output.where(file), text) for file, text in found)


def _shard_problems(
    output: Folder, name: str, digest: str, stats: ShardStats
) -> Iterator[tuple[str, str]]:
    metadata, sink = metadata_file(name), sink_of(stats.format)
    if stats.plan_digest != digest:
        yield marker(name), f"of another plan ({stats.plan_digest[:16]}, not {digest[:16]})"
        return
    if stats.revoked:
        yield marker(name), "the commit was taken back, the shard is to be rendered again"
        return
    rows = _rows(output, metadata, stats)
    if isinstance(rows, str):
        yield metadata, rows
        return
    success = [row for row in rows if row["status"] == "success"]
    yield from sink.problems(output, name, success, stats)
    if stats.rejected_sha256:
        yield from file_faults(output, aside_file(name), stats.rejected_sha256)


def _rows(output: Folder, metadata: str, stats: ShardStats) -> list[dict[str, Any]] | str:
    """Rows of a metadata file, or what is wrong with it."""
    try:
        data = output.read(metadata, MOST_METADATA_BYTES)
    except UnansweredError:
        raise
    except OSError as error:
        return str(error.strerror or error)
    if not commits(stats, data):
        return "its bytes changed since the commit (sha256)"
    texts = [pa.field(name, pa.string()) for name in ("key", "status", "sha256")]
    schema = pa.schema([*texts, *sink_of(stats.format).columns])
    try:
        table = pq.read_table(pa.BufferReader(data), columns=schema.names)
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"cannot be read: {error}"
    if [(f.name, f.type) for f in table.schema] != [(f.name, f.type) for f in schema]:
        return f"found the columns {table.schema.names}; accepted: {', '.join(schema.names)}, each of its type"
    if len(table) != stats.num_samples:
        return f"holds {counted(len(table), 'row')}, {stats.num_samples:,} were committed"
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


LEFT = "left by a writer that was killed; the next run removes it"
STRANGE = "no shard of this plan owns it; remove it, loaders read it"


def _strangers_in_metadata(output: Folder, run: RunRecord, *, is_live: bool) -> Iterator[Problem]:
    """Records that no shard owns; what killed writers left."""
    for file in output.names("metadata/"):
        name = file.rpartition("/")[2]
        if is_leftover(run, file):
            if not is_live:
                yield Problem(None, output.where(file), LEFT)
        elif name not in DERIVED["metadata"] and not any(
            name.endswith(ending) and run.names_shard(name.removesuffix(ending))
            for ending in OF_SHARDS
        ):
            yield Problem(None, output.where(file), STRANGE)


def _strangers(ledger: Ledger, run: RunRecord, *, is_live: bool) -> Iterator[Problem]:
    """Files that no shard owns, where loaders look; what killed writers left. A sound shard owns as many as it tells."""
    output, sink = ledger.output, sink_of(run.output_format)
    found: Counter[str] = Counter()
    for file in sink.walk(output):
        owner = sink.owner(run, file)
        if is_leftover(run, file):
            if not is_live:
                yield Problem(None, output.where(file), LEFT)
        elif owner is not None:
            found[owner] += 1
        elif not sink.is_derived(file):
            yield Problem(None, output.where(file), STRANGE)
    crowded = set()
    for name, count in found.items():
        stats = ledger.recorded(name) if count > 1 or not sink.is_one_file else None
        if stats is not None and not stats.revoked and count > stats.num_files:
            crowded.add(name)
    owned = {file for name in crowded for file in sink.files(output, name)}
    for file in sink.walk(output) if crowded else ():
        if sink.owner(run, file) in crowded and file not in owned:
            yield Problem(None, output.where(file), STRANGE)


def _unfinished(ledger: Ledger, run: RunRecord) -> Iterator[Problem]:
    """What is wrong with files that are derived from all shards."""
    names = (part.shard_name(number) for part in run.parts for number in part.shards)
    for file, text in ledger.unfinished(run, names):
        yield Problem(None, ledger.output.where(file), f"{text}; `stylebatch repair` writes it")


def num_damaged(problems: Iterable[Problem]) -> int:
    """How many shards are damaged or missing."""
    # a problem of a whole range of shards names its first; a shard with two problems counts once
    return sum({p.shard: p.num_shards for p in problems if p.shard is not None}.values())


def as_json(problems: list[Problem]) -> str:
    """The problems as a JSON array."""
    return json.dumps([problem.as_dict() for problem in problems], indent=1)
