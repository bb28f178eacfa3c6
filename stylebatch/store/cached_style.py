"""Reads one cached style: memory-mapped tensors by timestep, and the next timesteps read ahead.

A tensor's checksum is verified when it is first used. Arrays are views of the mapped tar; the file
may be renamed or removed meanwhile, and stays readable and marked as in use until the last view is
gone.
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

from stylebatch.store.cache_files import hold
from stylebatch.store.cache_index import StyleIndex, TensorRow, array_at, damaged
from stylebatch.store.codecs import Array, Codec

SiteArrays = dict[int, dict[str, Array]]
"""Per site, the arrays of one style by tensor name."""
READ_AHEAD_BYTES = 4 << 20
"""Small timesteps are read several at a time: a hand-over between threads costs as much as reading 100 kB."""


class CachedStyle:
    """One style of a cache.

    `entry` is its `style.json`: `key` (what the style was made of) and `labels`. Raises
    DamagedStyleError when the tar has another size than its index says, FileNotFoundError when it
    is gone.
    """

    def __init__(self, path: Path, index: StyleIndex) -> None:
        self.path = path
        self.codec: Codec = index.codec
        self.entry: dict[str, Any] = index.entry
        self._by_timestep: dict[int | None, list[TensorRow]] = {}
        for row in index.rows:
            self._by_timestep.setdefault(row.timestep, []).append(row)
        self._verified: set[int] = set()
        with path.open("rb") as file:
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
        """Decoded features of a timestep: `kv` and `x` as stored, without a copy; `x8` as float32.

        Raises ValueError for a timestep that is not stored and DamagedStyleError.
        """
        return {
            site: self.codec.decode(encoded) for site, encoded in self.encoded_at(timestep).items()
        }

    def encoded_at(self, timestep: int) -> SiteArrays:
        """As `at`, before decoding: for `x8` the int8 `x` and float32 `x.scale`, for a device to decode."""
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
            self._bytes[start : stop : mmap.PAGESIZE].max()

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
    styles: Sequence[CachedStyle], timesteps: Sequence[int], *, decode: bool = True
) -> Iterator[tuple[int, list[SiteArrays]]]:
    """(timestep, features of each style) in the order asked, the next ones read meanwhile.

    One background thread reads and decodes for all styles: the next timestep, or as many as make
    READ_AHEAD_BYTES. An error of a timestep is raised where that timestep is due. Without `decode`,
    the arrays are those of `CachedStyle.encoded_at`.
    """

    def load(timestep: int) -> list[SiteArrays]:
        for style in styles:
            style.fault_in(timestep)
        return [style.at(timestep) if decode else style.encoded_at(timestep) for style in styles]

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
