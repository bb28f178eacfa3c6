"""The records of an output as the viewer holds them: arrays for the browser in memory, all else in a file that is mapped.

Rows are numbered in the order in which their shards were found, so that a run may go on committing shards. A chunk is a few
thousand rows: what of it the browser filters by is in memory, some 40 bytes a row; the records themselves, with a column of
lower-case text to search, are an Arrow file in a temporary folder.
"""

from __future__ import annotations

import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stylebatch.errors import DamagedError, StorageError
from stylebatch.folder import Folder
from stylebatch.local_files import Facts
from stylebatch.planning.shard_names import parsed_name
from stylebatch.reports.committed import read_rows
from stylebatch.reports.page_columns import Coder, PageColumns, searched
from stylebatch.reports.reasons import Reasons
from stylebatch.spec.splits import REST
from stylebatch.store.brief_stats import brief
from stylebatch.store.ledger import Ledger
from stylebatch.store.measured_columns import columns_of_measured, commits, with_columns
from stylebatch.store.names import MOST_METADATA_BYTES, STATS, marker, metadata_file
from stylebatch.store.output_record import RunRecord, ShardStats

CHUNK_ROWS = 8192
FIRST_ROWS = 512
"""Of the first chunk, which a waiting browser shows."""
LONGEST_S = 1.0
"""A chunk of a slow store is shown after this time, however small."""
TEXT = "_searched"
MOST_PROBLEMS = 200
NEWEST = 12
_Shard = tuple[str, ShardStats, pa.Table]


@dataclass(frozen=True)
class Chunk:
    """Rows from number `first` on. `names`: those that are new, by column; `body`: the arrays one after another.

    `shards`: each with the number of its rows.
    """

    first: int
    table: pa.Table
    names: dict[str, list[str]]
    body: bytes
    shards: tuple[tuple[str, int], ...]

    def shard_of(self, place: int) -> str:
        ends = list(accumulate(count for _, count in self.shards))
        return self.shards[bisect_right(ends, place)][0]


@dataclass
class Loaded:
    """What was read of an output so far; one thread adds chunks, any thread reads them.

    `problems`: of shards whose rows cannot be shown; `counts`: of rows by status; `newest`: rows that succeeded, the last ones.
    """

    output: Folder
    run: RunRecord
    chunks: list[Chunk] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    columns: PageColumns | None = None
    names: list[str] = field(default_factory=list)
    reasons: Reasons = field(default_factory=Reasons)
    num_shards: int = 0
    num_rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    newest: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="stylebatch-view-")
        self._markers: dict[str, Facts] = {}
        self._pending: list[_Shard] = []
        self._num_pending = 0
        self._coder: Coder | None = None
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Remove the temporary files."""
        self._scratch.cleanup()

    @property
    def is_outdated(self) -> bool:
        """Whether shards that were read are committed otherwise now, or no more."""
        found = self._marked()
        return any(found.get(name) != facts for name, facts in self._markers.items())

    def _marked(self) -> dict[str, Facts]:
        files = self.output.list("metadata/")
        ours = {
            name: facts
            for file, facts in files.items()
            if file.endswith(STATS)
            and self.run.names_shard(name := file.removeprefix("metadata/").removesuffix(STATS))
        }
        return ours

    def read_new(self) -> None:
        """Add the shards that were committed since the last call."""
        found = self._marked()
        new = [name for name in found if name not in self._markers]
        new.sort(key=lambda name: self.run.number_of(name) or 0)
        ledger = Ledger(self.output)
        for name, shard in ledger.of_marked(lambda name: self._read(ledger, name), new):
            self._markers[name] = found[name]
            if shard is not None:
                self._add(shard)
        self._flush()

    def _read(self, ledger: Ledger, name: str) -> _Shard | None:
        """A shard's rows; None where there are none, which may be a problem."""
        try:
            stats = ledger.recorded(name)
            if stats is None:
                self._problem(f"{self.output.where(marker(name))}: is damaged")
                return None
            digests = {part.digest for part in self.run.parts}
            if stats.revoked or stats.plan_digest not in digests:
                return None
            data = self.output.read(metadata_file(name), MOST_METADATA_BYTES)
            if not commits(stats, data):
                where = self.output.where(metadata_file(name))
                self._problem(f"{where}: its bytes changed since the commit (sha256)")
                return None
            rows = read_rows(self.output, metadata_file(name), data)
            added = columns_of_measured(self.run.measured)
            return name, brief(stats), with_columns(rows, added)
        except (OSError, DamagedError, StorageError) as error:
            self._problem(str(error))
            return None

    def _problem(self, text: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(text)

    def _add(self, shard: _Shard) -> None:
        _, _, table = shard
        if self._pending and self._pending[0][2].schema != table.schema:
            self._flush()
        self._pending.append(shard)
        self._num_pending += len(table)
        waited = time.monotonic() - self._flushed
        if self._num_pending >= (CHUNK_ROWS if self.chunks else FIRST_ROWS) or waited > LONGEST_S:
            self._flush()

    def _flush(self) -> None:
        """Make a chunk of the shards that wait."""
        if not self._pending:
            return
        table = pa.concat_tables([table for _, _, table in self._pending]).combine_chunks()
        shards = tuple((name, len(rows)) for name, _, rows in self._pending)
        if self._coder is None:
            self.columns = PageColumns.of(table.schema)
            self._coder = Coder(self.columns)
        self.names += [name for name in table.column_names if name not in self.names]
        splits = [split for name, count in shards for split in [_split(name)] * count]
        names, arrays = self._coder.coded(table, splits)
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        mapped = self._mapped(table.append_column(TEXT, searched(table)))
        self._count(table)
        self.chunks.append(Chunk(self.num_rows, mapped, names, body, shards))
        self.num_rows += len(table)
        self.num_shards += len(shards)
        self._pending, self._num_pending, self._flushed = [], 0, time.monotonic()

    def _mapped(self, table: pa.Table) -> pa.Table:
        path = Path(self._scratch.name) / f"{len(self.chunks)}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    def _count(self, table: pa.Table) -> None:
        success = pc.equal(table["status"], "success")
        places = pc.indices_nonzero(success).to_numpy()
        for one in table["status"].value_counts().to_pylist():
            self.counts[one["values"]] += one["counts"]
        if len(places) < len(table):
            self.reasons.add(table.filter(pc.invert(success)))
        newest = [self.num_rows + int(place) for place in places[-NEWEST:]]
        self.newest = (self.newest + newest)[-NEWEST:]

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Records, each with `shard`, the stem of its shard's files. Raises IndexError for a number that no row has."""
        return [self._row(number) for number in numbers]

    def _row(self, number: int) -> dict[str, Any]:
        chunks = self.chunks
        if not 0 <= number < self.num_rows:
            raise IndexError(f"found no row {number}; accepted: 0 to {self.num_rows - 1}")
        chunk = chunks[bisect_right(chunks, number, key=lambda chunk: chunk.first) - 1]
        place = number - chunk.first
        row: dict[str, Any] = chunk.table.slice(place, 1).to_pylist()[0]
        del row[TEXT]
        return row | {"shard": chunk.shard_of(place)}

    def behind(self, number: int, count: int) -> list[dict[str, Any]]:
        """The row and up to `count` after it that are of its shard."""
        first = self._row(number)
        rest = range(number + 1, min(number + 1 + count, self.num_rows))
        same = (row for row in map(self._row, rest) if row["shard"] == first["shard"])
        return [first, *islice(same, count)]

    def containing(self, text: str) -> NDArray[np.bool_]:
        """Of each row whether it has all words of `text`, whatever their case."""
        words = text.lower().split()
        return self._masks(lambda chunk: _having(chunk.table[TEXT], words))

    def keyed(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Of each row whether its key is one of these."""
        wanted = pa.array(keys, pa.string())
        return self._masks(lambda chunk: pc.is_in(chunk.table["key"], value_set=wanted))

    def _masks(self, of: Any) -> NDArray[np.bool_]:
        found = [np.asarray(of(chunk), dtype=np.bool_) for chunk in list(self.chunks)]
        return np.concatenate(found) if found else np.zeros(0, np.bool_)

    def tables(self) -> Iterator[pa.Table]:
        """Records, chunk by chunk."""
        for chunk in list(self.chunks):
            yield chunk.table.drop_columns([TEXT])


def _having(texts: pa.ChunkedArray, words: Sequence[str]) -> pa.ChunkedArray:
    found = pa.array(np.ones(len(texts), np.bool_))
    for word in words:
        found = pc.and_(found, pc.match_substring(texts, word))
    return found


def _split(name: str) -> str:
    found = parsed_name(name)
    return REST if found is None else found.split
