"""A user's method that does what no method should: its shard fails once, is no success, and the line is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stylebatch.cli import main
from tests.support.runs import events, render
from tests.support.user_methods import HEAD, RENDER, written

NAN = "x = samples.noise(); x{} = float('nan'); return x"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise ValueError('boom at ' + str(len(samples)))", "mine.py:7: ValueError: boom at 4"),
        ("sys.exit(0)", "mine.py:7: SystemExit: 0"),
        ("os._exit(0)", "mine.py:7: SystemExit: os._exit(0)"),
        ("raise GeneratorExit", "mine.py:7: GeneratorExit"),
        ("return self.render(model, samples)", "mine.py:7: RecursionError"),
        ("eval('1 +')", "mine.py:7: SyntaxError"),
        ("raise type('Mute', (RuntimeError,), {'__str__': lambda e: 1 / 0})", "mine.py:7: Mute"),
        ("return None", "mine.py:6: method mine: render returned None"),
        ("return iter(int, 1)", "render returned a callable_iterator"),
        ("return samples.noise()[:1]", "render returned (1, 8, 8, 8); accepted: (4, 8, 8, 8)"),
        ("return samples.noise().int()", "render returned a tensor of int32"),
        ("return samples.noise().to('meta')", "has no data"),
        (NAN.format("[:]"), "mine.py:6: method mine: render returned NaN or infinity"),
        ("return samples.noise() / 0.0", "render returned NaN or infinity"),
    ],
)
def test_a_render_that_cannot_succeed_fails_its_shard_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, expected: str
) -> None:
    """Whatever share of failed samples is allowed."""
    exit_of_the_system = os._exit
    manifest = written(tmp_path, f"{HEAD}{RENDER}        {body}\n")
    assert main(["run", str(manifest)]) == 3
    shown = capsys.readouterr()
    assert expected in shown.out
    assert expected in shown.err
    assert "tried again" not in shown.out
    assert "Traceback" not in shown.out + shown.err
    if ":7:" in expected:
        assert (shown.out + shown.err).count(f"    {body}") == 1
    poison = json.loads((tmp_path / "out/metadata/train-00000_poison.json").read_text())
    assert poison["attempts"] == 1
    assert "train-00000_poison.json" in shown.err
    assert not list((tmp_path / "out/data").glob("*"))
    assert os._exit is exit_of_the_system


def test_what_may_pass_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "        import pathlib\n        seen = pathlib.Path(__file__).with_name('seen')\n"
        "        if not seen.exists():\n            seen.touch()\n            raise ConnectionError('busy')\n"
        "        return samples.noise().double().requires_grad_()\n"
    )
    manifest = written(tmp_path, HEAD + RENDER + body)
    assert main(["run", str(manifest)]) == 0
    assert "attempt 1 failed" in capsys.readouterr().out


def test_a_changed_working_directory_moves_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "        os.chdir(os.path.dirname(__file__))\n        return samples.noise()\n"
    (tmp_path / "code").mkdir()
    manifest = written(tmp_path / "code", HEAD + RENDER + body)
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(manifest), "--output", "here"]) == 0
    assert main(["verify", "here"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["code", "here"]


def test_a_row_of_nan_costs_that_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = written(tmp_path, f"{HEAD}{RENDER}        {NAN.format('[1, 0, 0, 0]')}\n")
    assert main(["run", str(manifest)]) == 0
    assert "1 of 4 samples failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, sys\nsys.exit(0)\n", "mine.py:2: SystemExit: 0"),
        ("import os\nos._exit(0)\n", "mine.py:2: SystemExit: os._exit(0)"),
        ("import no_such_package\n", "mine.py:1: ModuleNotFoundError"),
        ("x = (\n", "mine.py:1: SyntaxError"),
        ("x = 1\0", "mine.py"),
        (HEAD + "    async def render(self, model, samples, *, batch): ...\n", "mine.py:6"),
        (HEAD + RENDER + "        yield samples\n", "mine.py:6"),
        (HEAD + "    def render(self, samples): ...\n", "takes (self, samples)"),
        (HEAD + "    inputs = 'image'\n" + RENDER + "        ...\n", "inputs: found 'image'"),
        (HEAD + "    inputs = ('depth',)\n" + RENDER + "        ...\n", "('depth',)"),
        (
            HEAD + "    rows_per_sample = property(lambda self: 1 // 0)\n" + RENDER + "        ...\n",
            "mine.py:6: ZeroDivisionError",
        ),
        (
            HEAD + "    def evaluations(self, size): return 'many'\n" + RENDER + "        ...\n",
            "mine.py:6: evaluations: found 'many'",
        ),
        (
            HEAD + "    @field_validator('steps')\n    @classmethod\n    def even(cls, value): {}['x']\n"
            + RENDER + "        ...\n",
            "mine.py:8: KeyError",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_file_that_is_no_method_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, code: str, expected: str
) -> None:
    assert main([verb, str(written(tmp_path, code))]) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert "method" in shown
    assert "Traceback" not in shown


def test_what_a_file_prints_does_not_spoil_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = written(tmp_path, f"print('hello')\n{HEAD}{RENDER}        return samples.noise()\n")
    assert main(["plan", str(manifest), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["num_samples"] == 4
    assert "hello" in shown.err


@pytest.mark.slow
@pytest.mark.parametrize("body", ["os._exit(0)", "sys.exit(0)", "raise ValueError('boom')"])
def test_on_ray_the_line_is_shown_too(tmp_path: Path, body: str) -> None:
    manifest = written(tmp_path, f"{HEAD}{RENDER}        {body}\n")
    done = render(manifest, tmp_path / "out", "--engine", "ray", "--workers", "1", "--json-logs")
    assert done.returncode == 3
    told = events(done.stderr)
    assert len(told) == len(done.stderr.splitlines())
    (poisoned,) = [event for event in told if event["event"] == "poisoned"]
    assert poisoned["attempts"] == 1
    assert "mine.py:7" in poisoned["text"]
    assert poisoned["source"] == body
