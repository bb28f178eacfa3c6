"""How commands end: nothing shows a traceback, nothing unexpected is a success, and JSON logs are JSON to the last line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from stylebatch.cli import main
from stylebatch.cli.json_lines import json_lines
from stylebatch.engine.worker import Worker
from stylebatch.errors import Interrupted
from stylebatch.folder import Folder
from stylebatch.interruption import interruptible
from stylebatch.manifest import load_spec
from stylebatch.models.loading import load_model
from stylebatch.planning.resolve import plan
from tests.support.user_methods import HEAD, RENDER, written


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("digest"), "unexpected KeyError: 'digest'"),
        (SystemExit(0), "unexpected SystemExit: 0"),
        (RecursionError(), "unexpected RecursionError"),
        (BrokenPipeError(32, "Broken pipe"), "unexpected BrokenPipeError"),
    ],
)
def test_an_unexpected_error_names_the_file_of_its_trace(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    expected: str,
) -> None:
    def broken() -> dict[str, object]:
        raise error

    monkeypatch.setattr("stylebatch.spec.json_schema", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["schema"]) == 1
    shown = capsys.readouterr().err
    assert expected in shown
    assert "Traceback" not in shown
    named = re.search(r"trace is in (\S+\.txt)", shown)
    assert named is not None
    assert "Traceback (most recent call last)" in Path(named.group(1)).read_text()


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "stylebatch", "schema"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_libraries_do_at_exit_leaves_the_code_as_it_is() -> None:
    """Such as a thread of C++ that is at work when its destructor runs. What Python does at exit is still done."""
    code = (
        "import atexit, ctypes, sys\nlibrary = ctypes.CDLL(None)\nlibrary.__cxa_atexit(library.abort, None, None)\n"
        "from stylebatch.cli import main\nsys.argv = ['stylebatch', 'nonsense']\ncode = main()\n"
        "atexit.register(print, 'done at exit')\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "done at exit\n")
    assert "nonsense" in done.stderr


def test_every_line_on_the_descriptor_is_json(capfd: pytest.CaptureFixture[str]) -> None:
    with json_lines(until_exit=False):
        os.write(2, b"of a library\n\xff\xfe no text\rover\x1b[1m it \xe2\x80\xa8 and on\n\n")
        os.write(2, b'["no object"]\n{"event": "ours", "n": 1}\nlast')
        os.write(2, b"x" * (3 << 20))
        subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('of a child')"])
    os.write(2, b"plain again\n")
    *lines, plain = capfd.readouterr().err.splitlines()
    assert plain == "plain again"
    told = [json.loads(line) for line in lines]
    assert all(isinstance(event, dict) for event in told)
    texts = [event.get("text", "") for event in told]
    assert texts[0] == "of a library"
    assert {"event": "ours", "n": 1} in told
    assert any("of a child" in text for text in texts)
    assert sum(text.count("x") for text in texts) >= 3 << 20


@pytest.mark.parametrize("end", ["os.abort()", "os._exit(0)", "sys.exit('bye')", "1 / 0"])
def test_the_last_words_of_a_process_are_json(end: str) -> None:
    code = (
        "import faulthandler, os, sys; from stylebatch.cli.json_lines import json_lines\n"
        f"faulthandler.enable(2)\nwith json_lines(until_exit=True):\n    os.write(2, b'before')\n    {end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert "before" in told[0]["text"]


@pytest.mark.parametrize("words", [["nope.yaml"], [], ["m.yaml", "--limit", "x"]])
def test_wrong_arguments_are_json_too(words: list[str]) -> None:
    command = [sys.executable, "-m", "stylebatch", "run", "--json-logs", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert (told[-1]["event"], told[-1]["exit_code"]) == ("error", 2)


def test_a_worker_that_cannot_begin_leaves_no_trace(tmp_path: Path) -> None:
    """Its method is gone since the plan was made."""
    manifest = written(tmp_path, f"{HEAD}{RENDER}        return samples.noise()\n")
    planned = plan(load_spec(manifest))
    (tmp_path / "mine.py").unlink()
    model, before = load_model(planned.spec.model), torch.get_num_threads()
    with (
        pytest.raises(ValueError, match="cannot be read"),
        Worker(planned, Folder.at(tmp_path / "out"), threads=before + 1, model=model),
    ):
        pass
    assert torch.get_num_threads() == before
    assert (model.on_evaluations, model.pictures_at_once) == (None, None)
    assert not [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("decode", "encode", "lane"))
    ]


def test_a_signal_that_falls_into_a_destructor_is_not_lost() -> None:
    class Signalled:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Signalled()
        time.sleep(5)

    with pytest.raises(Interrupted), interruptible():
        work()
