"""What a refused start offers is true: each of the three ways, typed as it stands there, is taken."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.documents import parse
from stylebatch.engine.run import run
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.planning.ways_out import FREE, ways_out
from stylebatch.spec import EngineSpec
from tests.support.images import picture
from tests.support.runs import small_manifest


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ways")
    run(load_spec(small_manifest(folder, contents=3, styles=2)))
    for name, number in (("others", 7), ("more", 9)):
        (folder / name).mkdir()
        picture(number, 48, 40).save(folder / name / "00.png")
    return folder


@pytest.fixture
def place(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder, as it was rendered before each test and after."""
    kept = shutil.copytree(rendered, tmp_path / "kept")
    monkeypatch.chdir(rendered)
    yield rendered
    for path in rendered.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, rendered, dirs_exist_ok=True)


def _ways(told: str, command: str) -> list[list[str]]:
    """The words of each way's command, planned and not run; that of the third is the first one's."""
    assert "feature_bytes" not in told
    assert "-> null" not in told
    lines = told.partition("Next, one of:\n")[2].splitlines()
    assert [line.split(".")[0].strip() for line in lines] == ["1", "2", "3"]
    assert lines[2].startswith("  3. grow: as 1, ")
    assert lines[2].endswith(", by the same command")
    first, second = (["plan", *shlex.split(line[line.index(command) :])[2:]] for line in lines[:2])
    return [first, second, first]


@pytest.mark.parametrize(
    "words",
    [
        "--set method.gamma=0.5",
        "--set method.gamma=0.5 --set seed=3 --set image.size=64",
        "--set method.steps=4",
        "--set method.preset=draft",
        "--set 'method={name: styleid, steps: 2, sites: [6, 7]}'",
        "--set output.format=parquet",
        "--set output.shard_size=2",
        "--set 'image={size: 32, mode: pad}'",
        "--set styles.path=others",
        "--set 'pairing={mode: sample, per_content: 1}'",
        "--set 'split={validation: 0.4}'",
        "--set 'gates={reject: \"structure < 0.1\"}'",
        "--set engine.batch=4 --set engine.workers=1 --set engine.name=ray",
    ],
)
def test_a_changed_field_leaves_three_ways(
    place: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["plan", "run.yaml", "--price", "2", "--max-hours=3", *shlex.split(words)]
    assert main(typed) == 4
    back, elsewhere, grown = _ways(capsys.readouterr().err, "stylebatch run")
    assert main(back) == 0
    assert "nothing left to render" in capsys.readouterr().out
    assert main(elsewhere) == 0
    assert f"output: {place}/out-2" in capsys.readouterr().out
    shutil.copy("more/00.png", "contents/new.png")
    assert main(grown) == 0
    assert "keeps 6 shards" in capsys.readouterr().out
    (place / "out-2").mkdir()
    assert main(typed) == 4
    assert "--output " + str(place / "out-3") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "typed"),
    [("fast", "fast"), ("no", '"no"'), ("12", '"12"'), ("a: b", '"a: b"'), ("", '""'), (0.5, "0.5"), ([6, 7], "[6, 7]"), ("*", '"*"')],
)  # fmt: skip
def test_a_former_value_is_typed_as_people_would(value: object, typed: str, tmp_path: Path) -> None:
    first = ways_out(Folder.at(tmp_path), {"a": {"b": value}}, {"a": {"b": 1}})[0]
    assert first.endswith("{run} --set " + shlex.quote(f"a.b={typed}"))
    assert parse(typed) == value


def test_every_field_of_the_engine_is_free_or_decides_what_is_rendered() -> None:
    fields = {f"engine.{name}" for name in EngineSpec.model_fields}
    assert fields - FREE == {
        "engine.device",
        "engine.batch",
        "engine.batch_gb",
        "engine.feature_gb",
    }


def _gone(place: Path) -> Path:
    return (place / "contents" / "01.png").rename(place / "kept.png")


def _other_bytes(place: Path) -> Path:
    kept = shutil.copy(place / "contents" / "01.png", place / "kept.png")
    picture(77, 48, 40).save(place / "contents" / "01.png")
    return Path(kept)


@pytest.mark.parametrize("change", [_gone, _other_bytes])
def test_changed_inputs_leave_three_ways(
    place: Path, change: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(change)
    kept = change(place)
    assert main(["plan", "run.yaml"]) == 4
    back, elsewhere, grown = _ways(capsys.readouterr().err, "stylebatch run")
    assert main(elsewhere) == 0
    shutil.copy(kept, place / "contents" / "01.png")
    assert main(back) == 0
    assert "nothing left to render" in capsys.readouterr().out
    shutil.copy("more/00.png", "contents/new.png")
    assert main(grown) == 0
    assert "keeps 6 shards" in capsys.readouterr().out
