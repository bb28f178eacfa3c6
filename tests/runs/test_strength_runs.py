"""A strength that is drawn for each sample: recorded, and the picture is that of the same strength given as a number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from tests.support.runs import digests, small_manifest
from tests.support.samples import pixels_of, samples_of

RANGES = "method={gamma: {from: 0.1, to: 1.0}, tau: {from: 0.5, to: 4.0}, steps: 2}"


def test_each_sample_is_as_if_its_strengths_were_given(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, contents=3, styles=2)
    common = ["output.image.format=png", "output.shard_size=6", "engine.feature_gb=1"]
    drawn = run(load_spec(manifest, [*common, RANGES], output=str(tmp_path / "drawn")))
    samples = samples_of(Path(drawn.output))
    records = [json.loads(sample["json"]) for sample in samples]
    assert len(records) == 6
    for name, low, high in (("gamma", 0.1, 1.0), ("tau", 0.5, 4.0)):
        values = {record[name] for record in records}
        assert len(values) == 6
        assert all(low <= value <= high for value in values)
    for sample, record in zip(samples[::5], records[::5], strict=True):
        output = tmp_path / record["key"]
        fixed = f"method={{gamma: {record['gamma']!r}, tau: {record['tau']!r}, steps: 2}}"
        alone = samples_of(
            Path(run(load_spec(manifest, [*common, fixed], output=str(output))).output)
        )
        same = next(one for one in alone if one["__key__"] == sample["__key__"])
        difference = pixels_of(sample["png"]).astype(int) - pixels_of(same["png"])
        assert np.abs(difference).max() <= 1


def test_a_sample_draws_the_same_in_every_batch(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, contents=3, styles=2)
    drawn = []
    for batch in (1, 4):
        changes = [RANGES, f"engine.batch={batch}"]
        result = run(load_spec(manifest, changes, output=str(tmp_path / f"batch{batch}")))
        records = [json.loads(sample["json"]) for sample in samples_of(Path(result.output))]
        drawn.append({(r["content_id"], r["style_id"]): (r["gamma"], r["tau"]) for r in records})
    assert len(drawn[0]) == 6
    assert drawn[0] == drawn[1]


def test_a_preset_is_printed_recorded_and_kept_on_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = small_manifest(tmp_path, contents=1, styles=1)
    options = ["--set", "method={preset: draft}", "--output", str(tmp_path / "out")]
    assert main(["plan", str(manifest), *options]) == 0
    shown = (
        "preset draft: method.steps 8, method.grid spread, method.start paper, method.solver ab2"
    )
    assert shown in capsys.readouterr().out
    assert main(["run", str(manifest), *options]) == 0
    (sample,) = samples_of(tmp_path / "out")
    record = json.loads(sample["json"])
    assert (record["preset"], record["steps"], record["solver"]) == ("draft", 8, "ab2")
    before = digests(tmp_path / "out")
    assert main(["run", str(manifest), *options]) == 0
    assert digests(tmp_path / "out") == before
    assert "preset draft" in (tmp_path / "out" / "README.md").read_text("utf-8")
