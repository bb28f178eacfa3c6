"""Content-addressed cache of inverted styles: per style a WebDataset tar and its Parquet index.

`<key>.tar` is complete once it has its name; `<key>.parquet` is renamed last and makes the style
visible. A remote cache is read through a local folder, which is a cache of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import xxhash

from stylebatch.errors import OddFileError
from stylebatch.features.cache_checks import checked
from stylebatch.features.cache_folder import folder_at, in_use, locked, regular, touch
from stylebatch.features.cache_index import (
    FORMAT,
    CacheError,
    DamagedStyleError,
    MissingStyleError,
    StyleFault,
    StyleIndex,
    key_of,
    read_entry,
)
from stylebatch.features.cache_members import read_tar
from stylebatch.features.cache_writer import StyleWriter
from stylebatch.features.cached_style import CachedStyle
from stylebatch.features.codecs import Array, Codec
from stylebatch.folder import COPY_BYTES, Folder, Place
from stylebatch.local_files import TEMPORARY, Facts
from stylebatch.masking import masked

KEY = re.compile(r"[0-9a-f]{32}")
SET_ASIDE = re.compile(rf"({KEY.pattern})\.damaged-\d+")
DAY_S = 86400.0
_FILES = (".parquet", ".tar")
"""The files of a style. The index is removed first, since it makes the style visible."""


@dataclass(frozen=True)
class StyleKey:
    """Everything that affects the stored bytes of a style; `size` is (height, width) in pixels.

    `pixels` comes from `hash_pixels`, `model` is the checkpoint's fingerprint, `dtype` the network's. `rule` and
    `grid`: solver and timesteps of the inversion, "" for those of the paper.
    """

    pixels: str
    model: str
    dtype: str
    size: tuple[int, int]
    convention: str
    start: str
    steps: int
    sites: tuple[int, ...]
    prompt: str
    codec: Codec
    rule: str = ""
    grid: str = ""

    @property
    def ingredients(self) -> dict[str, Any]:
        """The fields, less an empty rule or grid, and the format version as JSON values."""
        fields = {k: v for k, v in asdict(self).items() if v != "" or k not in ("rule", "grid")}
        found: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **fields}))
        return found

    @property
    def digest(self) -> str:
        """The style's name in the cache: 32 hexadecimal digits."""
        return key_of(self.ingredients)


def hash_pixels(pixels: Array) -> str:
    """xxh3-128 of a preprocessed image's type, shape and values."""
    digest = xxhash.xxh3_128(f"{pixels.dtype.str}{pixels.shape}".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """A style in the cache; times in seconds since the epoch.

    `metadata` holds `key` (the ingredients) and `labels`, or `format` if that is an old one; it is empty if the index cannot
    be read. Remote stores record no use: there `last_used` is `created`.
    """

    key: str
    size_bytes: int
    created: float
    last_used: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something that `verify` found; `repair` says what was done about it, if anything."""

    name: str
    kind: StyleFault | Literal["missing index", "wrong index", "missing tar", "leftover"]
    message: str
    repair: str = ""


class StyleCache:
    """Styles under `root`, a folder or an fsspec URL; a remote one is copied to `local`, which `most_copies` bounds in bytes."""

    def __init__(
        self, root: Place, *, local: Place | None = None, most_copies: int | None = None
    ) -> None:
        self.most_copies = most_copies
        self._files = folder_at(root)
        if self._files.local is not None:
            self._local = self._files
        else:
            self._local = folder_at(local or default_local(str(root)))
        self.folder = self._folder()

    def contains(self, key: str) -> bool:
        """Whether the cache holds `key` completely: a readable index, and a tar of the size that it names."""
        if self._local_index(key) is not None:
            return True
        return self._is_remote and self._remote_has(key)

    def open(self, key: str) -> CachedStyle:
        """Map a style, after copying it if the cache is remote, and record its use.

        Raises MissingStyleError if it is not in the cache, DamagedStyleError if its copy is damaged.
        """
        index = self._local_index(key)
        is_new = index is None and self._is_remote
        try:
            if is_new:
                for name in (f"{key}.tar", f"{key}.parquet"):
                    self._download(name)
            if index is None:
                index = self._read_index(self._local, key)
            path = self.folder / f"{key}.tar"
            with regular(str(path)):
                style = CachedStyle(path, index)
        except FileNotFoundError:
            raise MissingStyleError(
                f"{self._files.where(key)}: not in the style cache. Next: write it with StyleCache.writer, "
                "or run `stylebatch precompute MANIFEST`."
            ) from None
        touch(self._local, f"{key}.parquet")  # `gc` goes by the index's time
        if is_new:
            self._bound_copies()
        return style

    def writer(self, key: StyleKey, labels: Mapping[str, str] | None = None) -> StyleWriter:
        """A writer of this style; `labels` (such as style_id) describe it and are not part of the key.

        If two writers make one style, the first to commit wins.
        """
        entry = {"key": key.ingredients, "labels": dict(labels or {})}
        digest = key.digest

        def publish(index: StyleIndex, finish: Callable[[], None]) -> None:
            self._publish(digest, index, finish)

        return StyleWriter(self._local, f"{digest}.tar", key.codec, entry, publish)

    def ls(self) -> list[CacheEntry]:
        """The visible styles, by key."""
        listing = self._files.list()
        return [replace(entry, metadata=self._metadata(entry.key)) for entry in _complete(listing)]

    def verify(self, *, repair: bool = False, leftover_age_s: float = DAY_S) -> Iterator[Finding]:
        """Read every style and compare its tar, its checksums and its index.

        With `repair`, damaged and old styles are set aside, missing or wrong indexes rebuilt, and temporary
        files of writers that stopped more than `leftover_age_s` ago removed.
        """
        listing, now = self._files.list(), time.time()
        for name, facts in listing.items():
            if name.startswith(TEMPORARY) and now - facts.modified >= leftover_age_s:
                if repair:
                    self._files.remove(name)
                message = f"{facts.size_bytes} bytes of a writer that stopped"
                yield Finding(name, "leftover", message, "removed" if repair else "")
        for key in _stems(listing, KEY):
            if (finding := self._check(key, repair)) is not None:
                yield finding

    def gc(self, max_bytes: int, *, dry_run: bool = False) -> list[CacheEntry]:
        """Remove styles until the folder holds at most `max_bytes`; returns those, in order, or (`dry_run`) those that would be.

        First go those set aside, then the least recently used; never one that a reader on this host has open, so more may stay.
        """
        with nullcontext() if dry_run else locked(self._files):
            listing = self._files.list()
            excess = sum(facts.size_bytes for facts in listing.values()) - max_bytes
            aside = [_entry(stem, listing) for stem in _stems(listing, SET_ASIDE)]
            oldest = sorted(_complete(listing), key=lambda entry: (entry.last_used, entry.key))
            removed: list[CacheEntry] = []
            for entry in [*aside, *oldest]:
                if excess <= 0:
                    break
                if in_use(self._files, f"{entry.key}.tar"):
                    continue
                removed.append(replace(entry, metadata=self._metadata(entry.key)))
                if not dry_run:
                    self._remove(self._files, entry.key)
                excess -= entry.size_bytes
            return removed

    def recover(self, key: str) -> str | None:
        """Repair a style that cannot be used: rebuild its index if its tar is complete, else set it aside.

        Returns the new name of a style set aside; None if the tar is complete or gone. The local copy of a remote style is
        removed first, since it may be the only damaged one.
        """
        if self._is_remote:
            self._remove(self._local, key)
        finding = self._check(key, repair=False)
        if finding is None or finding.kind == "missing tar":
            return None
        if finding.kind in ("damaged", "old format"):
            return self.set_aside(key)
        self.rebuild_index(key)
        return None

    def set_aside(self, key: str) -> str | None:
        """Rename a style to `<key>.damaged-N`, so that it is made again; returns the new name, or None if it is missing."""
        if self._is_remote:
            self._remove(self._local, key)
        with locked(self._files):
            return self._rename_aside(self._files, key, _FILES)

    def rebuild_index(self, key: str) -> None:
        """Write `<key>.parquet` from the tar. Raises DamagedStyleError if the tar is damaged."""
        self._write_index(key, self._read_tar(key))

    @property
    def _is_remote(self) -> bool:
        return self._local is not self._files

    def _folder(self) -> Path:
        if self._local.local is None:
            raise CacheError(f"local: {self._local} is no local folder; accepted: a path")
        return self._local.local

    def _download(self, name: str) -> None:
        """Copy a file of a remote cache to the local folder, atomically. Raises FileNotFoundError if there is none."""
        with self._files.open(name) as source, self._local.writing(name) as file:
            shutil.copyfileobj(source, file, COPY_BYTES)

    def _publish(self, key: str, index: StyleIndex, finish: Callable[[], None]) -> None:
        with locked(self._local):
            if self._local_index(key) is None:
                self._clear_the_way(key)
                # without an index nobody sees the new tar before its own index is there
                self._local.remove(f"{key}.parquet")
                finish()
                self._local.write(f"{key}.parquet", index.to_parquet())
        if self._is_remote and not self._remote_has(key):
            # the tar first: the index makes the style visible
            for name in (f"{key}.tar", f"{key}.parquet"):
                self._files.put(name, self.folder / name)
            self._bound_copies()

    def _bound_copies(self) -> None:
        if self.most_copies is not None:
            StyleCache(self.folder).gc(self.most_copies)

    def _local_index(self, key: str) -> StyleIndex | None:
        """The index of a style that is complete in the local folder, else None."""
        try:
            index = self._read_index(self._local, key)
            tar = self._local.facts(f"{key}.tar")
        except (FileNotFoundError, DamagedStyleError):
            return None
        is_complete = tar is not None and tar.is_file and tar.size_bytes == index.tar_bytes
        return index if is_complete else None

    def _write_index(self, key: str, index: StyleIndex) -> None:
        self._clear_the_way(key)
        self._files.write(f"{key}.parquet", index.to_parquet())

    def _clear_the_way(self, key: str) -> None:
        """Rename folders and pipes that have a name of this style: they are not ours to remove, and block the rename."""
        found = {suffix: self._local.facts(key + suffix) for suffix in _FILES}
        odd = [suffix for suffix, facts in found.items() if facts and not facts.is_file]
        self._rename_aside(self._local, key, odd)

    @staticmethod
    def _rename_aside(files: Folder, key: str, suffixes: Sequence[str]) -> str | None:
        names = files.names()
        present = [suffix for suffix in suffixes if key + suffix in names]
        if not present:
            return None
        taken = {PurePosixPath(name).stem for name in names}
        stem = next(s for n in count(1) if (s := f"{key}.damaged-{n}") not in taken)
        for suffix in present:
            files.rename(key + suffix, stem + suffix)
        return stem

    def _remote_has(self, key: str) -> bool:
        return all(self._has(key + suffix) for suffix in _FILES)

    def _has(self, name: str) -> bool:
        return self._files.facts(name) is not None

    def _read_index(self, files: Folder, key: str) -> StyleIndex:
        where = files.where(f"{key}.parquet")
        with regular(where), files.open(f"{key}.parquet") as file:
            return checked(StyleIndex.from_parquet(file, where), key, where)

    def _read_tar(self, key: str) -> StyleIndex:
        where = self._files.where(f"{key}.tar")
        with regular(where), self._files.open(f"{key}.tar") as file:
            return checked(read_tar(file, key, where), key, where)

    def _check(self, key: str, repair: bool) -> Finding | None:
        """What is wrong with one style, or None."""
        tar = f"{key}.tar"
        try:
            index = self._read_tar(key)
        except FileNotFoundError:
            if not self._has(f"{key}.parquet"):
                return None  # removed meanwhile
            if repair:
                self._files.remove(f"{key}.parquet")
            done = "removed" if repair else ""
            return Finding(tar, "missing tar", "only its index is there", done)
        except DamagedStyleError as error:
            aside = self.set_aside(key) if repair else None
            return Finding(tar, error.kind, error.what, f"set aside as {aside}" if aside else "")
        kind: Literal["missing index", "wrong index"] = "wrong index"
        try:
            if self._read_index(self._files, key) == index:
                return None
            message = "differs from the tar"
        except FileNotFoundError:
            with locked(self._files):  # a commit may be between its two renames
                if self._has(f"{key}.parquet"):
                    return None
            kind, message = "missing index", "the tar is whole"
        except DamagedStyleError as error:
            message = error.what
        if repair:
            self._write_index(key, index)
        return Finding(f"{key}.parquet", kind, message, "rebuilt" if repair else "")

    def _metadata(self, stem: str) -> dict[str, Any]:
        try:
            with self._files.open(f"{stem}.parquet") as file:
                return read_entry(file)
        except (FileNotFoundError, OddFileError):
            return {}

    @staticmethod
    def _remove(files: Folder, stem: str) -> None:
        for suffix in _FILES:
            files.remove(stem + suffix)


def default_local(root: str) -> str:
    """The folder for copies of a remote cache, below the user's cache folder; the same for any credentials in `root`."""
    name = xxhash.xxh3_64_hexdigest(masked(root).encode())
    return str(Path.home() / ".cache" / "stylebatch" / "styles" / name)


def _stems(listing: Mapping[str, Facts], pattern: re.Pattern[str]) -> list[str]:
    """Names without `.tar` and `.parquet` that match, sorted."""
    paths = [PurePosixPath(name) for name in listing]
    stems = {path.stem for path in paths if path.suffix in (".tar", ".parquet")}
    return sorted(stem for stem in stems if pattern.fullmatch(stem))


def _complete(listing: Mapping[str, Facts]) -> list[CacheEntry]:
    """The styles that have a tar and an index, without their metadata."""
    return [
        _entry(key, listing)
        for key in _stems(listing, KEY)
        if {f"{key}.tar", f"{key}.parquet"} <= listing.keys()
    ]


def _entry(stem: str, listing: Mapping[str, Facts]) -> CacheEntry:
    present = [listing[n] for n in (f"{stem}.tar", f"{stem}.parquet") if n in listing]
    return CacheEntry(
        key=stem,
        size_bytes=sum(facts.size_bytes for facts in present),
        created=present[0].modified,
        last_used=present[-1].modified,
        metadata={},
    )
