"""Writes one style into a cache, a timestep at a time."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import IO, Any

import numpy as np

from stylebatch.errors import StorageError
from stylebatch.features.cache_index import (
    ADVICE,
    TRAJECTORY,
    CacheError,
    StyleIndex,
    TensorRow,
)
from stylebatch.features.cache_members import (
    END_OF_TAR,
    ENTRY,
    build_member,
    entry_bytes,
    header_sum,
)
from stylebatch.features.codecs import LATENT_DTYPE, Array, Codec, require_finite
from stylebatch.folder import Folder
from stylebatch.local_files import explained, start_writing

WRITE_BEHIND_BYTES = 1 << 20


class StyleWriter:
    """Writes the tar of one style; a context manager that leaves nothing unless `commit` ran.

    `publish` is called once the tar is complete on disk under its temporary name, with the index and a function that gives
    the tar its final name (if another writer of the same style was first, `publish` does not call it).
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        codec: Codec,
        entry: dict[str, Any],
        publish: Callable[[StyleIndex, Callable[[], None]], None],
    ) -> None:
        self.folder, self.name = folder, name
        self.codec = codec
        self.entry = entry
        self._publish = publish
        self._rows: list[TensorRow] = []
        self._members: dict[str, str] = {}
        self._last_timestep = -1
        self._size = self._under_way = 0
        self._files = ExitStack()
        self._file: IO[bytes] | None = None

    @property
    def where(self) -> str:
        """The tar's place, for messages."""
        return self.folder.where(self.name)

    def __enter__(self) -> StyleWriter:
        self._file = self._files.enter_context(self.folder.writing(self.name, is_last=False))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._drop()

    def append(self, timestep: int, features: Mapping[int, Mapping[str, Array]]) -> None:
        """Add the features of a timestep, in their stored form, by site and tensor name; timesteps ascend.

        Raises ValueError, naming timestep, site and tensor, for arrays of another form, and CacheError if the disk fails.
        """
        if timestep <= self._last_timestep or not features:
            raise ValueError(
                f"timestep {timestep} with {len(features)} sites after timestep {self._last_timestep}; "
                "accepted: ascending timesteps with at least one site"
            )
        by_name: dict[str, Array] = {}
        for site, tensors in features.items():
            try:
                stored = self.codec.checked(tensors)
            except ValueError as error:
                raise ValueError(f"timestep {timestep}, site {site}: {error}") from error
            by_name |= {f"{site}.{name}": array for name, array in stored.items()}
        self._add_tensors(f"{timestep:04d}.safetensors", by_name)
        self._last_timestep = timestep

    def commit(self, trajectory: Mapping[int, Array]) -> None:
        """Add the latents (c, h, w) by noise level, and make the style visible, durably.

        They are stored in ascending order of level as float32, so that a reverse starts from the same latents with and
        without the cache. Raises ValueError for an empty trajectory and non-finite latents, CacheError if the disk is full.
        """
        if not trajectory:
            raise ValueError("trajectory: no latents; accepted: at least the last one")
        levels = sorted(trajectory)
        latents = np.stack([np.asarray(trajectory[level], LATENT_DTYPE) for level in levels])
        require_finite(latents, "trajectory")
        self._add_tensors(
            TRAJECTORY,
            {"latents": latents, "levels": np.array(levels, np.int64)},
        )
        self._add(ENTRY, [entry_bytes(self.entry, self._members)])
        with self._writing():
            file = self._opened()
            file.write(END_OF_TAR)
            self._size += len(END_OF_TAR)
            file.flush()
            os.fsync(file.fileno())  # not in `publish`, which holds a lock
            self._publish(StyleIndex(tuple(self._rows), self._size, self.entry), self._finish)

    def _add_tensors(self, name: str, tensors: dict[str, Array]) -> None:
        parts, rows = build_member(name, tensors, self._size + tarfile.BLOCKSIZE)
        self._add(name, parts)
        self._members[name] = header_sum(parts)
        self._rows += rows

    def _add(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Append a file to the tar: a header of one block, the parts, and zeros up to a whole block."""
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = sum(map(len, parts)), 0, 0o644
        # ASCII names in ustar give one block of header, whose size `_add_tensors` has counted on
        header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
        file = self._opened()
        try:
            with self._writing():
                for part in (header, *parts, bytes(-info.size % tarfile.BLOCKSIZE)):
                    file.write(part)
                    self._size += len(part)
                # the system writes while the next timestep is inverted; else fsync would wait for all of it
                if self._size - self._under_way >= WRITE_BEHIND_BYTES:
                    start_writing(file, self._under_way, self._size)
                    self._under_way = self._size
        except CacheError:
            self._drop()  # the tar ends within a member
            raise

    def _writing(self) -> AbstractContextManager[None]:
        return explained(self.where, "written", ADVICE)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError(
                f"{self.where}: the writer is closed; accepted: use within its `with` block"
            )
        return self._file

    def _finish(self) -> None:
        """Give the tar its final name."""
        self._file = None
        self._files.close()

    def _drop(self) -> None:
        """Remove the temporary tar."""
        self._file = None
        with suppress(_LeftOut, StorageError):
            self._files.__exit__(_LeftOut, _LeftOut(), None)


class _LeftOut(Exception):
    """Unwinds the context of a tar that is not committed, so that its temporary file is removed."""
