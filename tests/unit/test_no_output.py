"""Verbs that take an output say what else stands there, and a watch waits for a run that is about to begin."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
import time
from pathlib import Path

import pytest

from stylebatch.cli import main, status_verb
from tests.support.images import picture
from tests.support.outputs import Pair, write_output
from tests.support.s3 import BUCKET, s3_server

OUTPUT = "outputs/mine"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as people have it after a run."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "paintings"):
        Path(name).mkdir()
        picture(1, 32, 32).save(f"{name}/1.png")
    Path("mine.yaml").write_text(
        f"contents: {{path: photos}}\nstyles: {{path: paintings}}\noutput: {{path: {OUTPUT}}}\n"
    )
    write_output(Path(OUTPUT), [[Pair("cat/a.png", "s.jpg")]])
    shutil.copytree(OUTPUT, "outputs/mine-compare/gamma=0.5")
    Path("empty").mkdir()
    Path("notes.txt").write_text("x")
    Path("odd").mkdir()
    shutil.copy("notes.txt", "odd")
    return tmp_path


@pytest.mark.parametrize(
    "verb", ["status", "verify", "report", "view --port 0", "export --to files --output ../x"]
)
@pytest.mark.parametrize(
    ("place", "found", "meant"),
    [
        ("mine.yaml", f"found a manifest, whose output is {OUTPUT}", OUTPUT),
        ("outputs", f"found a folder in which outputs lie: {OUTPUT}, outputs/mine-compare/gamma=0.5", OUTPUT),
        (".", f"found a folder in which outputs lie: {OUTPUT}", OUTPUT),
        (f"{OUTPUT}/data/", f"found a part of the output {OUTPUT}", OUTPUT),
        (f"{OUTPUT}/data/train-00000.tar", f"found a part of the output {OUTPUT}", OUTPUT),
        ("photos", "found image folder (kind folder)", ""),
        ("notes.txt", "found a file that is nothing of stylebatch", ""),
        ("odd", "found a folder of 1 entry that is nothing of stylebatch", ""),
        ("empty", "found an empty folder", ""),
        ("output/mine", "found nothing there; did you mean outputs/mine?", ""),
    ],
)  # fmt: skip
def test_what_is_no_output_is_named(
    here: Path, verb: str, place: str, found: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*shlex.split(verb), place]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{place.rstrip('/')}: {found}" in told
    if not meant:
        step = (
            "run MANIFEST" if "nothing there" in found or "empty" in found else f"inspect {place}"
        )
        assert f"Next: `stylebatch {step}`" in told
        return
    (typed,) = (part for part in told.split("`")[1::2] if part.startswith("stylebatch"))
    assert shlex.split(typed) == ["stylebatch", *words[:-1], meant]


def test_clean_says_what_a_file_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "mine.yaml"]) == 2
    assert f"Next: `stylebatch clean {OUTPUT}`" in capsys.readouterr().err


def test_no_more_than_some_outputs_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        (Path("many") / str(number)).mkdir(parents=True)
        shutil.copy(f"{OUTPUT}/run.json", f"many/{number}")
    assert main(["status", "many", "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("many/") == 11  # the last of them in the command
    assert ", ...; accepted" in told.err


def test_a_place_in_a_store_is_told_without_reading_it(capsys: pytest.CaptureFixture[str]) -> None:
    with s3_server():
        assert main(["status", f"s3://{BUCKET}/nothing"]) == 2
        assert "found nothing there; accepted: the output of a run" in capsys.readouterr().err


def test_a_run_that_is_gone_before_it_wrote_its_record_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = {
        "host": "elsewhere",
        "machine": "m",
        "pid": 7,
        "started": "1",
        "token": "t",
        "heartbeat": 1.0,
    }
    Path("empty/.run.lock").write_text(json.dumps(owner))
    assert main(["status", "empty"]) == 2
    assert "empty: process 7 on elsewhere wrote it and is gone" in capsys.readouterr().err


def test_a_watch_waits_for_a_run_to_begin(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_verb, "EVERY_S", 0.05)

    def begin() -> None:
        time.sleep(0.2)
        shutil.copytree(OUTPUT, "begun")
        os.rename("begun", "outputs/late")

    thread = threading.Thread(target=begin)
    thread.start()
    assert main(["status", "outputs/late", "--watch"]) == 0
    thread.join()
    told = capsys.readouterr()
    assert told.err.count("waiting up to 60 s for a run to begin") == 1
    assert "outputs/late: finished, 1 of 1 sample" in told.out
    monkeypatch.setattr(status_verb, "BEGINS_WITHIN_S", 0)
    assert main(["status", "outputs/never", "--watch"]) == 2
    assert main(["status", "photos", "--watch"]) == 2
