"""The command line: verbs, exit codes, and messages that say what to do next."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from argparse import ArgumentParser, _SubParsersAction
from pathlib import Path

import pytest

from stylebatch.cli import _parser, main
from tests.images import write_inputs, write_manifest


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path, contents=2, styles=2)
    return write_manifest(tmp_path, eps_folder)


def _stylebatch(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "stylebatch", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
    )


def _flags(parser: ArgumentParser, name: str = "") -> dict[str, list[str]]:
    """The options of each verb, by its words."""
    nested = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
    if not nested:
        options = (option for action in parser._actions for option in action.option_strings)
        return {name: sorted(options)}
    found: dict[str, list[str]] = {}
    for verb, below in nested[0].choices.items():
        found |= _flags(below, f"{name} {verb}".strip())
    return found


def test_verbs_and_flags_are_these() -> None:
    assert _flags(_parser()) == {
        "run": [
            "--address",
            "--engine",
            "--help",
            "--json-logs",
            "--limit",
            "--output",
            "--retry-failed",
            "--set",
            "--tracker",
            "--workers",
            "-h",
        ],
        "plan": ["--help", "--json", "--output", "--set", "-h"],
        "precompute": ["--help", "--output", "--set", "-h"],
        "verify": ["--help", "--json", "-h"],
        "repair": ["--help", "-h"],
        "report": ["--help", "-h"],
        "doctor": [
            "--config",
            "--dtype",
            "--help",
            "--json",
            "--no-measure",
            "--size",
            "--variant",
            "-h",
        ],
        "conformance": ["--help", "-h"],
        "cache ls": ["--help", "--json", "-h"],
        "cache verify": ["--help", "--repair", "-h"],
        "cache gc": ["--help", "--max-bytes", "-h"],
        "train": ["--help", "--output", "--set", "-h"],
        "schema": ["--help", "-h"],
    }


def test_help_answers_within_a_second() -> None:
    times = []
    for _ in range(3):
        started = time.monotonic()
        assert _stylebatch("--help").returncode == 0
        times.append(time.monotonic() - started)
    assert min(times) < 1.0


def test_run_says_where_the_dataset_is(manifest: Path) -> None:
    result = _stylebatch("run", str(manifest))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    output = manifest.parent / "out"
    assert "Went through 4 of 4 samples" in result.stdout
    assert re.search(r"samples/s", result.stdout)
    assert str(output) in result.stdout
    assert str(output / "contact_sheet.png") in result.stdout
    again = _stylebatch("run", str(manifest))
    assert "Resuming" in again.stdout
    report = _stylebatch("report", str(output))
    assert report.returncode == 0
    assert str(output / "gallery.html") in report.stdout


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method.gama=0.5"], "method.gama: unknown key with value 0.5; did you mean 'gamma'?"),
        (["method.gamma=1.5"], "method.gamma: found 1.5; input should be less than or equal to 1"),
        (["method.gamma=high"], 'method.gamma: found "high"; input should be a valid number'),
        (["contents.path=nowhere"], "nowhere', which does not exist; accepted: an image folder"),
        (
            ["engine=warp"],
            "engine.name: found \"warp\"; input should be 'auto', 'local', 'ray' or 'accelerate'",
        ),
        (["method.steps=7"], "steps: 7 does not divide 1000"),
        (["output.path=INSIDE"], "lies inside contents.path"),
        (["method.sites=[1,6]"], "method.sites: found [1], where this model has no self-attention"),
    ],
)
def test_bad_manifests_exit_2_with_file_field_value_and_what_is_accepted(
    manifest: Path, overrides: list[str], expected: str
) -> None:
    inside = str(manifest.parent / "contents" / "out")
    settings = [text.replace("INSIDE", inside) for text in overrides]
    result = _stylebatch(
        "run", str(manifest), *[part for text in settings for part in ("--set", text)]
    )
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (manifest.parent / "out" / "data").exists()


def test_bad_values_are_refused_before_a_model_loads(manifest: Path) -> None:
    code = (
        "import sys; from stylebatch.cli import main; "
        f"code = main(['run', {str(manifest)!r}, '--set', 'method.tau=-1']); print(code, 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["2", "False"]


def test_unreachable_hub_names_the_local_folder_way(manifest: Path) -> None:
    result = _stylebatch("plan", str(manifest), "--set", "model={id: nobody/no-such-model}")
    assert result.returncode == 2
    assert "model: {path: FOLDER}" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_plan_prints_text_and_json(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(manifest)]) == 0
    assert "2 contents, 2 styles, product pairing: 4 samples of 64 px" in capsys.readouterr().out
    assert main(["plan", str(manifest), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["num_pairs"], planned["evaluations"]) == (4, 4 * (4 + 2 + 2))


def test_schema_is_json_and_knows_the_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "tiny" in schema["properties"]["model"]["anyOf"][0]["enum"]
    assert schema["additionalProperties"] is False


def test_locked_output_exits_4(manifest: Path) -> None:
    from stylebatch.store.run_lock import RunLock

    with RunLock(manifest.parent / "out"):
        result = _stylebatch("run", str(manifest))
    assert result.returncode == 4
    assert f"process {os.getpid()}" in result.stderr


def test_unwritable_output_exits_5(manifest: Path) -> None:
    (manifest.parent / "file").write_text("in the way")
    result = _stylebatch("run", str(manifest), "--output", str(manifest.parent / "file" / "out"))
    assert result.returncode == 5
    assert "file/out" in result.stderr
    assert "--output" in result.stderr


def test_conformance_of_a_folder_that_is_no_case_exits_2(tmp_path: Path) -> None:
    result = _stylebatch("conformance", str(tmp_path))
    assert result.returncode == 2
    (tmp_path / "options.json").write_text('{"kind": "painting"}')
    result = _stylebatch("conformance", str(tmp_path))
    assert result.returncode == 2
    assert "found 'painting'" in result.stderr
