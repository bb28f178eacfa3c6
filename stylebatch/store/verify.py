"""Proves that an output directory holds what its plan promised: every shard, every sample, every byte.

Of each planned shard, from the commit marker down:
1. the stats file is there, whole, and of this plan;
2. the metadata Parquet has the recorded sha256;
3. the tar has the recorded size and sha256;
4. the tar's samples are those that the metadata calls successful, in order, each image with its sha256.
One pass over each tar; memory for one shard's rows.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import ManifestError
from stylebatch.store.commit import TEMPORARY
from stylebatch.store.ledger import read_json

KNOWN_METADATA = ("errors.parquet",)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Problem:
    """One thing that is not as promised. `shard`: its number, or None where no shard is concerned."""

    shard: int | None
    path: Path
    text: str

    def line(self) -> str:
        return f"{self.path}: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def verify(output: Path) -> Iterator[Problem]:
    """Everything wrong with `output`, shard by shard. Raises ManifestError where there is no run."""
    run = read_json(output / "run.json")
    if run is None:
        raise ManifestError(
            f"{output / 'run.json'}: missing or damaged; accepted: the output directory of a run. "
            "Next: start the same manifest on this directory's copy of run.json, or render anew"
        )
    names: set[str] = set()
    whole = {"first_shard": 0, "num_shards": run["plan"]["num_shards"], "digest": run["digest"]}
    for generation in run.get("generations", [whole]):
        first = int(generation["first_shard"])
        numbers = range(first, first + int(generation["num_shards"]))
        digits = max(5, len(str(numbers[-1])))
        for number in numbers:
            name = f"train-{number:0{digits}d}"
            names.add(name)
            yield from (
                Problem(number, path, text)
                for path, text in _shard_problems(output, name, str(generation["digest"]))
            )
    yield from _strangers(output, names)


def _shard_problems(output: Path, name: str, digest: str) -> Iterator[tuple[Path, str]]:
    marker = output / "metadata" / f"{name}_stats.json"
    metadata = output / "metadata" / f"{name}.parquet"
    tar = output / "data" / f"{name}.tar"
    stats = read_json(marker)
    if stats is None:
        what = "not whole" if marker.exists() else "missing: the shard was never committed"
        yield marker, what
        return
    if stats.get("plan_digest") != digest:
        yield marker, f"of another plan ({str(stats.get('plan_digest'))[:16]}, not {digest[:16]})"
        return
    rows = _rows(metadata, str(stats["metadata_sha256"]))
    if isinstance(rows, str):
        yield metadata, rows
        return
    success = [row for row in rows if row["status"] == "success"]
    if not success:
        if tar.exists():
            yield tar, "found a tar where no sample succeeded"
        return
    if not tar.is_file():
        yield tar, "missing"
        return
    size = tar.stat().st_size
    if size != stats["bytes"]:
        yield tar, f"{size} bytes, {stats['bytes']} were committed"
        return
    yield from ((tar, text) for text in _tar_problems(tar, success, str(stats["sha256"])))


def _rows(metadata: Path, sha256: str) -> list[dict[str, Any]] | str:
    """Rows of a metadata file, or what is wrong with it."""
    try:
        data = metadata.read_bytes()
    except OSError as error:
        return error.strerror or "cannot be read"
    if hashlib.sha256(data).hexdigest() != sha256:
        return "its bytes changed since the commit (sha256)"
    table = pq.read_table(pa.BufferReader(data), columns=["key", "status", "sha256"])
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


class _Hashed:
    """A file that hashes what is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        return data


def _tar_problems(tar: Path, success: list[dict[str, Any]], sha256: str) -> Iterator[str]:
    """What is wrong with the samples of a tar, or else with its bytes."""
    found: dict[str, set[str]] = {}
    with tar.open("rb") as file:
        hashed = _Hashed(file)
        try:
            with tarfile.open(fileobj=hashed, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    key, _, extension = member.name.partition(".")
                    content = archive.extractfile(member)
                    data = b"" if content is None else content.read()
                    marks = found.setdefault(key, set())
                    marks.add(hashlib.sha256(data).hexdigest() if extension.count(".") == 0 else "")
        except (tarfile.TarError, EOFError, OSError) as error:
            yield f"cannot be read to its end: {error}"
            return
        while hashed.read(CHUNK):
            pass
    before = len(found)
    keys = [row["key"] for row in success]
    if list(found) != keys:
        missing = [key for key in keys if key not in found]
        what = f"lacks {len(missing)} samples, first {missing[0]}" if missing else "other samples"
        yield f"holds {before} samples where {len(keys)} were committed: {what}"
    wrong = [row["key"] for row in success if row["sha256"] not in found.get(row["key"], set())]
    wrong = [key for key in wrong if key in found]
    if wrong:
        yield f"the image of {wrong[0]} changed (sha256)" + (
            f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        )
    elif list(found) == keys and hashed.sha256.hexdigest() != sha256:
        yield "its bytes changed since the commit (sha256)"


def _strangers(output: Path, names: set[str]) -> Iterator[Problem]:
    """Files that no shard owns, in the folders that loaders read; what killed writers left."""
    expected = {f"{name}.tar" for name in names}
    records = {
        f"{name}{end}" for name in names for end in (".parquet", "_stats.json", "_poison.json")
    }
    for folder, known in (("data", expected), ("metadata", records | set(KNOWN_METADATA))):
        for path in sorted((output / folder).glob("*")):
            if path.name.startswith(TEMPORARY):
                yield Problem(
                    None, path, "left by a writer that was killed; the next run removes it"
                )
            elif path.name not in known:
                yield Problem(
                    None, path, "no shard of this plan owns it; remove it, loaders read it"
                )


def as_json(problems: list[Problem]) -> str:
    """The problems as a JSON array."""
    return json.dumps([problem.as_dict() for problem in problems], indent=1)
