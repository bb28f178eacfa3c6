"""Reads an output directory for reports: run.json, committed shards, their rows and their samples."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import ManifestError
from stylebatch.store.ledger import Ledger, read_json

Row = dict[str, Any]

RESULT_FORMATS = ("jpg", "png", "webp")
QUALITY = {
    "structure": ("structure", 2, "edge correlation with the content; higher keeps more"),
    "color_distance": ("colour distance", 1, "from the style, in Lab units; lower is closer"),
    "contrast": ("contrast", 1, "standard deviation of luma; near 0 is flat"),
}
"""Name, decimals and meaning by column."""
INPUTS = (
    ("content", "content_id", "content.jpg"),
    ("style", "style_id", "style.jpg"),
    ("image", "image", "image.jpg"),
    ("mask", "mask", "mask.jpg"),
    ("reference", "reference", "reference.jpg"),
)
"""Inputs that a row may have: kind, column with the id, member with the picture."""
STATS_FIELDS = ("num_samples", "num_success", "num_failed", "bytes", "seconds", "evaluations")


@dataclass(frozen=True)
class ShardStats:
    """What the commit marker of a shard tells; `name` is its file stem, such as train-00000."""

    name: str
    num_samples: int
    num_success: int
    num_failed: int
    bytes: int
    seconds: float
    evaluations: int


def read_run(output: Path) -> dict[str, Any]:
    """Content of run.json. Raises ManifestError when there is none."""
    run = read_json(output / "run.json")
    if run is None:
        raise ManifestError(
            f"{output / 'run.json'}: missing or not JSON; give the output directory of a run, or start the run first"
        )
    return run


def committed_shards(output: Path) -> list[ShardStats]:
    """Committed shards of the directory's plan, by name. Raises ManifestError when there is no run or no committed shard."""
    run, ledger = read_run(output), Ledger(output)
    digests = [str(g["digest"]) for g in run.get("generations", [run])]
    markers = sorted(
        (output / "metadata").glob("*_stats.json"), key=lambda path: (len(path.name), path.name)
    )
    shards = []
    for name in (path.name.removesuffix("_stats.json") for path in markers):
        stats = next(filter(None, (ledger.stats(name, digest) for digest in digests)), None)
        if stats is not None:
            shards.append(ShardStats(name, **{field: stats[field] for field in STATS_FIELDS}))
    if not shards:
        raise ManifestError(
            f"{output / 'metadata'}: no committed shard of this plan; start or resume the run, then report again"
        )
    return shards


def columns_of(output: Path) -> list[str]:
    """Columns of the metadata: those of pairs, or of prompts."""
    first = committed_shards(output)[0]
    names: list[str] = pq.read_schema(output / "metadata" / f"{first.name}.parquet").names
    return names


def inputs_of(columns: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
    """Those of `INPUTS` that rows with these columns have."""
    return tuple(one for one in INPUTS if one[1] in columns)


def read_tables(output: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Metadata of each committed shard, in key order; all columns when none are named."""
    for shard in committed_shards(output):
        yield pq.read_table(
            output / "metadata" / f"{shard.name}.parquet",
            columns=None if columns is None else list(columns),
        )


def read_rows(output: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Metadata rows of the committed shards, in key order."""
    for table in read_tables(output, columns):
        yield from table.to_pylist()


def read_samples(output: Path, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (`jpg`, `json`, `content.jpg`, ...) of the wanted successful samples, in key order."""
    wanted = set(keys)
    for shard in committed_shards(output):
        if not wanted:
            return
        if shard.num_success:
            path = output / "metadata" / f"{shard.name}.parquet"
            present = wanted.intersection(pq.read_table(path, columns=["key"])["key"].to_pylist())
            wanted -= present
            yield from _read_tar(output / "data" / f"{shard.name}.tar", present)


def _read_tar(path: Path, wanted: set[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Wanted samples of one tar; the members of a sample lie together."""
    if not wanted:
        return
    current, members = "", dict[str, bytes]()
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if key != current and members:
                yield current, members
                members = {}
            current = key
            content = tar.extractfile(member) if key in wanted else None
            if content is not None:
                members[extension] = content.read()
    if members:
        yield current, members


def result_member(members: Mapping[str, bytes]) -> bytes:
    """The rendered image among the members of a sample."""
    return next(members[extension] for extension in RESULT_FORMATS if extension in members)
