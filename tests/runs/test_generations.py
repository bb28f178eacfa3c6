"""Inputs added to an output: new shards for the new pairs, committed shards as they are."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stylebatch.cli import main
from stylebatch.engine.run import RunResult, run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.planning.grid import gained
from stylebatch.store.verify import verify
from tests.support.forked import forked
from tests.support.images import picture
from tests.support.runs import digests, leftovers


def _add(folder: Path, side: str, name: str, seed: int) -> None:
    path = folder / side / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, 48, 40).save(path)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """3 labelled contents, 2 styles, rendered."""
    for number, name in enumerate(("cat/b", "dog/b", "dog/d")):
        _add(tmp_path, "contents", name, number)
    for number, name in enumerate(("m", "s")):
        _add(tmp_path, "styles", name, 20 + number)
    data: dict[str, Any] = {
        "contents": {"path": "contents"},
        "styles": {"path": "styles"},
        "method": {"name": "styleid", "steps": 2},
        "image": {"size": 32},
        "engine": {"threads": 1},
        "output": {"path": str(tmp_path / "out"), "shard_size": 4},
    }
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(data))
    assert _run(path).exit_code == 0
    return path


def _run(manifest: Path) -> RunResult:
    return run(load_spec(manifest))


def _rows(output: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted(output.glob("metadata/train-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def _grow(folder: Path) -> None:
    """One content before the others by name, of a new class; one style between the others."""
    _add(folder, "contents", "ant/a", 7)
    _add(folder, "styles", "n", 27)


@pytest.mark.parametrize(
    ("former", "totals"), [((3, 2), (4, 3)), ((3, 2), (3, 5)), ((1, 1), (9, 7)), ((8, 3), (9, 3))]
)
def test_a_grown_grid_holds_what_the_product_gained(
    former: tuple[int, int], totals: tuple[int, int]
) -> None:
    grid = gained(totals, former, (2, 2))
    blocks = [grid.block(number) for number in range(grid.num_blocks)]
    pairs = [pair for block in blocks for pair in block.cells]
    whole = {(c, s) for c in range(totals[0]) for s in range(totals[1])}
    assert len(pairs) == len(set(pairs)) == grid.num_samples
    assert set(pairs) == whole - {(c, s) for c in range(former[0]) for s in range(former[1])}
    assert all(len(block.rows) <= 2 and len(block.columns) <= 2 for block in blocks)
    before = [sum(len(b.cells) for b in blocks[:n]) for n in range(len(blocks) + 1)]
    assert [grid.num_samples_before(n) for n in range(len(blocks) + 1)] == before


def test_added_inputs_open_a_generation(manifest: Path) -> None:
    folder, output = manifest.parent, manifest.parent / "out"
    before = {path: path.stat().st_mtime_ns for path in output.glob("data/*")}
    kept = digests(output)
    _grow(folder)
    result = _run(manifest)
    assert (result.num_samples, result.num_attempted, result.exit_code) == (12, 6, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert kept.items() <= digests(output).items() | {
        ("metadata/errors.parquet", kept["metadata/errors.parquet"])
    }
    rows = _rows(output)
    assert len({row["key"] for row in rows}) == 12
    assert {(row["content_id"], row["style_id"]) for row in rows} == {
        (f"{c}.png", f"{s}.png") for c in ("cat/b", "dog/b", "dog/d", "ant/a") for s in "msn"
    }
    assert list(verify(output)) == []
    assert result.report.num_shards_committed == result.report.num_shards
    again = _run(manifest)
    assert again.num_attempted == 0


def test_class_numbers_of_committed_shards_stay(manifest: Path) -> None:
    import webdataset

    output = manifest.parent / "out"
    _grow(manifest.parent)
    _run(manifest)
    tars = sorted(str(path) for path in output.glob("data/*.tar"))
    numbers = {
        json.loads(sample["json"])["label"]: int(sample["cls"])
        for sample in webdataset.WebDataset(tars, shardshuffle=False)
    }
    assert numbers == {"cat": 0, "dog": 1, "ant": 2}
    card = (output / "README.md").read_text()
    assert card.index("cat") < card.index("dog") < card.index("ant")


def test_a_third_generation_follows(manifest: Path) -> None:
    output = manifest.parent / "out"
    _grow(manifest.parent)
    _run(manifest)
    _add(manifest.parent, "styles", "a", 30)
    assert _run(manifest).num_attempted == 4
    assert len(json.loads((output / "run.json").read_text())["generations"]) == 3
    assert len(_rows(output)) == 16
    assert list(verify(output)) == []


def test_a_killed_generation_resumes(manifest: Path) -> None:
    output = manifest.parent / "out"
    _grow(manifest.parent)
    words = ("run", str(manifest), "--output", str(output))
    killed = forked(*words, STYLEBATCH_FAULT="before marker:1")
    assert killed.returncode == -signal.SIGKILL
    assert _run(manifest).exit_code == 0
    assert len(_rows(output)) == 12
    assert list(verify(output)) == []
    assert leftovers(output) == []


def test_plan_tells_what_would_be_added(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _grow(manifest.parent)
    assert main(["plan", str(manifest)]) == 0
    text = capsys.readouterr().out
    assert "keeps 2 shards of earlier inputs" in text
    assert "6 samples" in text


def test_inputs_that_are_gone_are_named(manifest: Path) -> None:
    (manifest.parent / "contents" / "dog" / "d.png").unlink()
    with pytest.raises(PlanChangedError, match=r"contents: 1 of 3 is gone \(dog/d\.png\)"):
        _run(manifest)


def test_another_parameter_is_refused_for_a_grown_output_too(manifest: Path) -> None:
    _grow(manifest.parent)
    with pytest.raises(PlanChangedError, match=r"method\.gamma: 0\.75 -> 0\.5"):
        run(load_spec(manifest, ["method.gamma=0.5"]))


def test_labels_for_unlabelled_samples_are_refused(manifest: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    _add(flat, "contents", "b", 1)
    spec = load_spec(manifest, [f"contents.path={flat / 'contents'}"], output=str(flat / "out"))
    run(spec)
    _add(flat, "contents", "cat/c", 2)
    with pytest.raises(PlanChangedError, match="the added ones have labels"):
        run(spec)
