"""Files of an output that were cut, edited or replaced: every verb answers in one message, by an exit code that means something."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from tests.support.runs import small_manifest

GONE = object()
VALUES = (GONE, None, -1, 10**18, 10**400, float("nan"), True, "x", "", [], {}, [[[[]]]], "\ud800")
FILES = ("run.json", "metadata/train-00000_stats.json")
OTHERS = (
    "metadata/train-00000.parquet",
    "inputs/contents.parquet",
    "inputs/files.parquet",
    "data/train-00000.tar",
)
SEED = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tampered")
    run(load_spec(small_manifest(folder, contents=1, styles=2)))
    return folder


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / "out", tmp_path / "out"))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and index of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for key, below in inner:
        yield (*path, key)
        yield from _places(below, (*path, key))


def _changed(document: Any, place: tuple[Any, ...], value: Any) -> str:
    document = json.loads(json.dumps(document))
    node = document
    for key in place[:-1]:
        node = node[key]
    if value is GONE:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return json.dumps(document)


def _answers(whole: Path, output: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> int:
    """The exit code of a verb; 1 is of errors that nobody foresaw."""
    target = ["--output", str(output)] if verb in ("run", "plan") else []
    code = main([verb, str(whole / "run.yaml" if target else output), *target])
    shown = capsys.readouterr()
    assert code in (0, 2, 3, 4, 5), f"{verb}: exit {code}: {shown.err[-1500:]}"
    assert "Traceback" not in shown.out + shown.err
    return code


def _mutations(path: Path, count: int) -> list[str]:
    """Texts of a JSON file with one value changed, or cut."""
    draw, text = random.Random(SEED), path.read_text()
    document = json.loads(text)
    edited = [_changed(document, place, v) for place in _places(document) for v in VALUES]
    cut = [text[: draw.randrange(len(text))] for _ in range(count // 4)]
    whole = ["[]", "null", "{}", '{"digest": 5}', "", "[" * 100_000, '{"a":' * 100_000]
    chosen = draw.sample(edited, min(count, len(edited)))
    return [*chosen, *cut, *whole]


@pytest.mark.parametrize("name", FILES)
def test_reading_verbs_answer(
    whole: Path, output: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in _mutations(output / name, 24):
        (output / name).write_text(text)
        assert (_answers(whole, output, "verify", capsys) == 0) <= (text[:1] == "{")
        if name == "run.json":
            _answers(whole, output, "plan", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["report", "run", "repair"])
@pytest.mark.parametrize("name", FILES)
def test_writing_verbs_answer(
    whole: Path, output: Path, name: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in _mutations(output / name, 15):
        shutil.rmtree(output)
        shutil.copytree(whole / "out", output)
        (output / name).write_text(text)
        _answers(whole, output, verb, capsys)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [_cut, _flip, _folder, _pipe])
@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_damaged_files_of_every_kind(
    whole: Path, output: Path, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    damage(output / name)
    for verb in ("verify", "plan", "report"):
        _answers(whole, output, verb, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_cut, _flip, _folder, _pipe])
@pytest.mark.parametrize("name", [*FILES, *OTHERS])
@pytest.mark.parametrize("verb", ["run", "repair"])
def test_damaged_files_are_mended_or_told(
    whole: Path, output: Path, name: str, verb: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    damage(output / name)
    if _answers(whole, output, verb, capsys) == 0 and verb == "repair":
        assert _answers(whole, output, "verify", capsys) == 0
