"""Class numbers over the life of an output: as its source has them, and as they were where shards are committed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stylebatch.data.sources.source import Source
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from stylebatch.spec import RunSpec
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import digests

NAMES = ["zebra", "ant", "fox", "cow"]


def write(folder: Path, names: list[str], **labels: int) -> RunSpec:
    """Images with an object each, of these classes."""
    for name, number in labels.items():
        for path in (folder / f"images/{name}.png", folder / f"labels/{name}.txt"):
            path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, 40, 40).save(folder / f"images/{name}.png")
        (folder / f"labels/{name}.txt").write_text(f"{number} 0.5 0.5 0.4 0.4\n")
    (folder / "data.yaml").write_text(json.dumps({"names": names}))
    (folder / "styles").mkdir(exist_ok=True)
    picture(9, 40, 40).save(folder / "styles/s.png")
    data = {
        "contents": {"path": "images", "annotations": "labels"}, "styles": {"path": "styles"}, "image": {"size": 32},
        "method": {"name": "styleid", "steps": 2}, "engine": {"threads": 1, "feature_gb": 0.0003},
        "output": {"path": str(folder / "out"), "shard_size": 1},
    }  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(data))
    return load_spec(folder / "run.yaml")


def numbers(output: Path) -> dict[str, int]:
    """Class numbers in the records, by content."""
    rows = [r for f in output.glob("metadata/train-*.parquet") for r in pq.read_table(f).to_pylist()]  # fmt: skip
    return {row["content_id"]: row["objects"]["category_id"][0] for row in rows}


def without_last(output: Path) -> dict[str, str]:
    """Take back the commit of the last shard; what the output held."""
    before = digests(output)
    sorted(output.glob("metadata/*_stats.json"))[-1].unlink()
    return before


def recorded(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "run.json").read_text())
    return found


@pytest.mark.slow
def test_an_output_keeps_its_numbers_while_its_source_renames_what_is_unused(
    tmp_path: Path,
) -> None:
    spec, output = write(tmp_path, NAMES, a=1, b=2), tmp_path / "out"
    assert run(spec).exit_code == 0
    assert numbers(output) == {"a.png": 1, "b.png": 2}
    assert recorded(output)["labels"] == NAMES
    before = without_last(output)
    # names that nothing uses come and go
    assert run(write(tmp_path, ["gnu", "ant", "fox"], a=1, b=2)).exit_code == 0
    assert digests(output) == before
    assert run(write(tmp_path, ["gnu", "ant", "fox"], a=1, b=2, c=0)).exit_code == 0
    assert numbers(output) == {"a.png": 1, "b.png": 2, "c.png": 4}
    assert recorded(output)["labels"] == [*NAMES, "gnu"]
    assert list(verify(output)) == []
    before = without_last(output)
    assert run(write(tmp_path, ["gnu", "ant", "fox"], a=1, b=2, c=0)).exit_code == 0
    assert digests(output) == before


@pytest.mark.slow
def test_an_output_of_an_earlier_version_goes_on_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, output = write(tmp_path, NAMES, a=1, b=2, c=0), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Source, "learn_classes", lambda *_, **__: None)
        assert run(spec).exit_code == 0
    run_json = recorded(output)
    for generation in run_json["generations"]:
        del generation["num_classes"]
    (output / "run.json").write_text(json.dumps(run_json))
    assert numbers(output) == {"a.png": 0, "b.png": 1, "c.png": 2}
    assert run(spec).num_attempted == 0
    before = without_last(output)
    assert run(spec).exit_code == 0
    assert digests(output) | {"run.json": ""} == before | {"run.json": ""}
    shuffled = random.Random(1).sample(["d", "e"], 2)
    assert run(write(tmp_path, NAMES, **dict.fromkeys(shuffled, 3))).exit_code == 0
    assert numbers(output) == {"a.png": 0, "b.png": 1, "c.png": 2, "d.png": 3, "e.png": 3}
    assert list(verify(output)) == []


def test_a_second_generation_has_the_numbers_of_the_first(tmp_path: Path) -> None:
    spec = write(tmp_path, NAMES, a=1, b=2)
    assert run(spec).exit_code == 0
    data = json.loads((tmp_path / "run.yaml").read_text())
    data |= {"contents": {"path": "out"}, "output": {"path": str(tmp_path / "second")}}
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    assert run(load_spec(tmp_path / "run.yaml")).exit_code == 0
    assert recorded(tmp_path / "second")["labels"] == NAMES
    assert set(numbers(tmp_path / "second").values()) == {1, 2}
