"""What is chosen for features is what the plan says, is told, recorded and kept, and changes no byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.progress import Progress
from tests.support.images import write_inputs, write_manifest


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path)
    return write_manifest(tmp_path, eps_folder)


def test_recomputed_contents_render_the_same_and_cost_what_the_plan_says(
    manifest: Path, tmp_path: Path
) -> None:
    outputs = []
    for contents in ("held", "recomputed"):
        output = tmp_path / contents
        changes = [f"features.contents={contents}", "output.image.format=png"]
        spec = load_spec(manifest, changes, output=str(output))
        result = run(spec)
        assert result.report.evaluations == plan(spec).evaluations
        tars = sorted((output / "data").glob("*.tar"))
        outputs.append([tar.read_bytes() for tar in tars])
    assert outputs[0] == outputs[1]
    held, recomputed = (
        plan(load_spec(manifest, [f"features.contents={c}"])) for c in ("held", "recomputed")
    )
    blocks = range(held.grid.num_blocks)
    visits = sum(len(held.grid.block(n).rows) for n in blocks)
    steps = held.spec.method.num_reverse_evaluations
    assert recomputed.evaluations - held.evaluations == steps * visits


def test_either_memory_gives_the_same_samples(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # so many that three timesteps, which are on the device, are less than all
    steps = "method.steps=10"
    one = plan(load_spec(manifest, [steps])).identity["feature_bytes"] / 2**30
    found = []
    for name, memory in (
        ("device", (100.0, 0.0)),
        ("queries", (7.5, 4.1)),
        ("both", (3.7, 10.1)),
    ):
        device, host = (size * one for size in memory)
        words = [f"engine.feature_gb={device}", f"engine.host_gb={host}", "features.codec=kv"]
        words += ["output.shard_size=12", "engine.batch=12", steps]
        result = run(load_spec(manifest, words, output=str(tmp_path / name)))
        record = json.loads((tmp_path / name / "run.json").read_text())
        kept = record["resolved"]["features"]
        tars = sorted((tmp_path / name / "data").glob("*.tar"))
        found.append((result.report.evaluations, [tar.read_bytes() for tar in tars]))
        assert kept == record["identity"]["features"]
        assert [kept["styles"], kept["contents"]] == {
            "device": ["held", "held"],
            "queries": ["held", "hosted"],
            "both": ["hosted", "hosted"],
        }[name]
    assert found[0] == found[1] == found[2]
    settings = [word for change in words for word in ("--set", change)]
    assert main(["plan", str(manifest), *settings]) == 0
    shown = capsys.readouterr().out
    assert "contents held in the machine's memory" in shown
    assert "per worker, and " in shown


class Notes(Progress):
    """Progress that keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_measured_choice_is_told_recorded_and_kept(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    changes = [f"features.cache={tmp_path / 'cache'}"]
    notes = Notes()
    run(load_spec(manifest, changes, output=str(output)), progress=notes)
    told = [line for line in notes.told if line.startswith("Features: ")]
    assert len(told) == 1
    assert "ms per row" in told[0]
    assert "MB/s" in told[0]
    record = json.loads((output / "run.json").read_text())["resolved"]
    assert record["measured"]["evaluation_s"] > 0
    assert told == [record["reason"]]
    assert not list((tmp_path / "cache").glob("*bandwidth*"))

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a resumed run measures nothing")

    monkeypatch.setattr("stylebatch.engine.local_engine.measure", never)
    next((output / "metadata").glob("*_stats.json")).unlink()
    resumed = run(load_spec(manifest, changes, output=str(output)))
    assert resumed.num_attempted > 0
    assert json.loads((output / "run.json").read_text())["resolved"] == record
    source = "held" if record["features"]["styles"] == "cached" else "cached"
    with pytest.raises(PlanChangedError, match=r"features\.styles"):
        run(load_spec(manifest, [*changes, f"features.source={source}"], output=str(output)))


def test_plan_shows_sources_and_batch(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(manifest)]) == 0
    assert (
        "features: styles held (kv), contents held; batches of up to 4" in capsys.readouterr().out
    )
    assert main(["plan", str(manifest), "--set", "features.cache=styles"]) == 0
    assert "unless a run measures otherwise" in capsys.readouterr().out
