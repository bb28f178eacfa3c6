"""A run with gates, retries and pictures kept aside has the same bytes after kills, from another engine, and repaired there."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stylebatch.cli import main
from tests.support.forked import forked
from tests.support.runs import digests, leftovers, render, small_manifest

pytestmark = pytest.mark.slow

KILLS = [
    "after payload:2",
    "before rename:2",
    "after rename:2",
    "before marker:1",
]
"""A shard renames its tar, then what is aside, its metadata and its marker."""
GATES = {
    "reject": "structure < 0.29 and (gamma < 0.9 or style_id = '00.png')",
    "retry": [{"gamma": 1.0}, {"gamma": 0.2, "tau": 1.0}],
    "yield": 0.95,
    "keep_rejected": True,
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of six samples."""
    found = small_manifest(tmp_path_factory.mktemp("gated"), contents=6, styles=3)
    data = json.loads(found.read_text())
    data["output"]["shard_size"] = 6
    data["engine"]["feature_gb"] = 0.002
    found.write_text(json.dumps(data | {"gates": GATES}))
    return found


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    output = manifest.parent / "expected"
    assert main(["run", str(manifest), "--output", str(output)]) == 0
    tables = [pq.read_table(path) for path in sorted(output.glob("metadata/train-*.parquet"))]
    attempts = {number for table in tables for number in table["attempt"].to_pylist()}
    states = {state for table in tables for state in table["status"].to_pylist()}
    assert len(tables) > 2
    assert (attempts, states) == ({1, 2, 3}, {"success", "rejected"})
    assert list(output.glob("rejected/*.tar"))
    return digests(output)


@pytest.mark.parametrize("point", KILLS)
def test_a_killed_run_resumes_to_the_same_bytes(
    point: str, manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = ("run", str(manifest), "--output", str(output))
    killed = forked(*words, STYLEBATCH_FAULT=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert digests(output) != expected
    assert main([*words]) == 0
    assert digests(output) == expected
    assert leftovers(output) == []


def test_two_workers_of_ray_make_and_mend_the_same_bytes(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "ray"
    options = ("--engine", "ray", "--workers", "2")
    done = render(manifest, output, *options)
    assert done.returncode == 0, done.stderr
    assert digests(output) == expected
    for path in (*output.glob("rejected/*.tar"), *output.glob("metadata/*00_stats.json")):
        path.unlink()
    done = render(manifest, output, *options)
    assert done.returncode == 0, done.stderr
    assert digests(output) == expected
