"""Adds up the commit markers of an output: each is read once, and again where it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.local_files import Facts
from stylebatch.planning.shard_names import parsed_name
from stylebatch.store.counted_reasons import counted_reasons, rules_of
from stylebatch.store.ledger import ASKED_AT_ONCE
from stylebatch.store.names import MOST_METADATA_BYTES, STATS, marker, metadata_file
from stylebatch.store.output_record import Generation, RunRecord
from stylebatch.store.shard_counts import ShardCounts, read_counts
from stylebatch.store.sinks import sink_of

REVOKED, NO_MARKER = "revoked", "is no whole commit marker"
COUNTED = ("num_success", "num_failed", "num_rejected", "evaluations", "bytes", "seconds")


_Pairs = tuple[tuple[str, int], ...]
"""Of a dict; there may be 100,000 of them, most of them empty."""


class _Known(NamedTuple):
    """What was read of a marker with these `facts`. `fault`: why it commits nothing, "" where it does; `sizes`: of its files."""

    facts: Facts
    fault: str
    numbers: tuple[float, ...] = ()
    failures: _Pairs = ()
    rejections: _Pairs = ()
    sizes: _Pairs = ()


class MarkedShards:
    """What the markers of a run's shards add up to. `totals`: by the names in COUNTED."""

    def __init__(self, output: Folder, run: RunRecord) -> None:
        self.output, self.run = output, run
        self.totals = dict.fromkeys(COUNTED, 0.0)
        self.failures, self.rejections = Counter[str](), Counter[str]()
        self.num_committed = 0
        self.last_commit = 0.0
        self._parts = run.parts  # which makes them anew at each call
        self._rules = rules_of(run.identity)
        self._known: dict[str, _Known] = {}

    def look(self) -> dict[str, Facts]:
        """Take in what changed since the last look; the files of `metadata/`. Raises StorageError."""
        files = self.output.list("metadata/")
        found = {
            file.removeprefix("metadata/").removesuffix(STATS): facts
            for file, facts in files.items()
            if file.endswith(STATS)
        }
        for name in [name for name in self._known if name not in found]:
            self._count(self._known.pop(name), -1)
        changed = [
            (name, facts)
            for name, facts in found.items()
            if name not in self._known or self._known[name].facts != facts
        ]
        ours = [(name, facts) for name, facts in changed if self._part(name) is not None]
        for name, known in self._read(ours):
            self._count(self._known.pop(name, None), -1)
            self._known[name] = known
            self._count(known, 1)
        self.last_commit = max((facts.modified for facts in found.values()), default=0.0)
        return files

    def problems(self, files: Mapping[str, Facts], *, with_payload: bool) -> Iterator[str]:
        """What is wrong with committed shards, as far as names and sizes tell; `files`: of `metadata/`."""
        known_shards = sorted(self._known.items())
        committed = [known for _, known in known_shards if not known.fault]
        for name, known in known_shards:
            if known.fault not in ("", REVOKED):
                yield f"{self.output.where(marker(name))}: {known.fault}"
            elif not known.fault and metadata_file(name) not in files:
                yield f"{self.output.where(metadata_file(name))}: missing"
        if not with_payload:
            return
        sizes = [one for known in committed for one in known.sizes]
        folders = {file.rpartition("/")[0] for file, _ in sizes}
        there: dict[str, Facts] = {}
        for folder in sorted(folders):
            there |= self.output.list(f"{folder}/")
        for file, size_bytes in sizes:
            facts = there.get(file)
            if facts is None:
                yield f"{self.output.where(file)}: missing"
            elif facts.size_bytes != size_bytes:
                yield f"{self.output.where(file)}: {facts.size_bytes} bytes, {size_bytes} were committed"

    def _read(self, shards: Sequence[tuple[str, Facts]]) -> Iterator[tuple[str, _Known]]:
        if self.output.local is not None:
            yield from ((name, self._known_of(name, facts)) for name, facts in shards)
            return
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            names = [name for name, _ in shards]
            yield from zip(names, pool.map(lambda one: self._known_of(*one), shards), strict=True)

    def _known_of(self, name: str, facts: Facts) -> _Known:
        counts = read_counts(self.output, name)
        if counts is None:
            return _Known(facts, NO_MARKER)
        part = self._part(name)
        if part is None or counts.plan_digest != part.digest:
            return _Known(facts, "of another plan")
        if counts.revoked:
            return _Known(facts, REVOKED)
        failures, rejections = self._reasons(name, counts)
        numbers = tuple(getattr(counts, column) for column in COUNTED)
        sizes = sink_of(self.run.output_format).sizes(name, counts)
        pairs = (tuple(one.items()) for one in (failures, rejections, sizes))
        return _Known(facts, "", numbers, *pairs)

    def _part(self, name: str) -> Generation | None:
        """The generation that a shard is of, None where it is none of this run."""
        found = parsed_name(name)
        if found is None:
            return None
        for part in self._parts:
            if found.number in part.shards:
                return part if part.shard_name(found.number) == name else None
        return None

    def _reasons(self, name: str, counts: ShardCounts) -> tuple[dict[str, int], dict[str, int]]:
        """Failures and rejections by reason: of the marker, or of the rows where an earlier version wrote it."""
        if counts.failures or counts.rejections or counts.num_success == counts.num_samples:
            return counts.failures, counts.rejections
        columns = ["status", "error_code", "error_message"]
        try:
            data = self.output.read(metadata_file(name), MOST_METADATA_BYTES)
            rows = pq.read_table(pa.BufferReader(data), columns=columns).to_pylist()
        except UnansweredError:
            raise
        except (OSError, ValueError, pa.ArrowException):
            return {}, {}
        found = counted_reasons(rows, self._rules)
        return found.get("failures", {}), found.get("rejections", {})

    def _count(self, known: _Known | None, sign: int) -> None:
        if known is None or known.fault:
            return
        self.num_committed += sign
        for column, number in zip(COUNTED, known.numbers, strict=True):
            self.totals[column] += sign * number
        for counts, more in (
            (self.failures, known.failures),
            (self.rejections, known.rejections),
        ):
            for reason, number in more:
                counts[reason] += sign * number
