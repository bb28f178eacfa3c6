"""What is read from a cached style is what was written, in the order asked, undamaged."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from stylebatch.features import cached_style
from stylebatch.features.cache_index import DamagedStyleError, StyleIndex
from stylebatch.features.cached_style import CachedStyle, SiteArrays, prefetch
from stylebatch.features.codecs import CodecName
from stylebatch.features.style_cache import StyleCache
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


@pytest.mark.parametrize("codec", CODECS)
def test_features_read_are_those_that_were_written(cache: StyleCache, codec: CodecName) -> None:
    key = style_key(codec=codec)
    assert not cache.contains(key.digest)
    style = cache.open(write(cache, key))
    assert cache.contains(key.digest)
    assert style.timesteps == TIMESTEPS
    for t in reversed(TIMESTEPS):
        assert equal(style.at(t), features(codec, t))
        assert equal(features(codec, t), style.at(t))
    assert list(style.trajectory()) == list(LEVELS)
    for level, latent in latents().items():
        assert style.trajectory()[level].dtype == np.float32
        np.testing.assert_array_equal(style.trajectory()[level], latent)
    assert style.entry["key"] == key.ingredients
    assert style.entry["labels"] == {"style_id": "monet.png"}
    with pytest.raises(ValueError, match=r"timestep 2 is not stored; accepted: \[1, 251"):
        style.at(2)


def test_trajectory_alone_needs_no_features(cache: StyleCache) -> None:
    style = cache.open(write(cache, style_key(codec="trajectory")))
    assert style.timesteps == ()
    assert list(style.trajectory()) == list(LEVELS)


def test_float_features_are_not_copied_when_read(cache: StyleCache) -> None:
    style = cache.open(write(cache, style_key(codec="kv")))
    first, again = style.at(251)[6]["k"], style.at(251)[6]["k"]
    assert np.shares_memory(first, again)
    stored = (cache.folder / f"{style_key().digest}.tar").read_bytes()
    first[:] = 0  # the mapping is private
    assert (cache.folder / f"{style_key().digest}.tar").read_bytes() == stored


def test_reader_keeps_a_style_that_is_replaced_or_removed(cache: StyleCache) -> None:
    key = write(cache, style_key())
    style = cache.open(key)
    cache.set_aside(key)
    write(cache, style_key())
    for name in os.listdir(cache.folder):
        (cache.folder / name).unlink()
    assert equal(style.at(501), style.at(501))
    assert list(style.trajectory()) == list(LEVELS)


@pytest.mark.parametrize("order", [TIMESTEPS, TIMESTEPS[::-1], (501, 1, 501)])
@pytest.mark.parametrize("codec", CODECS)
def test_prefetch_gives_the_same_arrays_in_the_order_asked(
    cache: StyleCache, codec: CodecName, order: tuple[int, ...]
) -> None:
    styles = [cache.open(write(cache, style_key(name, codec))) for name in "ab"]
    seen = list(prefetch(styles, order))
    assert [timestep for timestep, _ in seen] == list(order)
    for timestep, both in seen:
        assert all(equal(loaded, styles[0].at(timestep)) for loaded in both)
    assert list(prefetch(styles, ())) == []


@pytest.mark.parametrize(
    ("ahead_bytes", "asked_first"), [(1, [1, 251]), (1025, [1, 251, 501, 751])]
)
def test_prefetch_reads_ahead_on_one_thread_and_no_more_than_it_should(
    cache: StyleCache,
    monkeypatch: pytest.MonkeyPatch,
    ahead_bytes: int,
    asked_first: list[int],
) -> None:
    monkeypatch.setattr(cached_style, "READ_AHEAD_BYTES", ahead_bytes)
    asked: list[tuple[int, str]] = []
    before = set(threading.enumerate())
    second = threading.Event()

    class Watched(CachedStyle):
        def at(self, timestep: int) -> SiteArrays:
            asked.append((timestep, threading.current_thread().name))
            if timestep == asked_first[-1]:
                second.set()
            return super().at(timestep)

    key = write(cache, style_key())
    with (cache.folder / f"{key}.parquet").open("rb") as file:
        style = Watched(cache.folder / f"{key}.tar", StyleIndex.from_parquet(file, key))
    assert style.num_bytes(1) == 1024  # two sites' k and v, float16
    steps = prefetch([style], TIMESTEPS)
    next(steps)
    assert second.wait(10)  # the next ones are read while the caller holds the first
    assert [timestep for timestep, _ in asked] == asked_first
    assert len({thread for _, thread in asked}) == 1
    assert threading.current_thread().name != asked[0][1]
    steps.close()
    assert set(threading.enumerate()) <= before


def test_prefetch_raises_an_error_where_it_is_due(cache: StyleCache) -> None:
    key = write(cache, style_key())
    row = next(row for row in rows(cache, key) if row.timestep == 501)
    flip(cache.folder / f"{key}.tar", row.offset)
    steps = prefetch([cache.open(key)], TIMESTEPS)
    assert [next(steps)[0], next(steps)[0]] == [1, 251]
    with pytest.raises(DamagedStyleError):
        next(steps)


def test_prefetch_of_a_timestep_that_is_not_stored_says_which_are(cache: StyleCache) -> None:
    steps = prefetch([cache.open(write(cache, style_key()))], (1, 2))
    next(steps)
    with pytest.raises(ValueError, match="timestep 2 is not stored; accepted"):
        next(steps)
