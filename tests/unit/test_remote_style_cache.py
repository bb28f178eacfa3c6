"""A style cache on a remote store is read through a local copy, and whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from stylebatch.features.cache_index import CacheError, DamagedStyleError
from stylebatch.features.style_cache import StyleCache
from tests.support.styles import (
    TIMESTEPS,
    equal,
    flip,
    rows,
    style_key,
    write,
)


@pytest.fixture
def memory() -> Iterator[str]:
    """A remote root, emptied afterwards."""
    root = f"memory://styles-{uuid4().hex}"
    yield root
    filesystem, path = fsspec.core.url_to_fs(root)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_local_urls_are_used_in_place(tmp_path: Path, protocol: str) -> None:
    cache = StyleCache(f"{protocol}://{tmp_path}/cache")
    assert cache.folder == tmp_path / "cache"
    key = write(cache, style_key())
    assert StyleCache(tmp_path / "cache").open(key).timesteps == TIMESTEPS
    assert list(cache.verify(repair=True)) == []
    cache.set_aside(key)
    assert (tmp_path / "cache" / f"{key}.damaged-1.parquet").exists()


def test_remote_style_is_made_once(tmp_path: Path, memory: str) -> None:
    key = write(StyleCache(memory, local=tmp_path / "one"), style_key())
    other = StyleCache(memory, local=tmp_path / "two")
    assert other.contains(key)
    assert not (tmp_path / "two").exists()
    style = other.open(key)
    assert equal(style.at(501), StyleCache(tmp_path / "one").open(key).at(501))
    assert sorted(os.listdir(tmp_path / "two")) == [f"{key}.parquet", f"{key}.tar"]
    assert [entry.metadata["labels"]["style_id"] for entry in other.ls()] == ["monet.png"]
    assert list(other.verify()) == []
    assert [entry.key for entry in other.gc(0)] == [key]
    assert other.ls() == []
    with pytest.raises(CacheError, match="not in the style cache"):
        StyleCache(memory, local=tmp_path / "three").open(key)


class LosesIndexes(MemoryFileSystem):
    """A remote store that fails when a Parquet file is uploaded."""

    protocol = "loses-indexes"
    sent: ClassVar[list[str]] = []

    def put_file(self, lpath: str, rpath: str) -> None:
        self.sent.append(Path(lpath).suffix)
        if lpath.endswith(".parquet"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().put_file(lpath, rpath)


def test_remote_index_goes_up_after_its_tar(tmp_path: Path) -> None:
    fsspec.register_implementation("loses-indexes", LosesIndexes, clobber=True)
    root = f"loses-indexes://styles-{uuid4().hex}"
    with pytest.raises(CacheError, match=r"parquet: cannot be uploaded: Input/output error. Next"):
        write(StyleCache(root, local=tmp_path / "one"), style_key())
    assert LosesIndexes.sent == [".tar", ".parquet"]
    other = StyleCache(root, local=tmp_path / "two")
    assert not other.contains(style_key().digest)
    assert other.ls() == []
    assert [f.kind for f in other.verify(repair=True)] == ["missing index"]
    assert other.open(style_key().digest).timesteps == TIMESTEPS


def test_damaged_copy_does_not_condemn_the_remote_style(tmp_path: Path, memory: str) -> None:
    cache = StyleCache(memory, local=tmp_path / "copy")
    key = write(cache, style_key())
    flip(tmp_path / "copy" / f"{key}.tar", rows(cache, key)[0].offset)
    with pytest.raises(DamagedStyleError):
        cache.open(key).at(1)
    assert cache.recover(key) is None
    assert cache.open(key).at(1)
    filesystem, path = fsspec.core.url_to_fs(f"{memory}/{key}.tar")
    data = bytearray(filesystem.cat_file(path))
    data[rows(cache, key)[0].offset] ^= 1
    filesystem.pipe_file(path, bytes(data))
    assert cache.recover(key) == f"{key}.damaged-1"
    assert not cache.contains(key)
    write(cache, style_key())
    assert list(cache.verify()) == []


def test_copies_of_a_remote_cache_keep_within_their_bound(tmp_path: Path, memory: str) -> None:
    writer = StyleCache(memory, local=tmp_path / "one", most_copies=0)
    keys = [write(writer, style_key(pixels=f"{i:032x}")) for i in range(4)]
    assert [name for name in os.listdir(tmp_path / "one") if name.endswith(".tar")] == []
    size = max(entry.size_bytes for entry in writer.ls())
    reader = StyleCache(memory, local=tmp_path / "two", most_copies=2 * size)
    expected = StyleCache(memory, local=tmp_path / "three")
    for key in keys * 2:
        style = reader.open(key)
        assert equal(style.at(501), expected.open(key).at(501))
        del style
        tars = [name for name in os.listdir(tmp_path / "two") if name.endswith(".tar")]
        assert 1 <= len(tars) <= 3
    held = [
        reader.open(key) for key in keys
    ]  # those in use are beyond the bound, and stay readable
    assert [style.timesteps for style in held] == [TIMESTEPS] * 4
    assert len(reader.ls()) == len(keys)
