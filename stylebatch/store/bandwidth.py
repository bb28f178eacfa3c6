"""How fast a style cache reads and writes, and how much it may hold."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from stylebatch.store.cache_files import CacheFiles, explained
from stylebatch.store.commit import TEMPORARY

PROBE_BYTES = 64 << 20
REMOTE_PROBE_BYTES = 8 << 20
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second."""

    read: float
    write: float


def measure_bandwidth(root: str | Path, num_bytes: int | None = None) -> Bandwidth:
    """Write a file into the cache's folder, read it back, remove it. Raises CacheError when the store fails."""
    files = CacheFiles.at(root)
    name = f"{TEMPORARY}bandwidth-{uuid.uuid4().hex}"
    if files.folder is None:
        data = os.urandom(num_bytes or REMOTE_PROBE_BYTES)
        path = files.path(name)
        with explained(files.root, "measured"):
            started = time.perf_counter()
            files.filesystem.pipe_file(path, data)
            written = time.perf_counter()
            files.filesystem.cat_file(path)
            read = time.perf_counter()
            files.filesystem.rm_file(path)
        return Bandwidth(len(data) / (read - written), len(data) / (written - started))
    with explained(files.root, "measured"):
        files.folder.mkdir(parents=True, exist_ok=True)
        return _local(files.folder / name, num_bytes or PROBE_BYTES)


def _local(path: Path, num_bytes: int) -> Bandwidth:
    chunk = os.urandom(min(num_bytes, CHUNK_BYTES))
    count = max(1, num_bytes // len(chunk))
    try:
        with path.open("xb", buffering=0) as file:
            started = time.perf_counter()
            for _ in range(count):
                file.write(chunk)
            os.fsync(file.fileno())
            written = time.perf_counter()
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with path.open("rb", buffering=0) as file:
            reading = time.perf_counter()
            while file.read(CHUNK_BYTES):
                pass
            read = time.perf_counter()
    finally:
        path.unlink(missing_ok=True)
    total = count * len(chunk)
    return Bandwidth(total / (read - reading), total / (written - started))


def cache_room(root: str | Path) -> int | None:
    """Bytes that a local cache may hold: what is free on its disk and what it holds already; None for a remote one."""
    files = CacheFiles.at(root)
    if files.folder is None:
        return None
    folder = files.folder.absolute()
    while not folder.exists():
        folder = folder.parent
    held = sum(facts.size_bytes for facts in files.listing().values())
    return shutil.disk_usage(folder).free + held
