"""The command line: verbs, exit codes, and messages that say what to do next."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stylebatch.cli import main
from stylebatch.cli.app import GROUPS, command
from stylebatch.folder import Folder
from tests.support.images import write_inputs, write_manifest


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


def _flags(command: Any, name: str = "", parent: Any = None) -> dict[str, list[str]]:
    """The options of each verb, by its words."""
    context = command.make_context(name, [], parent, resilient_parsing=True)
    options = (option for each in command.get_params(context) for option in each.opts)
    found = {name: sorted(option for option in options if option.startswith("-"))}
    for verb, below in getattr(command, "commands", {}).items():
        found |= _flags(below, f"{name} {verb}".strip(), context)
    return found


def test_verbs_and_flags_are_these() -> None:
    assert _flags(command()) == {
        "": ["--help", "--install-completion", "--show-completion", "--version", "-h"],
        "cache": ["--help", "-h"],
        "clean": ["--comparisons", "--dry-run", "--help", "-h"],
        "init": [
            *(
                "--annotations",
                "--contents",
                "--dry-run",
                "--force",
                "--help",
                "--manifest",
                "--masks",
            ),
            *("--method", "--mode", "--model", "--name", "--output", "--pairing", "--pairs"),
            *("--per-content", "--prompts", "--segmentation", "--size", "--split", "--styles"),
            *("-h", "-m"),
        ],
        "inspect": ["--help", "--json", "--rows", "-h"],
        "demo": ["--dry-run", "--help", "--json-logs", "--output", "--set", "-h"],
        "run": [
            "--address",
            "--dry-run",
            "--engine",
            "--help",
            "--json-logs",
            "--limit",
            "--metrics-port",
            "--output",
            "--retry-failed",
            "--set",
            "--tracker",
            "--workers",
            "-h",
        ],
        "plan": [
            *(
                "--help",
                "--json",
                "--max-bytes",
                "--max-hours",
                "--output",
                "--price",
                "--set",
                "-h",
            ),
        ],
        "compare": [
            "--dry-run",
            "--help",
            "--json",
            "--json-logs",
            "--limit",
            "--output",
            "--set",
            "--vary",
            "-h",
        ],
        "precompute": ["--dry-run", "--help", "--json-logs", "--output", "--set", "-h"],
        "submit": [
            "--address",
            "--dry-run",
            "--help",
            "--json-logs",
            "--output",
            "--python",
            "--set",
            "--workers",
            "-h",
        ],
        "status": ["--help", "--json", "--prometheus", "--watch", "-h"],
        "verify": ["--help", "--json", "-h"],
        "repair": ["--dry-run", "--help", "--json-logs", "-h"],
        "report": ["--dry-run", "--help", "-h"],
        "view": ["--browser", "--help", "--keys", "--port", "-h"],
        "evaluate": [
            "--against",
            "--bootstrap",
            "--device",
            "--dry-run",
            "--help",
            "--json",
            "--limit",
            "--to",
            "--weights",
            "-h",
        ],
        "measure": ["--add", "--classifier", "--dry-run", "--help", "--json-logs", "--label", "-h"],
        "export": [
            "--annotations",
            "--balance",
            "--drop",
            "--dry-run",
            "--help",
            "--hub-format",
            "--json-logs",
            "--output",
            "--private",
            "--seed",
            "--shard-size",
            "--split",
            "--staging",
            "--to",
            "--where",
            "--with-originals",
            "-h",
        ],
        "merge": [
            "--dry-run",
            "--help",
            "--json-logs",
            "--output",
            "--shard-size",
            "--split",
            "--to",
            "-h",
        ],
        "doctor": [
            "--config",
            "--dry-run",
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
        "cache verify": ["--dry-run", "--help", "--repair", "-h"],
        "cache gc": ["--dry-run", "--help", "--max-bytes", "-h"],
        "train": ["--dry-run", "--help", "--output", "--set", "-h"],
        "schema": ["--help", "-h"],
    }


def test_help_lists_every_verb_under_a_group() -> None:
    shown = _stylebatch("--help").stdout
    headings = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert headings == ["Options", *GROUPS, "Style cache"]
    assert max(map(len, shown.splitlines())) <= 80
    verbs = re.findall(r"^  (\w\S*)  ", shown, re.MULTILINE)
    assert sorted(verbs) == sorted(command().commands)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "Missing command.\nAccepted: init, inspect, demo, schema, run, plan,"),
        ("rnu m.yaml", "No such command 'rnu'. Did you mean 'run'?"),
        ("cache prune c", "No such command 'prune'.\nAccepted: ls, verify, gc. Next: `stylebatch cache --help`"),
        ("run m.yaml --limt 3", "No such option: --limt (Possible options: --limit)\nNext: `stylebatch run --help`"),
        ("run m.yaml --limit few", "'--limit': found 'few'; accepted: a whole number"),
        ("run m.yaml --limit", "Option '--limit' requires an argument.\nNext: `stylebatch run --help`"),
        ("run m.yaml more", "unexpected extra argument(s) (more)"),
        ("cache gc", "Missing argument 'CACHE'."),
        ("submit m.yaml", "Missing option '--address'."),
        ("s3://user:hunter2@b/\x1b[1m", "No such command 's3://***@b/\\x1b[1m'"),
    ],
)  # fmt: skip
def test_misuse_names_what_was_found_and_what_is_accepted(
    capsys: pytest.CaptureFixture[str], words: str, expected: str
) -> None:
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert expected in shown.err
    assert shown.err.startswith("stylebatch: ")
    assert shown.out == ""
    assert "\x1b" not in shown.err


def test_bash_completes_verbs_options_and_values(tmp_path: Path) -> None:
    program = tmp_path / "stylebatch"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m stylebatch "$@"\n')
    program.chmod(0o755)

    def completed(*words: str) -> list[str]:
        code = (
            'eval "$(_STYLEBATCH_COMPLETE=source_bash stylebatch)"; COMP_WORDS=(stylebatch "$@"); COMP_CWORD=$#; '
            '_stylebatch_completion stylebatch; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", code, "bash", *words],
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert sorted(completed("re")) == ["repair", "report"]
    assert completed("cl") == ["clean"]
    assert completed("cache", "") == ["ls", "verify", "gc"]
    assert completed("run", "m.yaml", "--li") == ["--limit"]
    assert completed("run", "m.yaml", "--engine", "") == ["auto", "local", "ray", "accelerate"]


def test_completed_values_are_those_that_are_accepted() -> None:
    from stylebatch.cli import dataset_verbs, model_verbs
    from stylebatch.models.model_section import ModelSpec
    from stylebatch.spec import EngineSpec

    def accepted(section: type[BaseModel], field: str) -> list[str]:
        schema = section.model_json_schema()["properties"][field]
        return next(each["enum"] for each in (schema, *schema.get("anyOf", ())) if "enum" in each)

    assert dataset_verbs._engines() == accepted(EngineSpec, "name")
    assert dataset_verbs._trackers() == accepted(EngineSpec, "tracker")
    assert model_verbs._models() == accepted(ModelSpec, "name")
    assert model_verbs._dtypes() == accepted(ModelSpec, "dtype")


def test_help_answers_at_once() -> None:
    """In time of the processor, which a busy machine does not lengthen."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert _stylebatch("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_run_says_where_the_dataset_is(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = _stylebatch("run", str(manifest))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    output = manifest.parent / "out"
    assert "Went through 4 of 4 samples" in result.stdout
    assert re.search(r"samples/s", result.stdout)
    assert str(output) in result.stdout
    assert str(output / "contact_sheet.png") in result.stdout
    assert main(["run", str(manifest)]) == 0
    assert "Resuming" in capsys.readouterr().out
    assert main(["report", str(output)]) == 0
    assert str(output / "gallery.html") in capsys.readouterr().out


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
        (["method.steps=7"], "steps: found 7; convention ldm accepts divisors of 1000"),
        (["output.path=INSIDE"], "lies inside contents.path"),
        (["method.sites=[1,6]"], "method.sites: found [1], where this model has no self-attention"),
    ],
)
def test_bad_manifests_exit_2_with_file_field_value_and_what_is_accepted(
    manifest: Path, overrides: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = str(manifest.parent / "contents" / "out")
    settings = [text.replace("INSIDE", inside) for text in overrides]
    words = [part for text in settings for part in ("--set", text)]
    assert main(["run", str(manifest), *words]) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert "Traceback" not in shown
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
    assert (
        "2 contents, 2 styles, product pairing: 4 samples of 64 x 64 px" in capsys.readouterr().out
    )
    assert main(["plan", str(manifest), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["num_samples"], planned["evaluations"]) == (4, 4 * (4 + 2 + 2))


def test_schema_is_json_and_knows_the_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "tiny" in schema["properties"]["model"]["anyOf"][0]["enum"]
    assert schema["additionalProperties"] is False


def test_locked_output_exits_4(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stylebatch.store.run_lock import RunLock

    with RunLock(Folder.at(manifest.parent / "out")):
        assert main(["run", str(manifest)]) == 4
    assert f"process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_unwritable_output_exits_5(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(manifest), "--output", "/proc/none/out"]) == 5
    shown = capsys.readouterr().err
    assert "/proc/none/out" in shown
    assert "--output" in shown


def test_conformance_of_a_folder_that_is_no_case_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", str(tmp_path)]) == 2
    (tmp_path / "options.json").write_text('{"kind": "painting"}')
    assert main(["conformance", str(tmp_path)]) == 2
    assert "found 'painting'" in capsys.readouterr().err
