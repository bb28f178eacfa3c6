"""Content-addressed cache of inverted styles: per style a WebDataset tar and its Parquet index.

`<key>.tar` is complete once it has its name; `<key>.parquet` is renamed last and makes the style
visible. A remote cache is read through a local folder, which is a cache of its own: bound it with
`StyleCache(local).gc(...)`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import xxhash

from stylebatch.store.cache_files import CacheFiles, FileFacts
from stylebatch.store.cache_index import (
    FORMAT,
    CacheError,
    DamagedStyleError,
    MissingStyleError,
    StyleIndex,
    key_of,
    read_entry,
    read_tar,
)
from stylebatch.store.cache_writer import StyleWriter
from stylebatch.store.cached_style import CachedStyle
from stylebatch.store.codecs import Array, Codec
from stylebatch.store.commit import TEMPORARY

KEY = re.compile(r"[0-9a-f]{32}")
SET_ASIDE = re.compile(rf"({KEY.pattern})\.damaged-\d+")
DAY_S = 86400.0


@dataclass(frozen=True)
class StyleKey:
    """Everything that decides the stored bytes of a style; `size` is (height, width) in pixels.

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

    `metadata` holds `key` (the ingredients) and `labels`; it is empty where the index is unreadable.
    A remote store tells no use: there `last_used` is `created`.
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
    kind: Literal["damaged", "missing index", "wrong index", "missing tar", "leftover"]
    message: str
    repair: str = ""


class StyleCache:
    """Styles under `root`, a folder or an fsspec URL; a remote one is copied to `local` when read."""

    def __init__(self, root: str | Path, *, local: Path | None = None) -> None:
        self._files = CacheFiles.at(root)
        if self._files.folder is not None:
            self._local = self._files
        else:
            self._local = CacheFiles.at((local or default_local(str(root))).absolute())
        self.folder = self._folder()

    def contains(self, key: str) -> bool:
        """Whether `key` is whole here: a tar of the size that its readable index tells."""
        if self._local_index(key) is not None:
            return True
        return self._is_remote and self._remote_has(key)

    def open(self, key: str) -> CachedStyle:
        """Map a style, first copying it when the cache is remote; notes it as used.

        Raises MissingStyleError when it is not in the cache, DamagedStyleError when its copy is not whole.
        """
        index = self._local_index(key)
        try:
            if index is None and self._is_remote:
                for name in (f"{key}.tar", f"{key}.parquet"):
                    self._files.download(name, self.folder / name)
            if index is None:
                index = self._read_index(self._local, key)
            style = CachedStyle(self.folder / f"{key}.tar", index)
        except FileNotFoundError:
            raise MissingStyleError(
                f"{self._files.path(key)}: not in the style cache. Next: write it with StyleCache.writer, "
                "or run `stylebatch precompute MANIFEST`."
            ) from None
        self._local.touch(f"{key}.parquet")
        return style

    def writer(self, key: StyleKey, labels: Mapping[str, str] | None = None) -> StyleWriter:
        """A writer of this style; `labels` (such as style_id) describe it and are no part of the key.

        When two writers make one style, the first to commit stays.
        """
        entry = {"key": key.ingredients, "labels": dict(labels or {})}
        digest = key.digest

        def publish(index: StyleIndex, finish: Callable[[], None]) -> None:
            self._publish(digest, index, finish)

        return StyleWriter(self.folder / f"{digest}.tar", key.codec, entry, publish)

    def ls(self) -> list[CacheEntry]:
        """The visible styles, by key."""
        listing = self._files.listing()
        return [replace(entry, metadata=self._metadata(entry.key)) for entry in _complete(listing)]

    def verify(self, *, repair: bool = False, leftover_age_s: float = DAY_S) -> Iterator[Finding]:
        """Read every style and compare its tar, its checksums and its index.

        With `repair`, damaged styles are set aside, missing or wrong indexes rebuilt, and temporary
        files of writers that stopped more than `leftover_age_s` ago removed.
        """
        listing, now = self._files.listing(), time.time()
        for name, facts in listing.items():
            if name.startswith(TEMPORARY) and now - facts.modified >= leftover_age_s:
                if repair:
                    self._files.remove(name)
                message = f"{facts.size_bytes} bytes of a writer that stopped"
                yield Finding(name, "leftover", message, "removed" if repair else "")
        for key in _stems(listing, KEY):
            if (finding := self._check(key, repair)) is not None:
                yield finding

    def gc(self, max_bytes: int) -> list[CacheEntry]:
        """Remove styles until the folder holds at most `max_bytes`; what was removed, in order.

        Those set aside go first, then the least recently used; never one that a reader on this host
        has open, so the folder may stay larger.
        """
        with self._files.lock():
            listing = self._files.listing()
            excess = sum(facts.size_bytes for facts in listing.values()) - max_bytes
            aside = [_entry(stem, listing) for stem in _stems(listing, SET_ASIDE)]
            oldest = sorted(_complete(listing), key=lambda entry: (entry.last_used, entry.key))
            removed: list[CacheEntry] = []
            for entry in [*aside, *oldest]:
                if excess <= 0:
                    break
                if self._files.in_use(f"{entry.key}.tar"):
                    continue
                removed.append(replace(entry, metadata=self._metadata(entry.key)))
                self._remove(self._files, entry.key)
                excess -= entry.size_bytes
        return removed

    def set_aside(self, key: str) -> str | None:
        """Rename a damaged style to `<key>.damaged-N`, so that it is made again; its new name.

        Where only the local copy of a remote style is damaged, that copy is removed and the answer
        is None; likewise when there is no such style.
        """
        if self._is_remote:
            self._remove(self._local, key)
            finding = self._check(key, repair=False)
            if finding is None:
                return None
            if finding.kind in ("missing index", "wrong index"):
                self.rebuild_index(key)
                return None
        with self._files.lock():
            listing = self._files.listing()
            present = [name for name in (f"{key}.parquet", f"{key}.tar") if name in listing]
            if not present:
                return None
            taken = set(_stems(listing, SET_ASIDE))
            stem = next(
                s for n in range(1, len(taken) + 2) if (s := f"{key}.damaged-{n}") not in taken
            )
            for name in present:  # the index first: it makes the style visible
                self._files.rename(name, stem + PurePosixPath(name).suffix)
        return stem

    def rebuild_index(self, key: str) -> None:
        """Write `<key>.parquet` anew from the tar; raises DamagedStyleError when the tar is damaged."""
        self._files.write(f"{key}.parquet", self._read_tar(key).to_parquet())

    @property
    def _is_remote(self) -> bool:
        return self._local is not self._files

    def _folder(self) -> Path:
        if self._local.folder is None:
            raise CacheError(f"local: {self._local.root} is no local folder; accepted: a path")
        return self._local.folder

    def _publish(self, key: str, index: StyleIndex, finish: Callable[[], None]) -> None:
        with self._local.lock():
            if self._local_index(key) is None:
                self._local.remove(f"{key}.parquet")
                finish()
                self._local.write(f"{key}.parquet", index.to_parquet())
        if self._is_remote and not self._remote_has(key):
            for name in (f"{key}.tar", f"{key}.parquet"):
                self._files.upload(self.folder / name)

    def _local_index(self, key: str) -> StyleIndex | None:
        """Index of a style that is whole in the local folder."""
        try:
            index = self._read_index(self._local, key)
            size = (self.folder / f"{key}.tar").stat().st_size
        except (FileNotFoundError, DamagedStyleError):
            return None
        return index if size == index.tar_bytes else None

    def _remote_has(self, key: str) -> bool:
        return all(self._files.exists(f"{key}.{suffix}") for suffix in ("parquet", "tar"))

    def _read_index(self, files: CacheFiles, key: str) -> StyleIndex:
        with files.open(f"{key}.parquet") as file:
            return StyleIndex.from_parquet(file, files.path(f"{key}.parquet"))

    def _read_tar(self, key: str) -> StyleIndex:
        with self._files.open(f"{key}.tar") as file:
            return read_tar(file, key, self._files.path(f"{key}.tar"))

    def _check(self, key: str, repair: bool) -> Finding | None:
        """What is wrong with one style, or None."""
        tar = f"{key}.tar"
        try:
            whole = self._read_tar(key)
        except FileNotFoundError:
            if not self._files.exists(f"{key}.parquet"):
                return None  # removed meanwhile
            if repair:
                self._files.remove(f"{key}.parquet")
            done = "removed" if repair else ""
            return Finding(tar, "missing tar", "only its index is there", done)
        except DamagedStyleError as error:
            aside = self.set_aside(key) if repair else None
            return Finding(tar, "damaged", error.what, f"set aside as {aside}" if aside else "")
        kind: Literal["missing index", "wrong index"] = "wrong index"
        try:
            if self._read_index(self._files, key) == whole:
                return None
            message = "differs from the tar"
        except FileNotFoundError:
            with self._files.lock():  # a commit may have been between its two renames
                if self._files.exists(f"{key}.parquet"):
                    return None
            kind, message = "missing index", "the tar is whole"
        except DamagedStyleError as error:
            message = error.what
        if repair:
            self._files.write(f"{key}.parquet", whole.to_parquet())
        return Finding(f"{key}.parquet", kind, message, "rebuilt" if repair else "")

    def _metadata(self, stem: str) -> dict[str, Any]:
        try:
            with self._files.open(f"{stem}.parquet") as file:
                return read_entry(file)
        except FileNotFoundError:
            return {}

    @staticmethod
    def _remove(files: CacheFiles, stem: str) -> None:
        for suffix in ("parquet", "tar"):
            files.remove(f"{stem}.{suffix}")


def default_local(root: str) -> Path:
    """Where copies of a remote cache lie: a folder of the user's cache, one for each root."""
    return (
        Path.home() / ".cache" / "stylebatch" / "styles" / xxhash.xxh3_64_hexdigest(root.encode())
    )


def _stems(listing: Mapping[str, FileFacts], pattern: re.Pattern[str]) -> list[str]:
    """Names without `.tar` and `.parquet` that match, sorted."""
    paths = [PurePosixPath(name) for name in listing]
    stems = {path.stem for path in paths if path.suffix in (".tar", ".parquet")}
    return sorted(stem for stem in stems if pattern.fullmatch(stem))


def _complete(listing: Mapping[str, FileFacts]) -> list[CacheEntry]:
    """The styles that have a tar and an index, without their metadata."""
    return [
        _entry(key, listing)
        for key in _stems(listing, KEY)
        if {f"{key}.tar", f"{key}.parquet"} <= listing.keys()
    ]


def _entry(stem: str, listing: Mapping[str, FileFacts]) -> CacheEntry:
    present = [listing[n] for n in (f"{stem}.tar", f"{stem}.parquet") if n in listing]
    return CacheEntry(
        key=stem,
        size_bytes=sum(facts.size_bytes for facts in present),
        created=present[0].modified,
        last_used=present[-1].modified,
        metadata={},
    )
