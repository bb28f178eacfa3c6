"""What `run` refuses, `plan` refuses too: with the same exit code and the same text, and it leaves everything as it is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylebatch.cli import main
from stylebatch.folder import Folder
from stylebatch.store.lock_owner import LOCK, machine
from stylebatch.store.run_lock import RunLock
from tests.support.images import picture
from tests.support.runs import small_manifest

Harm = Callable[[Path], list[str]]
"""Changes a folder with a finished output; returns the further arguments of the command."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of listed pairs in `out`, whose rows stand in no order and one of them twice."""
    folder = tmp_path_factory.mktemp("whole")
    manifest = small_manifest(folder, contents=3, styles=2)
    data = json.loads(manifest.read_text())
    data["pairing"] = {"mode": "explicit", "path": "pairs.csv"}
    manifest.write_text(json.dumps(data))
    rows = ("02.png,01.png", "00.png,00.png", "02.png,00.png", "00.png,00.png")
    (folder / "pairs.csv").write_text("\n".join(("content,style", *rows)) + "\n")
    assert main(["run", str(manifest)]) == 0
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "job")
    return tmp_path / "job"


def _answer(
    verb: str, folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code, and the message that ends the command, without what was told before."""
    capsys.readouterr()
    target = ["--output", str(folder / "out")]
    code = main([verb, str(folder / "run.yaml"), *target, *options])
    text = capsys.readouterr().err
    return code, text[text.rfind("stylebatch: ") :] if code else ""


def _state(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _changed_option(folder: Path) -> list[str]:
    return ["--set", "method.gamma=0.5"]


def _row_gone(folder: Path) -> list[str]:
    pairs = folder / "pairs.csv"
    pairs.write_text(pairs.read_text().replace("00.png,00.png\n", "", 1))
    return []


def _relabelled(folder: Path) -> list[str]:
    pairs = folder / "pairs.csv"
    rows = pairs.read_text().splitlines()
    pairs.write_text("\n".join([rows[0] + ",label", *(row + ",cat" for row in rows[1:])]) + "\n")
    return []


def _repainted(folder: Path) -> list[str]:
    picture(99, 48, 40).save(folder / "contents" / "02.png")
    return []


def _not_gathered(folder: Path) -> list[str]:
    """Killed before it gathered what it had decoded, and then an input changed."""
    (folder / "out/inputs/files.parquet").unlink()
    return _repainted(folder)


def _other_program(folder: Path) -> list[str]:
    (folder / "out/run.json").write_text('{"experiment": 7}')
    return []


def _cut(folder: Path) -> list[str]:
    run = folder / "out/run.json"
    run.write_text(run.read_text()[:-40])
    return []


def _foreign(folder: Path) -> list[str]:
    shutil.rmtree(folder / "out")
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")
    return []


def _other_dtype(folder: Path) -> list[str]:
    run = folder / "out/run.json"
    data = json.loads(run.read_text())
    data["resolved"]["device"] = "cuda"
    run.write_text(json.dumps(data))
    # one shard is missing, so that a run had something to render
    next((folder / "out/metadata").glob("*_stats.json")).unlink()
    return []


def _without_lists(folder: Path) -> list[str]:
    """A copy that lost what the plan was made of; the list has grown since."""
    shutil.rmtree(folder / "out/inputs")
    with (folder / "pairs.csv").open("a") as file:
        file.write("01.png,01.png\n")
    return []


def _other_engine(folder: Path) -> list[str]:
    return ["--set", "engine.name=local", "--set", "engine.workers=3"]


HARMS: dict[Harm, int] = {
    _changed_option: 4,
    _row_gone: 4,
    _relabelled: 4,
    _repainted: 4,
    _not_gathered: 4,
    _other_program: 2,
    _cut: 2,
    _foreign: 2,
    _other_dtype: 4,
    _without_lists: 4,
    _other_engine: 2,
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__.strip("_"))
def test_plan_refuses_what_run_refuses(
    folder: Path, harm: Harm, capsys: pytest.CaptureFixture[str]
) -> None:
    options = harm(folder)
    before = _state(folder)
    planned = _answer("plan", folder, options, capsys)
    assert _state(folder) == before
    assert planned == _answer("run", folder, options, capsys)
    assert planned[0] == HARMS[harm]
    assert planned[1].strip()


def test_plan_is_refused_while_a_run_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLock(Folder.at(folder / "out")):
        before = _state(folder)
        code, text = _answer("plan", folder, [], capsys)
        assert {name for name, facts in _state(folder).items() if facts != before[name]} <= {
            f"out/{LOCK}"
        }
        assert (code, text.split("(last seen")[0]) == (
            4,
            _answer("run", folder, [], capsys)[1].split("(last seen")[0],
        )
    assert f"is being written by process {os.getpid()}" in text


def test_plan_tells_what_it_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["plan", str(folder / "run.yaml"), "--output", str(folder / "out"), "--json",
                 "--set", "method.gamma=0.5"]) == 4  # fmt: skip
    shown = capsys.readouterr()
    assert json.loads(shown.out)["num_samples"] == 4
    assert "method.gamma: 0.75 -> 0.5" in shown.err


def test_a_dead_lock_and_a_finished_output_are_no_reason_to_refuse(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = {"host": socket.gethostname(), "machine": "", "pid": 2**22 + 1, "started": "1", "token": "t"}  # fmt: skip
    lock = folder / "out" / LOCK
    lock.write_text(json.dumps(owner | {"machine": machine(), "heartbeat": time.time()}))
    before = _state(folder)
    assert main(["plan", str(folder / "run.yaml"), "--output", str(folder / "out")]) == 0
    shown = capsys.readouterr()
    assert "is gone" in shown.err
    assert "4 of 4 shards are committed; a run has nothing left to render" in shown.out
    assert _state(folder) == before


def test_what_is_left_of_a_grown_list_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = folder / "pairs.csv"
    head, *rows = pairs.read_text().splitlines()
    pairs.write_text("\n".join((head, "01.png,01.png", *reversed(rows))) + "\n")
    next((folder / "out/metadata").glob("*_stats.json")).unlink()
    command = ["plan", str(folder / "run.yaml"), "--output", str(folder / "out")]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_samples"], found["num_committed_shards"]) == (1, 3)
    assert main(command) == 0
    assert "3 of 5 shards are committed; a run renders 2 more" in capsys.readouterr().out
