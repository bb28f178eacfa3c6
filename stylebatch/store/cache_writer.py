"""Writes one style into a cache, a timestep at a time."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from stylebatch.errors import StorageError
from stylebatch.store.cache_files import explained
from stylebatch.store.cache_index import (
    ENTRY,
    TRAJECTORY,
    CacheError,
    StyleIndex,
    TensorRow,
    build_member,
)
from stylebatch.store.codecs import LATENT_DTYPE, Array, Codec, cast
from stylebatch.store.commit import atomic_file, start_writing

WRITE_BEHIND_BYTES = 1 << 20
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


class StyleWriter:
    """The tar of one style being written; a context manager that leaves nothing unless `commit` ran.

    `publish` is called once the tar is whole on disk under its temporary name: with the index, and a
    function that gives the tar its final name (a second writer of the same style may leave it out).
    """

    def __init__(
        self,
        path: Path,
        codec: Codec,
        entry: dict[str, Any],
        publish: Callable[[StyleIndex, Callable[[], None]], None],
    ) -> None:
        self.path = path
        self.codec = codec
        self.entry = entry
        self._publish = publish
        self._rows: list[TensorRow] = []
        self._last_timestep = -1
        self._size = self._under_way = 0
        self._files = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> StyleWriter:
        with explained(str(self.path), "written"):
            self._file = self._files.enter_context(atomic_file(self.path, is_last=False))
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
        """Add the features of a timestep, by site and tensor name; timesteps come ascending.

        Raises ValueError, naming timestep, site and tensor, for what the codec refuses, and
        CacheError when the disk does.
        """
        self._append(timestep, features, self.codec.encode)

    def append_encoded(self, timestep: int, encoded: Mapping[int, Mapping[str, Array]]) -> None:
        """As `append`, for tensors in the form that `Codec.encode` gives; the tar has the same bytes."""
        self._append(timestep, encoded, self.codec.checked)

    def _append(
        self,
        timestep: int,
        features: Mapping[int, Mapping[str, Array]],
        stored_form: Callable[[Mapping[str, Array]], dict[str, Array]],
    ) -> None:
        if timestep <= self._last_timestep or not features:
            raise ValueError(
                f"timestep {timestep} with {len(features)} sites after timestep {self._last_timestep}; "
                "accepted: ascending timesteps with at least one site"
            )
        by_name: dict[str, Array] = {}
        for site, tensors in features.items():
            try:
                stored = stored_form(tensors)
            except ValueError as error:
                raise ValueError(f"timestep {timestep}, site {site}: {error}") from error
            by_name |= {f"{site}.{name}": array for name, array in stored.items()}
        self._add_tensors(f"{timestep:04d}.safetensors", by_name)
        self._last_timestep = timestep

    def commit(self, trajectory: Mapping[int, Array]) -> None:
        """Add the latents (c, h, w) by noise level and make the style visible, durably.

        Stored in ascending order of level as float32, so that a reverse starts from the same latents
        whether or not they went through the cache. Raises ValueError for an empty trajectory and
        non-finite latents, CacheError when the disk is full.
        """
        if not trajectory:
            raise ValueError("trajectory: no latents; accepted: at least the last one")
        levels = sorted(trajectory)
        latents = np.stack([np.asarray(trajectory[level]) for level in levels])
        entry = json.dumps(self.entry, indent=1, sort_keys=True, ensure_ascii=False)
        self._add(ENTRY, [entry.encode()])
        self._add_tensors(
            TRAJECTORY,
            {
                "latents": cast(latents, LATENT_DTYPE, "trajectory"),
                "levels": np.array(levels, np.int64),
            },
        )
        with explained(str(self.path), "written"):
            file = self._opened()
            file.write(END_OF_TAR)
            self._size += len(END_OF_TAR)
            file.flush()
            os.fsync(file.fileno())  # here, so that `publish` holds its lock for a moment only
            self._publish(StyleIndex(tuple(self._rows), self._size, self.entry), self._finish)

    def _add_tensors(self, name: str, tensors: dict[str, Array]) -> None:
        parts, rows = build_member(name, tensors, self._size + tarfile.BLOCKSIZE)
        self._add(name, parts)
        self._rows += rows

    def _add(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Append a file to the tar: a header of one block, the parts, and zeros up to a whole block."""
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = sum(map(len, parts)), 0, 0o644
        header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
        file = self._opened()
        try:
            with explained(str(self.path), "written"):
                for part in (header, *parts, bytes(-info.size % tarfile.BLOCKSIZE)):
                    file.write(part)
                    self._size += len(part)
                if self._size - self._under_way >= WRITE_BEHIND_BYTES:
                    start_writing(file, self._under_way, self._size)
                    self._under_way = self._size
        except CacheError:
            self._drop()  # half a member lies at the end
            raise

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError(
                f"{self.path}: the writer is closed; accepted: use within its `with` block"
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
    """Unwinds the file of a style that was not committed or is there already."""
