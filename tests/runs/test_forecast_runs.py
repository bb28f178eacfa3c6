"""`doctor` measures a device, `plan` tells hours by it and refuses in advance, `report` compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.manifest import load_spec
from stylebatch.planning.forecast import row_seconds
from stylebatch.planning.profiles import Profile
from stylebatch.planning.resolve import plan
from tests.support.runs import small_manifest


def test_plan_tells_hours_once_the_device_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("stylebatch.doctor.profiling.SECONDS", 0.02)
    manifest = str(small_manifest(tmp_path, contents=2, styles=2))
    assert main(["plan", manifest]) == 0
    assert "time: not known on this machine; `stylebatch doctor MODEL`" in capsys.readouterr().out
    assert main(["plan", manifest, "--max-hours", "1"]) == 2
    assert "next: stylebatch doctor MODEL" in capsys.readouterr().err
    assert main(["doctor", "tiny", "--size", "32"]) == 0
    assert "tells hours by it" in capsys.readouterr().out
    assert main(["plan", manifest, "--price", "2.5", "--max-hours", "1", "--max-bytes", "1GB"]) == 0
    assert "at 2.5 an hour (cpu in float32, measured 20" in capsys.readouterr().out
    assert main(["plan", manifest, "--json", "--price", "2.5"]) == 0
    found = json.loads(capsys.readouterr().out)["forecast"]
    assert 0 < found["hours"] < 1
    assert found["cost"] == pytest.approx(2.5 * found["device_hours"])
    assert found["peak_bytes"] > found["output_bytes"] > 0
    for option, value in (("--max-hours", "1e-9"), ("--max-bytes", "10")):
        assert main(["plan", manifest, option, value]) == 2
        assert f"{option}: found" in capsys.readouterr().err
    for option, value in (("--max-hours", "-1"), ("--price", "x"), ("--max-bytes", "nan")):
        assert main(["plan", manifest, option, value]) == 2
        assert "accepted: a number " in capsys.readouterr().err
    assert main(["run", manifest]) == 0
    assert "  expected    " in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "run.json").read_text())["resolved"]["forecast_s"]
    assert kept == pytest.approx(3600 * found["device_hours"], rel=0.05, abs=0.1)
    assert main(["report", str(tmp_path / "out")]) == 0
    assert ", and it took " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "batch", "rows"),
    [
        ("text2img", 16, 8),
        ("stylealigned", 16, 8),  # three samples and the reference, two rows each
        ("stylealigned", 4, 4),
        ("panorama", 16, 32),  # 13 windows in two evaluations, side by side
    ],
)
def test_a_row_is_counted_at_what_is_evaluated_at_once(example: str, batch: int, rows: int) -> None:
    times = {1: 9.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0, 32: 32.0}
    profile = Profile(
        model="tiny", fingerprint="", device="cpu", name="", dtype="float32", threads=2, size=128,
        row_s=times, related_row_s=times, encode_s=0.0, decode_s=0.0, sample_s=0.0, load_s=0.0, measured="2026-01-31",
    )  # fmt: skip
    manifest = Path(__file__).parents[2] / "manifests" / f"{example}.yaml"
    assert row_seconds(plan(load_spec(manifest, [f"engine.batch={batch}"])), profile) == rows
