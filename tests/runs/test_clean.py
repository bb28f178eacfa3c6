"""Previews are disposable, and nothing else is: what `run --limit` replaces and `clean` removes, and what neither touches."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.engine.cleaning import find, remove
from stylebatch.engine.run import run
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.store.run_lock import RunLock
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import digests, small_manifest

Files = dict[str, tuple[bytes, int]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, its output, and a preview of it."""
    folder = tmp_path_factory.mktemp("clean")
    manifest = small_manifest(folder, contents=2, styles=2)
    for limit in (None, 2):
        run(load_spec(manifest), limit=limit)
    return folder


@pytest.fixture
def place(rendered: Path, tmp_path: Path) -> Path:
    """A copy of it. The output's paths are those of the copy's manifest."""
    place = shutil.copytree(rendered, tmp_path / "place")
    manifest = place / "run.yaml"
    manifest.write_text(manifest.read_text().replace(str(rendered), str(place)))
    return place


def files(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def _without(found: Files, *starts: str) -> Files:
    return {name: facts for name, facts in found.items() if not name.startswith(starts)}


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def edit(preview: Path) -> None:
        value = json.loads((preview / "run.json").read_text())
        change(value)
        (preview / "run.json").write_text(json.dumps(value))

    return edit


def _cut_tar(preview: Path) -> None:
    tar = next(preview.glob("data/*.tar"))
    tar.write_bytes(tar.read_bytes()[:700])


def _spoil(preview: Path) -> None:
    tar = next(preview.glob("data/*.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 255
    tar.write_bytes(data)


def _without_markers(preview: Path) -> None:
    for path in preview.glob("metadata/*_stats.json"):
        path.unlink()


def _other_picture(preview: Path) -> None:
    picture(77, 48, 40).save(preview.parent / "contents" / "00.png")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "of an older version": _edit(lambda run: run.update(version=2)),
    "edited": _edit(lambda run: run.update(digest="0" * 64)),
    "a field of another type": _edit(lambda run: run.update(resolved="cpu")),
    "on another device": _edit(lambda run: run["resolved"].update(device="cuda")),  # type: ignore[attr-defined]
    "a tar that is cut": _cut_tar,
    "a tar with a wrong byte": _spoil,
    "markers gone": _without_markers,
    "records gone": lambda preview: next(preview.glob("metadata/*.parquet")).unlink(),
    "a marker that is no JSON": lambda preview: next(
        preview.glob("metadata/*_stats.json")
    ).write_text("{"),
    "an input that changed": _other_picture,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_preview_is_rendered_whatever_stands_there_of_an_earlier_one(
    rendered: Path, place: Path, damage: str
) -> None:
    preview = place / "out-preview-2"
    (preview / "mine.txt").write_text("mine")
    DAMAGE[damage](preview)
    result = run(load_spec(place / "run.yaml"), limit=2)
    assert result.exit_code == 0
    assert not list(verify(preview))
    if damage != "an input that changed":
        assert digests(preview) == digests(rendered / "out-preview-2")
    assert (preview / "mine.txt").read_text() == "mine"


def test_what_mends_a_damaged_preview_is_told(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output, step in (
        ("out-preview-2", "stylebatch run MANIFEST --limit 2"),
        ("out", "stylebatch repair"),
    ):
        next((place / output).glob("data/*.tar")).unlink()
        for verb in ("verify", "status"):
            assert main([verb, str(place / output)]) == 3
            assert step in capsys.readouterr().out
    assert main(["clean", str(place)]) == 0
    # its folder of tars is empty already
    assert not (place / "out-preview-2").exists()


def test_a_run_json_that_says_nothing_is_left_to_people(place: Path) -> None:
    (place / "out-preview-2" / "run.json").write_text('{"format": "stylebatch", "limi')
    before = files(place)
    assert main(["run", str(place / "run.yaml"), "--limit", "2"]) == 2
    assert main(["clean", str(place)]) == 0
    assert files(place) == before


def _lone_preview(place: Path) -> list[str]:
    shutil.rmtree(place / "out")
    return [str(place / "out")]


@pytest.mark.parametrize(
    "given",
    [
        lambda place: [str(place / "out")],
        lambda place: [str(place / "out") + "/"],
        lambda place: [str(place / "out-preview-2")],
        lambda place: [str(place)],
        lambda place: [str(place.parent)],
        lambda place: [str(place / "out"), str(place / "out-preview-2"), str(place)],
        _lone_preview,
    ],
)
def test_clean_removes_previews_and_nothing_else(
    place: Path, given: Callable[[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words, before = given(place), files(place)
    wanted = {name for name in before if name.startswith("out-preview-2/")}
    assert main(["clean", "--dry-run", *words]) == 0
    told = capsys.readouterr().out
    assert files(place) == before
    assert main(["clean", *words]) == 0
    assert files(place) == _without(before, "out-preview-2/")
    assert not (place / "out-preview-2").exists()
    total = sum(len(before[name][0]) for name in wanted)
    assert f"{len(wanted)} files, {total / 1000:.1f} kB; nothing was removed" in told
    assert f"Removed {len(wanted)} files, {total / 1000:.1f} kB" in capsys.readouterr().out
    assert main(["clean", str(place)]) == 0
    assert "Nothing to remove" in capsys.readouterr().out


def test_without_a_place_the_current_folder_is_meant(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert main(["clean"]) == 0
    assert (place / "out").exists()
    assert not (place / "out-preview-2").exists()
    assert main(["clean", "nowhere"]) == 2


def test_files_of_others_stay_wherever_they_lie(place: Path) -> None:
    preview, elsewhere = place / "out-preview-2", place / "elsewhere"
    elsewhere.mkdir()
    for path in (
        preview / "mine.txt",
        preview / "data" / "train-00099.tar",
        preview / "data" / "notes.md",
        preview / "metadata" / "mine.parquet",
        preview / "own" / "README.md",
        place / "data-preview-3" / "a.png",
        place / "fake-preview-4" / "run.json",
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"limit": 4}')
    # an inputs folder that is a link to the whole output's
    shutil.rmtree(preview / "inputs")
    (preview / "inputs").symlink_to(place / "out" / "inputs")
    (place / "linked").symlink_to(place / "out", target_is_directory=True)
    before = files(place)
    strangers = {
        name
        for name, (data, _) in before.items()
        if data == b'{"limit": 4}' or not name.startswith("out-preview-2/")
    }
    assert main(["clean", str(place)]) == 0
    assert files(place) == {name: before[name] for name in strangers}
    assert (preview / "inputs").is_symlink()


DEAD = {
    "host": os.uname().nodename, "machine": "gone", "pid": 4, "started": "1", "token": "t", "heartbeat": 1.0,
}  # fmt: skip
"""The lock of a run that is gone."""


def test_a_live_run_is_never_touched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLock(Folder.at(place / "out-preview-2")):
        before = _without(files(place), "out-preview-2/.run.lock")
        for option in ([], ["--dry-run"]):
            assert main(["clean", *option, str(place)]) == 4
            assert f"process {os.getpid()}" in capsys.readouterr().err
        assert _without(files(place), "out-preview-2/.run.lock") == before
    # a run that begins between the look and the removal is not touched either
    (found,) = find([str(place)], comparisons=False)
    with RunLock(found.folder), pytest.raises(Exception, match="is being written by"):
        remove(found)
    shutil.copyfile(place / "out" / "run.json", place / "out-preview-2" / "run.json")
    kept = files(place)
    remove(found)  # a whole run took the preview's place since
    assert files(place) == kept


def test_what_killed_runs_left_is_removed_and_what_runs_write_now_is_not(place: Path) -> None:
    out = place / "out"
    for name in ("data/.tmp-train-00000.tar-0123abcd", "metadata/.tmp-errors.parquet-0123abcd"):
        (out / name).write_bytes(b"12345")
    foreign = [out / "data" / name for name in (".tmp-mine.tar-0123abcd", ".tmp-train-00000.tar")]
    for path in foreign:
        path.touch()
    with RunLock(Folder.at(out)):
        held = files(place)
        assert main(["clean", str(out), "--dry-run"]) == 0
        assert {*files(place)} == {*held}
        assert main(["clean", str(out)]) == 0
        assert (out / "data" / ".tmp-train-00000.tar-0123abcd").exists()
    before = files(place)
    # a lock whose run is gone stands alone where a run was killed at its start
    (place / "begun").mkdir()
    (place / "begun" / ".run.lock").write_text(json.dumps(DEAD))
    (place / "theirs").mkdir()
    (place / "theirs" / ".run.lock").write_text("of another program")
    found = [str(one.folder) for one in find([str(place)], comparisons=False)]
    assert sorted(found) == [str(place / "begun"), str(out)]
    assert main(["clean", str(out)]) == 0
    gone = {name for name in before if name.startswith("out/") and "0123abcd" in name}
    gone.discard("out/data/.tmp-mine.tar-0123abcd")
    assert {*files(out)} == {name.removeprefix("out/") for name in before if name.startswith("out/")} - {
        name.removeprefix("out/") for name in gone
    }  # fmt: skip
    assert not list(verify(out)) or all(path.exists() for path in foreign)
    assert (place / "theirs" / ".run.lock").exists()


def test_comparisons_go_where_they_are_asked_for(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--vary", "method.gamma=0.3,0.7", "--limit", "1"]
    assert main(["compare", str(place / "run.yaml"), *words]) == 0
    (place / "out-compare" / "notes.txt").write_text("mine")
    before = files(place)
    assert main(["clean", str(place / "out")]) == 0
    assert files(place) == _without(before, "out-preview-2/")
    # of one that was killed before its end, the same command goes on with the variants
    marker = place / "out-compare" / "comparison.json"
    marker.rename(place / "out" / "aside")
    (place / "out-compare" / ".run.lock").write_text(json.dumps(DEAD))
    assert main(["clean", str(place / "out")]) == 0
    (place / "out-compare" / ".run.lock").unlink()
    capsys.readouterr()
    assert main(["clean", str(place / "out")]) == 0  # one that ended by Ctrl-C gave its lock back
    assert (
        "out-compare: kept, since it is of a comparison; --comparisons" in capsys.readouterr().out
    )
    (place / "out" / "aside").rename(marker)
    assert files(place) == _without(before, "out-preview-2/")
    assert main(["clean", "--comparisons", "--dry-run", str(place / "out")]) == 0
    with RunLock(Folder.at(place / "out-compare")):  # as `compare` holds it
        assert main(["clean", "--comparisons", str(place / "out")]) == 4
        assert main(["compare", str(place / "run.yaml"), *words]) == 4
    assert files(place) == _without(before, "out-preview-2/")
    assert main(["clean", "--comparisons", str(place / "out")]) == 0
    kept = _without(before, "out-preview-2/", "out-compare/")
    assert files(place) == kept | {"out-compare/notes.txt": before["out-compare/notes.txt"]}


@pytest.mark.parametrize("format", ["files", "parquet"])
def test_previews_of_every_format_leave_nothing(tmp_path: Path, format: str) -> None:
    manifest = small_manifest(tmp_path, contents=2, styles=2)
    spec = load_spec(
        manifest, [f"output.format={format}", "output.inputs=true", "engine.tracker=tensorboard"]
    )
    output = run(spec, limit=2).output
    assert any(output.glob("logs/**/*tfevents*"))
    assert main(["clean", str(tmp_path)]) == 0
    left = [path.name for path in output.rglob("*") if path.is_file()]
    assert left == []
