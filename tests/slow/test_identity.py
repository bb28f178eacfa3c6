"""One plan, the same bytes: every engine, every number of workers, every source of features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import (
    command,
    digests,
    environment,
    leftovers,
    render,
    render_by_ranks,
    small_manifest,
)

pytestmark = pytest.mark.slow

SOURCES = {
    "held": (),
    "cached": ("--set", "features.source=cached"),
    "latents": ("--set", "features.source=cached", "--set", "features.codec=trajectory"),
    "recomputed": ("--set", "features.source=recomputed", "--set", "features.contents=recomputed"),
}
RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(tmp_path_factory.mktemp("identity"))


def _options(source: str, folder: Path) -> list[str]:
    """Of a run with a style cache of its own, where it has one."""
    has_cache = source in ("cached", "latents")
    cache = ["--set", f"features.cache={folder / 'cache'}"] if has_cache else []
    return [*SOURCES[source], *cache]


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, dict[str, str]]:
    """What local runs write, by source."""
    found = {}
    for source in SOURCES:
        output = manifest.parent / source
        done = render(manifest, output, *_options(source, manifest.parent / f"{source}-local"))
        assert done.returncode == 0, done.stderr
        found[source] = digests(output)
        assert sum(name.endswith(".tar") for name in found[source]) >= 6
    return found


@pytest.mark.parametrize(
    ("source", "workers"),
    [("held", 1), ("held", 4), ("cached", 2), ("cached", 4), ("latents", 2), ("recomputed", 2)],
)
def test_ray_writes_what_a_local_run_writes(
    source: str, workers: int, manifest: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    options = ["--engine", "ray", "--workers", str(workers), *_options(source, tmp_path)]
    done = render(manifest, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == expected[source]
    assert leftovers(tmp_path / "out") == []


@pytest.mark.parametrize("source", ["cached", "latents", "recomputed"])
def test_two_ranks_write_what_a_local_run_writes(
    source: str, manifest: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    done = render_by_ranks(manifest, tmp_path / "out", *_options(source, tmp_path))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == expected[source]
    assert leftovers(tmp_path / "out") == []


@pytest.mark.parametrize("source", ["cached", "latents"])
def test_a_cache_that_is_full_and_one_that_is_filled_give_the_same_bytes(
    source: str, manifest: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    full = _options(source, manifest.parent / f"{source}-local")
    done = render(manifest, tmp_path / "out", "--engine", "ray", "--workers", "2", *full)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == expected[source]


def test_the_manifest_decides_about_threads_not_what_launchers_set(
    manifest: Path, tmp_path: Path
) -> None:
    """Ray and torchrun set OMP_NUM_THREADS by themselves; sums in another number of parts have other last bits."""
    two = ("--set", "engine.threads=2", "--set", "image.size=64")
    free = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    ray = ("--engine", "ray", "--workers", "2", "--set", "engine.cpus_per_worker=1")
    runs = {
        "local": command(manifest, tmp_path / "local", *two),
        "ray": command(manifest, tmp_path / "ray", *two, *ray),
        "ranks": [
            sys.executable,
            *RANKS,
            *command(manifest, tmp_path / "ranks", *two)[1:],
        ],
    }
    for words in runs.values():
        subprocess.run(words, env=free, timeout=1200, check=True, capture_output=True)
    one = render(manifest, tmp_path / "pinned", *two)
    assert one.returncode == 0, one.stderr
    found = {name: digests(tmp_path / name) for name in (*runs, "pinned")}
    assert all(other == found["local"] for other in found.values()), found
