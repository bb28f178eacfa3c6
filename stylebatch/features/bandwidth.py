"""Measures the bandwidth of a style cache's folder, and the bytes it may hold."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from stylebatch.features.cache_index import ADVICE
from stylebatch.folder import Folder, Place
from stylebatch.local_files import TEMPORARY, explained

PROBE_BYTES = 64 << 20
REMOTE_PROBE_BYTES = 8 << 20
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second."""

    read: float
    write: float


def measure_bandwidth(root: Place, num_bytes: int | None = None) -> Bandwidth:
    """Write a file into the cache's folder, read it back and remove it. Raises CacheError if the store fails."""
    folder = Folder.at(root, ADVICE)
    name = f"{TEMPORARY}bandwidth-{uuid.uuid4().hex}"
    if folder.local is None:
        data = os.urandom(num_bytes or REMOTE_PROBE_BYTES)
        started = time.perf_counter()
        folder.write(name, data)
        written = time.perf_counter()
        folder.read(name)
        read = time.perf_counter()
        folder.remove(name)
        return Bandwidth(len(data) / (read - written), len(data) / (written - started))
    with explained(folder.shown, "measured", ADVICE):
        folder.local.mkdir(parents=True, exist_ok=True)
        return _local(folder.local / name, num_bytes or PROBE_BYTES)


def _local(path: Path, num_bytes: int) -> Bandwidth:
    # random: a file system that compresses would write zeros at no cost
    chunk = os.urandom(min(num_bytes, CHUNK_BYTES))
    count = max(1, num_bytes // len(chunk))
    try:
        with path.open("xb", buffering=0) as file:
            started = time.perf_counter()
            for _ in range(count):
                file.write(chunk)
            os.fsync(file.fileno())
            written = time.perf_counter()
            if hasattr(os, "posix_fadvise"):  # else the page cache would be read, not the disk
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


def cache_room(root: Place) -> int | None:
    """Bytes that a local cache may hold: free space of its disk plus its own files; None for a remote one."""
    folder = Folder.at(root, ADVICE)
    if folder.local is None:
        return None
    path = folder.local.absolute()
    while not path.exists():
        path = path.parent
    held = sum(facts.size_bytes for facts in folder.list().values())
    return shutil.disk_usage(path).free + held
