"""`--dry-run`: every verb that writes has it, it changes no file, and it refuses what the verb refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import stylebatch.doctor.profiling as profiling
from stylebatch.cli import main
from stylebatch.cli.app import command
from stylebatch.engine.precompute import precompute
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from tests.support.runs import small_manifest
from tests.support.styles import flip

READS = {"cache ls", "conformance", "inspect", "plan", "schema", "status", "verify"}
"""Verbs that write nothing."""
ASKS = {"view"}
"""Verbs that write what a person clicks, while they look."""


def _verbs(group: Any, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in group.commands.items():
        is_group = hasattr(each, "commands")
        found |= _verbs(each, f"{name} ") if is_group else {f"{before}{name}": each}
    return found


def _has_it(verb: Any) -> bool:
    return any("--dry-run" in option.opts for option in verb.params)


WRITES = sorted(name for name, verb in _verbs(command()).items() if _has_it(verb))
GIVEN: dict[str, list[str]] = {
    "run": ["run.yaml --set name=other --output new", "run.yaml --limit 1", "run.yaml --limit 2", "run.yaml --retry-failed"],
    "precompute": ["run.yaml --set features.cache=cache", "run.yaml --set features.cache=newcache"],
    "compare": ["run.yaml --vary method.gamma=0.2,0.4 --limit 1"],
    "submit": ["run.yaml --address http://127.0.0.1:9"],
    "demo": [""],
    "init": ["contents styles --model tiny", "--contents contents --styles styles --model tiny"],
    "report": ["out"],
    "measure": ["out --add agreement"],
    "evaluate": ["out --to figures", "out"],
    "repair": ["out", "damaged"],
    "export": ["out --to parquet --output exported", "out --to hub --output somebody/set"],
    "merge": ["out copy --output merged"],
    "clean": [".", "out damaged"],
    "doctor": ["tiny --size 32"],
    "train": ["train.yaml"],
    "cache verify": ["cache --repair", "cache"],
    "cache gc": ["cache --max-bytes 1kB"],
}  # fmt: skip
"""What each verb is given; those of them that other versions have are passed over."""


def test_every_verb_that_writes_has_it() -> None:
    assert set(_verbs(command())) - READS == {*WRITES, *ASKS}
    assert set(WRITES) <= GIVEN.keys()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that verbs read: outputs, one of them damaged; a preview; a cache with a damaged style; leftovers."""
    folder = tmp_path_factory.mktemp("dry")
    manifest = small_manifest(folder, contents=2, styles=2)
    for limit in (None, 2):
        run(load_spec(manifest, ["output.inputs=true"]), limit=limit)
    shutil.copytree(folder / "out", folder / "copy")
    shutil.copytree(folder / "out", folder / "damaged")
    next((folder / "damaged" / "data").glob("*.tar")).write_bytes(b"cut")
    (folder / "damaged" / "data" / ".tmp-train-00000.tar-0123abcd").touch()
    precompute(load_spec(manifest, [f"features.cache={folder / 'cache'}"]))
    flip(next((folder / "cache").glob("*.tar")), 2000)
    config = {
        "stage": "unet", "model": "tiny", "data": {"path": "contents", "size": 32}, "steps": 2,
        "phases": [{"until": 1.0, "windows": [{"size": 32, "batch": 1}]}], "output": "trained",
    }  # fmt: skip
    (folder / "train.yaml").write_text(json.dumps(config))
    return folder


def _files(*folders: Path) -> dict[str, tuple[bytes, int] | None]:
    """Every file and folder with what it holds and when that was written."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for folder in folders
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("verb", WRITES)
def test_a_dry_run_changes_no_file_and_says_what_would_be(
    world: Path,
    tmp_path: Path,
    verb: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(world)
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    # matplotlib lists the machine's fonts when it is first imported
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
    monkeypatch.setattr(profiling, "SECONDS", 0.0)
    monkeypatch.setattr(profiling, "FEWEST", 1)
    before = _files(world, tmp_path)
    for words in GIVEN[verb]:
        shown = [*verb.split(), *words.split(), "--dry-run"]
        code = main(shown)
        told = capsys.readouterr()
        assert _files(world, tmp_path) == before, shown
        assert code == (1 if verb == "cache verify" else 0), (shown, told.err)
        assert told.out.strip(), shown


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("run run.yaml --set method.gamma=0.2", 4),
        ("run run.yaml --set method.gama=0.2", 2),
        ("run run.yaml --output contents/inside", 2),
        ("run run.yaml --output styles", 2),
        ("precompute run.yaml", 2),
        ("compare run.yaml --vary method.gama=0.2,0.4", 2),
        ("compare run.yaml --vary method.gamma=0.2,0.4 --output styles/00.png", 2),
        ("submit nothing.yaml --address http://127.0.0.1:9", 2),
        ("report contents", 2),
        ("measure out --add beauty", 2),
        ("evaluate contents", 2),
        ("repair out-preview-2", 2),
        ("export out --to parquet --output damaged", 4),
        ("export out --to parquet --output out/inside", 2),
        ("export out --to hub --output nobody", 2),
        ("merge out out --output merged", 2),
        ("clean nowhere", 2),
        ("train nothing.yaml", 2),
        ("cache gc nowhere --max-bytes 1kB", 2),
    ],
)
def test_a_dry_run_refuses_what_the_verb_refuses(
    world: Path, words: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    before = _files(world)
    assert main([*words.split(), "--dry-run"]) == code
    assert _files(world) == before
    if code == 2:  # a refusal at the end of a long run is told by other tests
        assert main(words.split()) == code
