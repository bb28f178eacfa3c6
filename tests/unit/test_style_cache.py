"""A cached style is whole and undamaged, or it is not there."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from safetensors.numpy import load

from stylebatch.errors import StorageError
from stylebatch.features.cache_index import CacheError, DamagedStyleError, key_of
from stylebatch.features.codecs import Codec, CodecName
from stylebatch.features.style_cache import StyleCache, hash_pixels
from tests.support.styles import (
    CODECS,
    LEVELS,
    TIMESTEPS,
    equal,
    features,
    flip,
    latents,
    rows,
    style_key,
    write,
)


@pytest.fixture
def cache(tmp_path: Path) -> StyleCache:
    return StyleCache(tmp_path / "cache")


def test_webdataset_reads_the_tar(cache: StyleCache) -> None:
    path = cache.folder / f"{write(cache, style_key())}.tar"
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] == ["0001", "0251", "0501", "0751", "style"]
    stored = load(samples[1]["safetensors"])
    assert np.array_equal(stored["7.v"], features("kv", 251)[7]["v"].astype(np.float16))
    assert json.loads(samples[-1]["json"])["key"]["steps"] == 4
    assert load(samples[-1]["safetensors"])["levels"].tolist() == list(LEVELS)


def test_bytes_do_not_depend_on_time_place_or_owner(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        cache = StyleCache(tmp_path / name)
        key = write(cache, style_key())
        digests.add(tuple((cache.folder / f"{key}.{s}").read_bytes() for s in ("tar", "parquet")))
    assert len(digests) == 1
    with tarfile.open(tmp_path / "a" / f"{style_key().digest}.tar") as tar:
        assert {(i.mtime, i.uid, i.gid, i.uname, i.mode) for i in tar} == {(0, 0, 0, "", 0o644)}


@pytest.mark.parametrize("codec", CODECS)
def test_a_style_that_is_read_and_written_has_the_same_bytes(
    tmp_path: Path, codec: CodecName
) -> None:
    first, second = StyleCache(tmp_path / "first"), StyleCache(tmp_path / "second")
    key = style_key(codec=codec)
    write(first, key)
    style = first.open(key.digest)
    with second.writer(key, style.entry["labels"]) as writer:
        for timestep in TIMESTEPS:
            writer.append(timestep, style.at(timestep))
        writer.commit(style.trajectory())
    for suffix in ("tar", "parquet"):
        name = f"{key.digest}.{suffix}"
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": "two"},
        {"model": "e" * 64},
        {"dtype": "bfloat16"},
        {"size": (64, 128)},
        {"convention": "diffusers"},
        {"start": "paper"},
        {"steps": 5},
        {"sites": (6,)},
        {"prompt": "a"},
        {"codec": Codec("kv", "float32")},
    ],
)
def test_other_ingredients_have_another_key(change: dict[str, Any]) -> None:
    assert replace(style_key(), **change).digest != style_key().digest


def test_pixels_of_other_shape_have_another_hash() -> None:
    pixels = np.arange(24, dtype=np.uint8)
    assert len({hash_pixels(pixels.reshape(s)) for s in ((2, 4, 3), (4, 2, 3))}) == 2
    assert hash_pixels(pixels) == hash_pixels(pixels[::-1][::-1])


def test_writer_that_fails_leaves_nothing(cache: StyleCache) -> None:
    with pytest.raises(KeyError), cache.writer(style_key()) as writer:  # noqa: PT012
        writer.append(1, features("kv", 1))
        raise KeyError
    assert os.listdir(cache.folder) == []
    with cache.writer(style_key()) as writer:
        writer.append(1, features("kv", 1))
    assert os.listdir(cache.folder) == []
    with pytest.raises(ValueError, match="writer is closed"):
        writer.append(251, features("kv", 251))


def test_wrong_features_are_refused(cache: StyleCache) -> None:
    bad = features("kv", 1)
    bad[7]["v"][0, 0, 0] = np.nan
    with cache.writer(style_key()) as writer:
        with pytest.raises(ValueError, match=r"timestep 1, site 7: v: holds NaN"):
            writer.append(1, bad)
        with pytest.raises(ValueError, match=r"timestep 1, site 6: k: found float32"):
            writer.append(
                1, {6: {k: a.astype(np.float32) for k, a in features("kv", 1)[6].items()}}
            )
        writer.append(251, features("kv", 251))
        for timestep in (251, 1):
            with pytest.raises(ValueError, match="ascending"):
                writer.append(timestep, features("kv", timestep))
        with pytest.raises(ValueError, match="no latents"):
            writer.commit({})
        writer.commit(latents())
    assert cache.open(style_key().digest).timesteps == (251,)


def test_missing_style_is_explained(cache: StyleCache) -> None:
    with pytest.raises(CacheError, match=r"not in the style cache. Next: .*precompute"):
        cache.open("0" * 32)
    with pytest.raises(CacheError, match=r"nosuch://x.*Accepted: a folder, or a URL"):
        StyleCache("nosuch://x")


def test_disk_error_names_the_cache_and_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with (
        pytest.raises(StorageError, match=r"cache.*cannot be written.*cache gc CACHE --max-bytes"),
        StyleCache(tmp_path / "cache").writer(style_key()),
    ):
        pass


def test_second_commit_does_not_mix_two_builds(cache: StyleCache) -> None:
    """Float results may differ between devices: the tar of one never meets the index of another."""
    with cache.writer(style_key()) as late:
        late.append(1, features("kv", 2))
        write(cache, style_key())
        reader = cache.open(style_key().digest)
        late.commit(latents())
    assert list(cache.verify()) == []
    assert cache.open(style_key().digest).timesteps == reader.timesteps == TIMESTEPS


def test_flipped_byte_is_found_and_never_used(cache: StyleCache) -> None:
    key = write(cache, style_key())
    row = next(row for row in rows(cache, key) if (row.timestep, row.site) == (501, 7))
    flip(cache.folder / f"{key}.tar", row.offset + 5)
    style = cache.open(key)
    style.at(251)
    with pytest.raises(DamagedStyleError, match=rf"{key}.tar: tensor {row.tensor} of site 7"):
        style.at(501)
    (finding,) = cache.verify()
    assert (finding.kind, finding.repair) == ("damaged", "")
    assert "0501.safetensors" in finding.message
    assert cache.set_aside(key) == f"{key}.damaged-1"
    assert not cache.contains(key)
    assert cache.ls() == []
    write(cache, style_key())
    assert cache.set_aside(key) == f"{key}.damaged-2"
    assert cache.set_aside(key) is None
    assert equal(cache.open(write(cache, style_key())).at(501), cache.open(key).at(501))
    assert (cache.folder / f"{key}.damaged-1.tar").exists()


def test_damage_outside_the_tensors_is_found(cache: StyleCache) -> None:
    """Tar headers, safetensors headers and style.json: all that a rebuilt index rests on."""
    key = write(cache, style_key())
    tar = cache.folder / f"{key}.tar"
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        members = list(opened)
    spots = [m.offset + 130 for m in members] + [m.offset_data + 12 for m in members]
    spots += [whole.index(b'"steps": 4') + 9, len(whole) - 3000]
    for spot in spots:
        tar.write_bytes(whole)
        flip(tar, spot)
        assert [finding.kind for finding in cache.verify()] == ["damaged"], spot
    for size in (len(whole) // 2, 0):
        tar.write_bytes(whole[:size])
        assert not cache.contains(key)
        with pytest.raises(DamagedStyleError):
            cache.open(key)
        assert [finding.kind for finding in cache.verify()] == ["damaged"]
    (finding,) = cache.verify(repair=True)
    assert finding.repair == f"set aside as {key}.damaged-1"
    assert list(cache.verify()) == []


def test_lost_index_is_rebuilt_as_it_was(cache: StyleCache) -> None:
    key = write(cache, style_key(codec="x8"))
    path = cache.folder / f"{key}.parquet"
    original = path.read_bytes()
    path.unlink()
    assert not cache.contains(key)
    (finding,) = cache.verify()
    assert (finding.kind, finding.repair) == ("missing index", "")
    (finding,) = cache.verify(repair=True)
    assert (finding.kind, finding.repair) == ("missing index", "rebuilt")
    assert path.read_bytes() == original
    path.write_bytes(original[:-9])
    assert not cache.contains(key)
    assert cache.ls()[0].metadata == {}
    assert [finding.kind for finding in cache.verify(repair=True)] == ["wrong index"]
    assert path.read_bytes() == original


def test_damaged_tar_gets_no_fresh_index(cache: StyleCache) -> None:
    key = write(cache, style_key())
    offset = rows(cache, key)[3].offset
    (cache.folder / f"{key}.parquet").unlink()
    flip(cache.folder / f"{key}.tar", offset)
    with pytest.raises(DamagedStyleError, match="does not match its checksum"):
        cache.rebuild_index(key)
    assert [finding.kind for finding in cache.verify(repair=True)] == ["damaged"]
    assert not cache.contains(key)


def test_a_style_of_an_older_format_is_named_as_such(cache: StyleCache) -> None:
    now = write(cache, style_key("a"))
    old = _as_format_2(cache, now)
    assert [entry.metadata for entry in cache.ls() if entry.key == old] == [{"format": 2}]
    with pytest.raises(
        DamagedStyleError, match=r"of a style of format 2; accepted: format 3\. Next: `stylebatch"
    ):
        cache.open(old)
    (finding,) = cache.verify()
    assert (finding.name, finding.kind) == (f"{old}.tar", "old format")
    (finding,) = cache.verify(repair=True)
    assert finding.repair == f"set aside as {old}.damaged-1"
    assert list(cache.verify()) == []
    assert cache.contains(now)


def _as_format_2(cache: StyleCache, key: str) -> str:
    """Writes a style again as format 2 had it: without checksums of its entry and index, the entry before the latents."""
    with tarfile.open(cache.folder / f"{key}.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    entry = {name: json.loads(files["style.json"])[name] for name in ("key", "labels")}
    entry["key"]["format"] = 2
    old = key_of(entry["key"])
    files["style.json"] = json.dumps(entry, indent=1, sort_keys=True).encode()
    last = files.pop("style.safetensors")
    with tarfile.open(cache.folder / f"{old}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (*files.items(), ("style.safetensors", last)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    table = pq.read_table(cache.folder / f"{key}.parquet")
    facts = json.dumps({"tar_bytes": 1, **entry}, sort_keys=True)
    told = table.replace_schema_metadata({"stylebatch": facts})
    pq.write_table(told, cache.folder / f"{old}.parquet", compression="zstd")
    return old


def test_index_without_a_tar_is_invisible(cache: StyleCache) -> None:
    key = write(cache, style_key())
    (cache.folder / f"{key}.tar").unlink()
    assert not cache.contains(key)
    assert cache.ls() == []
    (finding,) = cache.verify(repair=True)
    assert (finding.name, finding.kind) == (f"{key}.tar", "missing tar")
    assert os.listdir(cache.folder) == [".lock"]


def use(cache: StyleCache, key: str, second: int) -> None:
    """Pretend that `key` was last used at this second."""
    os.utime(cache.folder / f"{key}.parquet", (second, second))


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_gc_drops_the_least_recently_used_and_none_in_use(cache: StyleCache) -> None:
    keys = [write(cache, style_key(name)) for name in "abcd"]
    for second, key in enumerate(keys):
        use(cache, key, 1000 + second)
    size = total(cache.folder) // 4
    reader = cache.open(keys[1])
    use(cache, keys[1], 0)  # the oldest, but open
    cache.open(keys[0])  # used again, and closed
    removed = cache.gc(2 * size + 100)
    assert [entry.key for entry in removed] == [keys[2], keys[3]]
    assert removed[0].metadata["labels"] == {"style_id": "monet.png"}
    assert total(cache.folder) <= 2 * size + 100
    assert sorted(entry.key for entry in cache.ls()) == sorted(keys[:2])
    assert [entry.key for entry in cache.gc(0)] == [keys[0]]
    view = reader.at(1)[6]["k"]
    del reader
    assert cache.gc(0) == []  # an array of it is still in use
    assert np.isfinite(view).all()
    del view
    assert [entry.key for entry in cache.gc(0)] == [keys[1]]


def test_gc_drops_first_what_was_set_aside(cache: StyleCache) -> None:
    keys = [write(cache, style_key(name)) for name in "ab"]
    cache.set_aside(keys[0])
    assert [entry.key for entry in cache.gc(total(cache.folder) - 1)] == [f"{keys[0]}.damaged-1"]
    assert cache.contains(keys[1])
    assert cache.gc(10**9) == []


def test_ls_tells_what_a_style_is(cache: StyleCache) -> None:
    key = write(cache, style_key())
    use(cache, key, 1234)
    (entry,) = cache.ls()
    assert (entry.key, entry.last_used) == (key, 1234)
    assert entry.size_bytes == total(cache.folder)
    assert entry.created > 1e9
    assert entry.metadata["key"]["model"] == "f" * 64
    assert entry.metadata["key"]["codec"] == {"name": "kv", "dtype": "float16"}
    cache.open(key)
    assert cache.ls()[0].last_used > 1e9
