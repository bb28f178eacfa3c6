"""The protocol renders and evaluates any two folders, and puts published figures beside ours without mixing them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.styleid_protocol import NUM_CONTENTS, PUBLISHED, main, pictures
from tests.support.images import picture


def test_the_protocol_runs_on_two_folders(
    tmp_path: Path,
    eps_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the suite's workers share the cores: two threads of each would wait for one another at every operation
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    for name, count in (("photos", NUM_CONTENTS + 2), ("paintings", 3)):
        (tmp_path / name / "more").mkdir(parents=True)
        for number in range(count):
            picture(number).save(tmp_path / name / "more" / f"{number:02d}.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
    assert len(pictures(tmp_path / "photos", NUM_CONTENTS)) == NUM_CONTENTS
    words = ["--contents", tmp_path / "photos", "--styles", tmp_path / "paintings", "--limit", 1]
    words += ["--model", eps_folder, "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    shown = capsys.readouterr().out
    for name, values in PUBLISHED.items():
        assert re.search(rf"^{re.escape(name)} +{values[0]:g} ", shown, re.MULTILINE)
        # ArtFID is made of the two others: the row was copied without a slip
        assert (1 + values[1]) * (1 + values[2]) == pytest.approx(values[0], abs=0.06)
    # without weights there are no figures to set beside them
    assert re.search(r"^this run \(1 pairs\) +- +- +- +-$", shown, re.MULTILINE)
    assert "histogram_loss" in (tmp_path / "out-preview-1-evaluation" / "evaluation.md").read_text()
    assert (tmp_path / "out-pairs.csv").read_text().count("\n") == 1 + 3 * NUM_CONTENTS
    (tmp_path / "empty").mkdir()
    words[1] = tmp_path / "empty"
    with pytest.raises(SystemExit, match="found no picture"):
        main([str(word) for word in words])
