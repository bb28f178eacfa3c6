"""Processes that build one cached style: killed in the middle, and two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stylebatch.features.codecs import CodecName
from stylebatch.features.style_cache import StyleCache
from tests.support.styles import (
    TIMESTEPS,
    style_key,
    write,
)


@pytest.fixture
def cache(tmp_path: Path) -> StyleCache:
    return StyleCache(tmp_path / "cache")


BUILD = """
import os, signal, sys
from pathlib import Path
from stylebatch.features.style_cache import StyleCache
from tests.support.styles import TIMESTEPS, features, latents, style_key

cache, stop, codec = StyleCache(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
with cache.writer(style_key(codec=codec), {"style_id": "monet.png"}) as writer:
    for number, timestep in enumerate(TIMESTEPS):
        if number == stop and codec == "trajectory":  # nothing is written before the last member
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            writer.commit(latents())
        if number == stop:
            writer._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        writer.append(timestep, features(codec, timestep))
    print("ready", flush=True)
    sys.stdin.readline()
    writer.commit(latents())
"""


def build(folder: Path, stop: int, codec: CodecName = "kv") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(stop), codec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize(("codec", "stop"), [("kv", 2), ("trajectory", 0)])
def test_killed_writer_leaves_no_visible_style(
    cache: StyleCache, codec: CodecName, stop: int
) -> None:
    key = style_key(codec=codec)
    with build(cache.folder, stop, codec) as process:
        assert process.wait() == -signal.SIGKILL
    (left,) = os.listdir(cache.folder)
    assert (cache.folder / left).stat().st_size > 1000
    assert not cache.contains(key.digest)
    assert cache.ls() == []
    assert list(cache.verify()) == []  # it may be a writer at work
    (finding,) = cache.verify(leftover_age_s=0, repair=True)
    assert (finding.name, finding.kind, finding.repair) == (left, "leftover", "removed")
    assert os.listdir(cache.folder) == []
    assert cache.open(write(cache, key)).timesteps == (TIMESTEPS if key.codec.tensors else ())


def test_two_builders_of_one_style_do_no_harm(cache: StyleCache) -> None:
    with build(cache.folder, -1) as one, build(cache.folder, -1) as two:
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [one.wait(), two.wait()] == [0, 0]
    key = style_key().digest
    assert sorted(os.listdir(cache.folder)) == [".lock", f"{key}.parquet", f"{key}.tar"]
    assert list(cache.verify(leftover_age_s=0)) == []
