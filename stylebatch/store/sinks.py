"""Writes a shard: a WebDataset tar, its metadata Parquet, and last the stats file that commits it."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
from webdataset.writer import TarWriter

from stylebatch.store.commit import atomic_file, write_bytes
from stylebatch.store.faults import passing
from stylebatch.store.records import SCHEMA, Record, as_json, as_parquet


class WebDatasetShard:
    """One shard being written; a context manager that leaves nothing behind unless `commit` ran.

    The tar opens with the first successful sample, so a shard whose samples all failed has metadata
    and stats but no tar (readers choke on empty ones).
    """

    def __init__(self, output: Path, name: str, schema: pa.Schema = SCHEMA) -> None:
        self.schema = schema
        self.tar_path = output / "data" / f"{name}.tar"
        self.metadata_path = output / "metadata" / f"{name}.parquet"
        self.stats_path = output / "metadata" / f"{name}_stats.json"
        self.rows: list[dict[str, Any]] = []
        self._files = ExitStack()
        self._stream: _Hashing | None = None
        self._tar: Any = None

    def __enter__(self) -> WebDatasetShard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._stream is not None and kind is None:
            kind, error = _Uncommitted, _Uncommitted()
        try:
            return self._files.__exit__(kind, error, trace)
        except _Uncommitted:
            return None

    def write(self, record: Record) -> None:
        """Append a sample's row, and its files when it succeeded."""
        self.rows.append(record.row)
        if not record.ok:
            return
        if self._tar is None:
            self._stream = _Hashing(self._files.enter_context(atomic_file(self.tar_path)))
            self._tar = TarWriter(
                self._stream, user="", group="", mode=0o644, mtime=0.0, encoder=False
            )
        passing("before payload")
        self._tar.write(
            {"__key__": record.row["key"], **record.files, "json": as_json(record.row, self.schema)}
        )
        passing("after payload")

    def commit(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Make the shard durable: tar, then metadata, then stats with `facts`; returns the stats."""
        sha256, size_bytes = "", 0
        if self._tar is not None and self._stream is not None:
            self._tar.close()
            sha256, size_bytes = self._stream.sha256.hexdigest(), self._stream.size_bytes
            self._stream = None
            self._files.close()
        else:
            self.tar_path.unlink(missing_ok=True)
        metadata = as_parquet(self.rows, self.schema)
        passing("before metadata")
        write_bytes(self.metadata_path, metadata)
        passing("after metadata")
        num_success = sum(row["status"] == "success" for row in self.rows)
        stats = {
            "num_samples": len(self.rows),
            "num_success": num_success,
            "num_failed": len(self.rows) - num_success,
            "sha256": sha256,
            "bytes": size_bytes,
            "metadata_sha256": hashlib.sha256(metadata).hexdigest(),
            **facts,
        }
        passing("before marker")
        write_bytes(self.stats_path, json.dumps(stats, indent=1).encode())
        passing("after marker")
        return stats


class _Uncommitted(Exception):
    """Unwinds the files of a shard that was left without `commit`."""


class _Hashing:
    """File-like that hashes and counts what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        return self.file.write(data)
