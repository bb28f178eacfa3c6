"""Knows the inputs of an output by their bytes: an xxh3 of each file, as it was when first decoded.

1. A worker reports the files that a shard was made of with its commit, in its stats; also those that it kept from an earlier shard.
2. Whoever starts or ends the run gathers these in `inputs/files.parquet`, an index that can be made anew.
3. A worker that finds other bytes under a known name stops the run before anything is made of them.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import InputChangedError, UnansweredError
from stylebatch.folder import Folder
from stylebatch.planning.ways_out import after_other_bytes
from stylebatch.store.brief_stats import brief
from stylebatch.store.ledger import FINGERPRINTS, Ledger
from stylebatch.store.output_record import ShardStats

COLUMNS = ("file", "xxh3")
_MOST_BYTES = 1 << 34
NAMED = 3
PAIR, OF_COLUMNS = "pair ", ": columns"
"""How names of rows of a list of pairs begin, and how those of carried columns end."""


class Fingerprints:
    """What is known of the files of `output`. `used`: files that the present shard is made of; its commit names them."""

    def __init__(self, output: Folder) -> None:
        self.output = output
        table = _read(output)
        self._names, self._hashes = table["file"], table["xxh3"]
        self._seen: dict[str, str] = {}
        self.used: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """xxh3 of a file, None where it was never decoded."""
        if name in self._seen:
            return self._seen[name]
        # on the Arrow column: a dict of all names would take far more memory, in every worker
        place = bisect_left(range(len(self._names)), name, key=lambda i: self._names[i].as_py())
        if place < len(self._names) and self._names[place].as_py() == name:
            return str(self._hashes[place].as_py())
        return None

    def check(self, files: Iterable[tuple[str, str]]) -> None:
        """Note files by name and xxh3. Raises InputChangedError where one is known with other bytes."""
        for name, xxh3 in files:
            known = self.find(name)
            if known is not None and known != xxh3:
                raise changed(self.output, [name])
            self._seen[name] = self.used[name] = xxh3


class Survey(NamedTuple):
    """xxh3 of each file by name, how many were in the index, and what the markers say, by shard, without their inputs.

    `differing`: shards that were made of other bytes than those before, with the rungs that they were made at and the names of those files.
    """

    known: dict[str, str]
    num_before: int
    stats: dict[str, ShardStats]
    differing: dict[str, tuple[list[list[int]], list[str]]]

    @property
    def other(self) -> list[str]:
        """Names of files with other bytes than before."""
        return list(dict.fromkeys(name for _, names in self.differing.values() for name in names))


def survey(ledger: Ledger, shards: Iterable[str]) -> Survey:
    """What the index and the stats of `shards` (names) say; the first stats that name a file count. Writes nothing."""
    table = _read(ledger.output)
    known = dict(zip(table["file"].to_pylist(), table["xxh3"].to_pylist(), strict=True))
    found, before = Survey(known, len(known), {}, {}), 0
    for shard, stats in ledger.of_marked(ledger.recorded, shards):
        if stats is None:
            continue
        found.stats[shard] = brief(stats, before=before)
        before += stats.num_success
        differing = [
            name for name, xxh3 in stats.inputs.items() if known.setdefault(name, xxh3) != xxh3
        ]
        # the first shard counts: which of two files was right, nobody can say
        if differing and not stats.revoked:
            found.differing[shard] = (stats.executed, differing)
    return found


def keep(ledger: Ledger, found: Survey) -> None:
    """Write the hashes to `inputs/files.parquet`, and take back the commits of shards that were made of other bytes."""
    for shard, (executed, _) in found.differing.items():
        ledger.revoke(shard, executed=executed)
    if len(found.known) > found.num_before:
        _write(ledger.output, found.known)


def spread(known: Mapping[str, str], count: int) -> dict[str, str]:
    """Up to `count` of the files, evenly spread by name."""
    names, total = sorted(known), len(known)
    places = range(total) if total <= count else (i * total // count for i in range(count))
    return {names[i]: known[names[i]] for i in places}


def changed(output: Folder, names: list[str]) -> InputChangedError:
    """What is said of files that have other bytes than before."""
    listed = ", ".join(map(_told, names[:NAMED])) + (", ..." if len(names) > NAMED else "")
    has_pairs = any(name.startswith(PAIR) for name in names)
    back = (
        "the former rows in their order, which go by their numbers,"
        if has_pairs
        else "the former file"
    )
    return InputChangedError(
        f"{output}: {listed} changed since samples were made of {'it' if len(names) == 1 else 'them'}; "
        "accepted: inputs as they were"
    ).offering(*after_other_bytes(output, back))


def _told(name: str) -> str:
    owner = name.removesuffix(OF_COLUMNS)
    if owner == name:
        return f"the bytes of {name}"
    if owner.startswith(PAIR):
        owner = f"row {owner.removeprefix(PAIR)} of the pairs"
    return f"the carried columns of {owner}"


def _read(output: Folder) -> pa.Table:
    """The index, sorted by name; empty where it is missing or damaged, since the stats hold the same."""
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    try:
        data = output.read(FINGERPRINTS, _MOST_BYTES)
        table = pq.read_table(pa.BufferReader(data))
    except UnansweredError:
        raise
    except (OSError, ValueError, pa.ArrowException):
        return schema.empty_table()
    if not table.schema.equals(schema) or any(column.null_count for column in table.columns):
        return schema.empty_table()
    # indexing a chunked column searches for the chunk each time
    return table.combine_chunks()


def _write(output: Folder, known: Mapping[str, str]) -> None:
    names = sorted(known)
    table = pa.table({"file": names, "xxh3": [known[name] for name in names]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    output.write(FINGERPRINTS, buffer.getvalue())
