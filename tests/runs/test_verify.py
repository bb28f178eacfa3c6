"""Damage of every kind is found by `verify`; `repair` renders only that again, to the same bytes."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stylebatch.cli import main
from stylebatch.engine.repair import repair
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.store.verify import verify
from tests.support.runs import digests, leftovers, small_manifest

SHARD = "train-00002"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs, a manifest and a whole output of several samples per shard."""
    folder = tmp_path_factory.mktemp("whole")
    manifest = small_manifest(folder, contents=4, styles=4)
    document = json.loads(manifest.read_text())
    document["engine"] = {"threads": 1, "feature_gb": 0.0015}
    document["output"]["shard_size"] = 4
    manifest.write_text(json.dumps(document))
    run(load_spec(manifest))
    return folder


@pytest.fixture
def output(base: Path, tmp_path: Path) -> Path:
    """A copy of the output."""
    return Path(shutil.copytree(base / "out", tmp_path / "out"))


def _tar(output: Path) -> Path:
    return output / "data" / f"{SHARD}.tar"


def _truncate_at_a_member(output: Path) -> None:
    with tarfile.open(_tar(output)) as tar:
        last = tar.getmembers()[-5]
    with _tar(output).open("r+b") as file:
        file.truncate(last.offset)


def _truncate_and_forge_the_size(output: Path) -> None:
    _truncate_at_a_member(output)
    _change_stats(output, "bytes", _tar(output).stat().st_size)


def _change_stats(output: Path, field: str, value: Any) -> None:
    path = output / "metadata" / f"{SHARD}_stats.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def _flip_in_an_image(output: Path) -> None:
    with tarfile.open(_tar(output)) as tar:
        image = next(member for member in tar if member.name[9:] == ".jpg")
    _flip(_tar(output), image.offset_data + image.size // 2)


def _flip_in_a_caption(output: Path) -> None:
    with tarfile.open(_tar(output)) as tar:
        record = next(member for member in tar if member.name.endswith(".json"))
    _flip(_tar(output), record.offset_data + 10)


DAMAGE = {
    "truncated at a member": (_truncate_at_a_member, "bytes, "),
    "truncated, size forged": (_truncate_and_forge_the_size, "lacks"),
    "flipped byte of an image": (_flip_in_an_image, "the image of "),
    "flipped byte beside the images": (_flip_in_a_caption, "its bytes changed"),
    "tar gone": (lambda output: _tar(output).unlink(), "missing"),
    "stats gone": (
        lambda output: (output / "metadata" / f"{SHARD}_stats.json").unlink(),
        "never committed",
    ),
    "stats cut": (
        lambda output: (output / "metadata" / f"{SHARD}_stats.json").write_text('{"bytes'),
        "not whole JSON",
    ),
    "stats of another plan": (
        lambda output: _change_stats(output, "plan_digest", "0" * 64),
        "of another plan",
    ),
    "flipped byte of the metadata": (
        lambda output: _flip(output / "metadata" / f"{SHARD}.parquet", 50),
        "its bytes changed",
    ),
    "metadata gone": (
        lambda output: (output / "metadata" / f"{SHARD}.parquet").unlink(),
        "No such file",
    ),
}


def test_a_whole_output_is_sound(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(output.glob("data/*.tar"))) >= 4
    assert main(["verify", str(output)]) == 0
    assert "every shard is as committed" in capsys.readouterr().out


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_repaired(kind: str, base: Path, output: Path) -> None:
    damage, text = DAMAGE[kind]
    damage(output)
    problems = list(verify(output))
    assert {problem.shard for problem in problems} == {2}
    assert text in problems[0].text, problems[0].line()
    assert main(["verify", str(output)]) == 3
    others = [path for path in output.glob("data/*.tar") if path != _tar(output)]
    before = {path: path.stat().st_mtime_ns for path in others}
    result = repair(output)
    assert result.num_attempted == 4
    assert {path: path.stat().st_mtime_ns for path in others} == before
    assert digests(output) == digests(base / "out")
    assert leftovers(output) == []
    assert main(["verify", str(output)]) == 0


def test_strange_files_among_the_data_are_named(output: Path) -> None:
    (output / "data" / "train-00099.tar").write_bytes(b"")
    (output / "metadata" / f".tmp-{SHARD}.parquet-0123abcd").write_bytes(b"")
    problems = list(verify(output))
    assert [problem.shard for problem in problems] == [None, None]
    assert any("train-00099.tar" in problem.line() for problem in problems)


def test_json_names_the_shard(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _tar(output).unlink()
    assert main(["verify", str(output), "--json"]) == 3
    (problem,) = json.loads(capsys.readouterr().out)
    assert problem["shard"] == 2
    assert problem["path"].endswith(f"{SHARD}.tar")


def test_repair_refuses_inputs_that_changed(output: Path, tmp_path: Path, base: Path) -> None:
    _tar(output).unlink()
    record = json.loads((output / "run.json").read_text())
    shutil.copytree(base / "contents", tmp_path / "contents")
    (tmp_path / "contents" / "00.png").rename(tmp_path / "contents" / "99.png")
    record["spec"]["contents"]["path"] = str(tmp_path / "contents")
    (output / "run.json").write_text(json.dumps(record))
    with pytest.raises(PlanChangedError, match=r"contents: 1 of 4 is gone \(00.png\)"):
        repair(output)


def test_repair_needs_the_run_record(output: Path) -> None:
    (output / "run.json").unlink()
    with pytest.raises(ManifestError, match=r"run\.json: missing"):
        repair(output)
    with pytest.raises(ManifestError, match=r"run\.json: missing"):
        list(verify(output))


def test_repair_repeats_the_batches_that_memory_allowed_for_that_shard_alone(
    base: Path, output: Path
) -> None:
    _change_stats(output, "executed", [[1, 1, 1]])
    _tar(output).unlink()
    (output / "data" / "train-00003.tar").unlink()
    repair(output)
    executed = [
        json.loads((output / "metadata" / f"{name}_stats.json").read_text())["executed"]
        for name in (SHARD, "train-00003")
    ]
    assert executed == [[[1, 1, 1]], []]
    name = "data/train-00003.tar"
    assert digests(output)[name] == digests(base / "out")[name]


def test_failed_samples_are_retried_when_asked(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for side in ("contents", "styles"):
        shutil.copytree(base / side, folder / side)
    good = (folder / "contents" / "02.png").read_bytes()
    (folder / "contents" / "02.png").write_bytes(b"no picture")
    shutil.copy(base / "run.yaml", folder / "run.yaml")
    arguments = ["run", str(folder / "run.yaml"), "--output", str(folder / "out")]
    assert main(arguments) == 3
    (folder / "contents" / "02.png").write_bytes(good)
    capsys.readouterr()
    assert main(arguments) == 3  # not without being asked
    hint = "--retry-failed renders these shards again"
    assert hint in capsys.readouterr().out
    assert main([*arguments, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "nothing left to render" in told
    assert hint in told
    assert main([*arguments, "--retry-failed", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "with failed samples again" in told
    assert "nothing left to render" not in told
    assert hint not in told
    assert main([*arguments, "--retry-failed"]) == 0
    assert "failed before" not in capsys.readouterr().out
    found, whole = digests(folder / "out"), digests(base / "out")
    assert {k: v for k, v in found.items() if "errors" not in k} == {
        k: v for k, v in whole.items() if "errors" not in k
    }
