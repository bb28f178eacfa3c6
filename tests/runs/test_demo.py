"""`stylebatch demo`: what a stranger types first, in a folder of any state."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylebatch.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "stylebatch" / "examples"
NAMES = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file())
FEW = ["--set", "pairing={mode: zip}", "--set", "method.steps=2", "--set", "engine.threads=1"]


def there(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


def test_it_renders_in_an_empty_folder_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *FEW]) == 0
    told = capsys.readouterr().out
    assert "15 files written" in told
    assert told.count("device: ") == 1, "one line says where it runs"
    assert there(tmp_path / "manifests") == there(EXAMPLES)
    assert list((tmp_path / "outputs/demo/data").glob("*.tar"))
    # what a killed copy left away comes back; nothing is rendered again
    (tmp_path / "manifests" / NAMES[3]).unlink()
    assert main(["demo", *FEW]) == 0
    told = capsys.readouterr().out
    assert "1 files written" not in told
    assert "1 file written" in told
    assert "Went through 0 of 6" in told


def test_files_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    (mine / "demo/styles").mkdir(parents=True)
    (mine / "demo/styles/carpet.jpg").write_bytes(b"a picture of mine")
    (mine / "other.yaml").write_text("name: other")
    assert main(["demo", "mine"]) == 2
    told = capsys.readouterr().err
    assert "mine/demo/styles/carpet.jpg: found a file that is not the demo's" in told
    assert sorted(path.name for path in mine.rglob("*") if path.is_file()) == ["carpet.jpg", "other.yaml"]  # fmt: skip
    assert main(["demo", "mine/other.yaml"]) == 2
    assert "found a file; accepted: a folder" in capsys.readouterr().err


def test_the_repository_has_the_demo_once() -> None:
    assert (ROOT / "manifests/demo.yaml").resolve() == EXAMPLES / "demo.yaml"
    assert (ROOT / "manifests/demo").resolve() == EXAMPLES / "demo"
