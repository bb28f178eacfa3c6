"""Reads one cached style: memory-mapped tensors by timestep, and the next timesteps read ahead.

A tensor's checksum is verified when it is first used. Arrays are views of the mapped tar: if the file is renamed or removed,
it stays readable, and marked as in use, until the last view is gone.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from stylebatch.features.cache_folder import hold
from stylebatch.features.cache_index import StyleIndex, TensorRow, array_at, damaged
from stylebatch.features.codecs import Array, Codec
from stylebatch.local_files import open_regular

SiteArrays = dict[int, dict[str, Array]]
"""Per site, the arrays of one style by tensor name."""
READ_AHEAD_BYTES = 4 << 20
"""Small timesteps are read several at a time: passing one between threads costs as much as reading 100 kB."""


class CachedStyle:
    """One style of a cache.

    `entry` is its `style.json`: `key` (the ingredients of its key) and `labels`. Raises DamagedStyleError if the tar has
    another size than its index says, FileNotFoundError if it is gone.
    """

    def __init__(self, path: Path, index: StyleIndex) -> None:
        self.path = path
        self.codec: Codec = index.codec
        self.entry: dict[str, Any] = index.entry
        self._by_timestep: dict[int | None, list[TensorRow]] = {}
        for row in index.rows:
            self._by_timestep.setdefault(row.timestep, []).append(row)
        self._verified: set[int] = set()
        with open_regular(path) as file:
            hold(file)
            size = os.fstat(file.fileno()).st_size
            if size != index.tar_bytes:
                raise damaged(str(path), f"has {size} bytes; its index says {index.tar_bytes}")
            # private rather than read-only: torch.from_numpy warns about arrays it cannot write
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        # timesteps are read backwards, which a file system's read-ahead does not follow: without large
        # pages the kernel then fetches and maps the file in pieces of 4 kB, at a third of the speed
        if (large_pages := getattr(mmap, "MADV_HUGEPAGE", None)) is not None:
            with suppress(OSError):
                self._map.madvise(large_pages)
        self._bytes = np.frombuffer(self._map, np.uint8)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps that have features, ascending."""
        return tuple(t for t in self._by_timestep if t is not None)

    def at(self, timestep: int) -> SiteArrays:
        """Features of a timestep in their stored form, without a copy.

        Raises ValueError for a timestep that is not stored, and DamagedStyleError.
        """
        if timestep not in self._by_timestep:
            raise ValueError(
                f"{self.path}: timestep {timestep} is not stored; accepted: {list(self.timesteps)}"
            )
        sites: SiteArrays = {}
        for row in self._by_timestep[timestep]:
            if row.site is not None:
                sites.setdefault(row.site, {})[row.tensor] = self._array(row)
        return dict(sorted(sites.items()))

    def num_bytes(self, timestep: int) -> int:
        """Stored bytes of a timestep's features."""
        return sum(row.length for row in self._by_timestep.get(timestep, ()))

    def fault_in(self, timestep: int) -> None:
        """Bring the pages of a timestep into memory, if it is stored."""
        rows = self._by_timestep.get(timestep, [])
        if rows:
            start = min(row.offset for row in rows)
            stop = max(row.offset + row.length for row in rows)
            self._bytes[start : stop : mmap.PAGESIZE].max()  # reads one byte of each page

    def trajectory(self) -> dict[int, Array]:
        """Latents (c, h, w) by noise level, ascending, float32."""
        stored = {row.tensor: self._array(row) for row in self._by_timestep[None]}
        return dict(zip(stored["levels"].tolist(), stored["latents"], strict=True))

    def _array(self, row: TensorRow) -> Array:
        if row.offset not in self._verified:
            stored = self._bytes[row.offset : row.offset + row.length]
            if xxhash.xxh3_64_intdigest(stored.data) != row.xxh3:
                raise damaged(
                    str(self.path),
                    f"tensor {row.tensor} of site {row.site} in {row.member} does not match its checksum",
                )
            self._verified.add(row.offset)
        return array_at(self._map, row)


def prefetch(
    styles: Sequence[CachedStyle], timesteps: Sequence[int]
) -> Iterator[tuple[int, list[SiteArrays]]]:
    """(timestep, features of each style) in the order of `timesteps`, while the next ones are being read.

    One background thread reads for all styles: the next timestep, or as many as make READ_AHEAD_BYTES. An error of a
    timestep is raised when that timestep is due.
    """

    def load(timestep: int) -> list[SiteArrays]:
        for style in styles:
            style.fault_in(timestep)
        return [style.at(timestep) for style in styles]

    def load_all(several: Sequence[int]) -> list[tuple[int, list[SiteArrays] | Exception]]:
        loaded: list[tuple[int, list[SiteArrays] | Exception]] = []
        for timestep in several:
            try:
                loaded.append((timestep, load(timestep)))
            except Exception as error:  # noqa: BLE001 - raised below, where the timestep is due
                return [*loaded, (timestep, error)]
        return loaded

    groups = _groups(styles, timesteps)
    if not groups:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="style-cache") as reader:
        coming = reader.submit(load_all, groups[0])
        for following in [*groups[1:], None]:
            ready = coming.result()
            if following is not None:
                coming = reader.submit(load_all, following)
            for timestep, features in ready:
                if isinstance(features, Exception):
                    raise features
                yield timestep, features


def _groups(styles: Sequence[CachedStyle], timesteps: Sequence[int]) -> list[list[int]]:
    """The timesteps in order, in groups of one or of about READ_AHEAD_BYTES."""
    groups: list[list[int]] = []
    size = READ_AHEAD_BYTES
    for timestep in timesteps:
        if size >= READ_AHEAD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(timestep)
        size += sum(style.num_bytes(timestep) for style in styles)
    return groups
