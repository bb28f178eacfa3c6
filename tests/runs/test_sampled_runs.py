"""Samples are the same pairs in any process, and an output keeps to those it began with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from tests.support.images import write_inputs, write_manifest


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    """5 contents x 4 styles, two styles for each content."""
    write_inputs(tmp_path, contents=5, styles=4)
    return write_manifest(tmp_path, eps_folder, pairing={"mode": "sample", "per_content": 2})


def test_another_process_draws_the_same_pairs(manifest: Path) -> None:
    program = (
        "import sys; from stylebatch.planning.resolve import plan; from stylebatch.manifest import load_spec\n"
        "grid = plan(load_spec(sys.argv[1])).grid\n"
        "print([grid.block(number).cells for number in reversed(range(grid.num_blocks))][::-1])"
    )
    grid = plan(load_spec(manifest)).grid
    expected = str([grid.block(number).cells for number in range(grid.num_blocks)])
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(manifest)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.strip() == expected


def test_a_run_does_not_continue_with_other_samples(manifest: Path) -> None:
    run(load_spec(manifest, ["method.steps=2"]))
    with pytest.raises(PlanChangedError, match=r"pairing\.per_content: 2 -> 3"):
        run(load_spec(manifest, ["method.steps=2", "pairing.per_content=3"]))
    assert run(load_spec(manifest, ["method.steps=2"])).num_attempted == 0


def test_plan_tells_how_often_a_style_is_used(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["pairing.mode=sample", "pairing.per_content=2"]
    assert main(["plan", str(manifest), *(a for c in changes for a in ("--set", c))]) == 0
    least, most = plan(load_spec(manifest, changes)).summary()["uses_per_style"]
    assert f"sample pairing (each style {least} to {most} times)" in capsys.readouterr().out
