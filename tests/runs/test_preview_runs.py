"""A preview takes the place of an earlier one, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylebatch.engine.run import run
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import small_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return small_manifest(tmp_path, contents=4, styles=2)


def test_a_preview_replaces_an_earlier_one(manifest: Path) -> None:
    first = run(load_spec(manifest), limit=4)
    foreign = [first.output / "data" / name for name in ("train-mine.tar", "train-00004.tar")]
    for path in foreign:
        path.write_bytes(b"somebody's")
    changed = load_spec(manifest, ["method.gamma=0.25", "output.shard_size=4"])
    second = run(changed, limit=4)
    assert second.output == first.output
    assert second.exit_code == 0
    assert second.num_attempted == 4
    assert len(list(first.output.glob("metadata/*_stats.json"))) == second.report.num_shards == 1
    assert all(path.read_bytes() == b"somebody's" for path in foreign)
    for path in foreign:
        path.unlink()
    assert not list(verify(second.output))
    again = run(changed, limit=4)
    assert (again.num_attempted, again.num_resumed_shards) == (0, 1)


def test_a_preview_replaces_nothing_but_previews(manifest: Path) -> None:
    output = manifest.parent / "out-preview-2"
    run(load_spec(manifest, [f"output.path={output}"]))
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(PlanChangedError, match="another plan"):
        run(load_spec(manifest), limit=2)
    assert all(path.read_bytes() == data for path, data in before.items())
    preview = run(load_spec(manifest), limit=3).output
    with pytest.raises(PlanChangedError):  # nor does a run replace a preview
        run(load_spec(manifest, [f"output.path={preview}"]))
    assert json.loads((preview / "run.json").read_text())["limit"] == 3
    other = manifest.parent / "out-preview-1"
    other.mkdir()
    picture(1).save(other / "mine.png")
    with pytest.raises(ManifestError, match=r"mine\.png"):
        run(load_spec(manifest), limit=1)
