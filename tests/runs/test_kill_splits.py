"""Runs that make splits and store inputs once per shard: killed anywhere, or made by Ray, they give the bytes of an undisturbed one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.faults import POINTS
from stylebatch.store.verify import verify
from tests.support.forked import forked
from tests.support.runs import digests, leftovers, render, small_manifest

pytestmark = pytest.mark.slow
FORMATS = ("webdataset", "parquet", "files")
CASES = [
    *(("webdataset", point) for point in POINTS),
    *((kind, f"before {step}") for kind in FORMATS[1:] for step in ("payload", "rename", "marker")),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four contents in two splits, two samples of each."""
    path = small_manifest(tmp_path_factory.mktemp("splits"), contents=4, styles=2)
    document = json.loads(path.read_text())
    document["split"] = {"validation": 0.5, "exact": True}
    document["output"] |= {"inputs": "reference", "shard_size": 2}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, dict[str, str]]:
    """What undisturbed local runs write, by format."""
    found = {}
    for kind in FORMATS:
        output = manifest.parent / kind
        assert main(["run", str(manifest), "--output", str(output), "--set", f"output.format={kind}"]) == 0  # fmt: skip
        found[kind] = digests(output)
        assert {name.partition("-")[0] for name in found[kind] if name.startswith("metadata/")} >= {
            "metadata/train", "metadata/validation",
        }  # fmt: skip
        assert any(name.startswith("input_images/") for name in found[kind])
    return found


@pytest.mark.parametrize(("kind", "point"), CASES)
def test_resuming_after_a_kill_gives_the_same_bytes(
    kind: str, point: str, manifest: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    words = (
        "run",
        str(manifest),
        "--output",
        str(tmp_path / "out"),
        "--set",
        f"output.format={kind}",
    )
    killed = forked(*words, STYLEBATCH_FAULT=f"{point}:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert main([*words]) == 0
    assert digests(tmp_path / "out") == expected[kind]
    assert leftovers(tmp_path / "out") == []
    assert list(verify(tmp_path / "out")) == []


def test_ray_makes_the_same_splits(
    manifest: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    done = render(manifest, tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ray") == expected["webdataset"]
    assert leftovers(tmp_path / "ray") == []
