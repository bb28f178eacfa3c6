"""`metadata.jsonl` of a tree of pictures: a line per picture with its record, where `datasets` looks for it.

It is derived from the metadata of all committed shards once a run ends, and can be made anew at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.store.names import MOST_METADATA_BYTES, metadata_file
from stylebatch.store.sinks.columns import columns_of, picture_name
from stylebatch.store.sinks.sink import Row
from stylebatch.store.sinks.tree import FILE, IMAGES, INPUT_SHA256, INPUTS, member_of
from stylebatch.store.sinks.whole_files import unlike

SIDECAR = "metadata.jsonl"


def is_sidecar(file: str) -> bool:
    """`images/SPLIT/metadata.jsonl`."""
    parts = file.split("/")
    return len(parts) == 3 and (parts[0], parts[2]) == (IMAGES, SIDECAR)


def sidecars(output: Folder) -> list[str]:
    """Those that are there."""
    files = [f"{split}/{SIDECAR}" for split in output.names(f"{IMAGES}/")]
    return [file for file in files if output.facts(file) is not None]


@contextmanager
def writing_sidecars(output: Folder) -> Iterator[Callable[[pa.Table], None]]:
    """Writes the sidecar of each split, from the metadata of shards that it is given in their order."""
    with ExitStack() as opened:
        files: dict[str, IO[bytes]] = {}

        def add(metadata: pa.Table) -> None:
            for split, line in _lines(metadata):
                if split not in files:
                    files[split] = opened.enter_context(output.writing(f"{split}/{SIDECAR}"))
                files[split].write(line)

        yield add


def sidecar_faults(output: Folder, shards: Iterable[str]) -> Iterator[tuple[str, str]]:
    """File and fault of each sidecar that is not what `writing_sidecars` would write."""
    sums: dict[str, Any] = {}
    for metadata in metadata_of(output, shards):
        for split, line in _lines(metadata):
            sums.setdefault(split, hashlib.sha256()).update(line)
    files = {f"{split}/{SIDECAR}": found for split, found in sums.items()}
    yield from unlike(output, files, "does not list the committed pictures")


def metadata_of(output: Folder, shards: Iterable[str]) -> Iterator[pa.Table]:
    """Of each shard, as far as it can be read."""
    for name in shards:
        try:
            data = output.read(metadata_file(name), MOST_METADATA_BYTES)
            yield pq.read_table(pa.BufferReader(data))
        except UnansweredError:
            raise
        except (OSError, ValueError, pa.ArrowException):
            continue


def _lines(table: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Folder of a split and a line of its sidecar, for each picture of a shard with this metadata."""
    # places in this tree, which mean nothing to who reads the pictures
    schema = pa.schema([f for f in table.schema if f.name not in (FILE, INPUTS, INPUT_SHA256)])
    for row in table.to_pylist() if FILE in table.column_names else ():
        if row[FILE]:
            yield _line(row, schema)


def _line(row: Row, schema: pa.Schema) -> tuple[str, bytes]:
    files = row[INPUTS] or []
    inputs = [member_of(file) for file in files]
    columns = columns_of(schema, "", inputs, has_classes=False)
    split, _, name = row[FILE].removeprefix(f"{IMAGES}/").partition("/")
    record = {c.name: row[c.source] for c in columns if c.kind == "record"}
    paths = {f"{picture_name(m)}_path": file for m, file in zip(inputs, files, strict=True)}
    # NaN is no JSON, and `datasets` would fail on the whole file
    told = json.dumps({FILE: name, **record, **paths}, ensure_ascii=False, allow_nan=False)
    return f"{IMAGES}/{split}", f"{told}\n".encode()
