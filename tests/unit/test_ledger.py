"""What is committed, and what a changed plan says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.folder import Folder
from stylebatch.spec import canonical_json
from stylebatch.store.ledger import Ledger, diff, marker
from stylebatch.store.output_record import RunRecord


def _run(gamma: float) -> RunRecord:
    identity = {"method": {"gamma": gamma, "tau": 1.5}, "contents": f"{gamma:.62f}"[:64]}
    return RunRecord.model_validate(
        {
            "format": "stylebatch",
            "version": 3,
            "name": "n",
            "digest": hashlib.sha256(canonical_json(identity).encode()).hexdigest(),
            "identity": identity,
            "axes": ["content", "style"],
            "plan": {"num_samples": 80, "num_shards": 80},
            "spec": {},
            "model": "tiny",
            "resolved": {"threads": 1, "device": "cpu", "dtype": "float32"},
        }
    )


def _open(output: Path, run: RunRecord) -> RunRecord:
    admitted = Ledger(Folder.at(output)).admit(run)
    Ledger(Folder.at(output)).write(admitted)
    return admitted


def _files(output: Path) -> set[str]:
    return {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}


def _put(output: Path, *names: str) -> None:
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"bytes")


def test_changed_plan_is_refused_with_a_readable_diff(tmp_path: Path) -> None:
    first = _open(tmp_path, _run(0.75))
    assert _open(tmp_path, _run(0.75)) == first
    _put(tmp_path, "metadata/train-00000_stats.json")
    before = _files(tmp_path)
    with pytest.raises(PlanChangedError) as caught:
        Ledger(Folder.at(tmp_path)).admit(_run(0.5))
    assert "method.gamma: 0.75 -> 0.5" in str(caught.value)
    assert "contents: file names, labels or captions changed" in str(caught.value)
    assert "tau" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["thesis.tex", "README.md", "data/train-00000.tar", "metadata/train-00000_stats.json"]
)
def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path, name: str) -> None:
    _put(tmp_path, name)
    with pytest.raises(ManifestError, match=name.split("/")[0]):
        Ledger(Folder.at(tmp_path)).former()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"experiment": "mine"}', "that `stylebatch run` did not write"),
        ('{"format": "other", "digest": "", "identity": {}, "plan": {}, "spec": {}}', "not write"),
        ("[]", "not write"),
        ('{"digest": ', r"run\.json: is damaged: not whole JSON"),
        ('{"format": "stylebatch", "version": 3}', r"run\.json: is damaged: name: missing"),
    ],
)
def test_a_run_record_that_is_not_ours_or_damaged_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ManifestError, match=message):
        Ledger(Folder.at(tmp_path)).admit(_run(0.75))
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_record_of_another_version_is_refused_by_name(tmp_path: Path, version: int) -> None:
    newer = _run(0.75).model_copy(update={"version": version})
    (tmp_path / "run.json").write_text(newer.model_dump_json())
    with pytest.raises(
        ManifestError,
        match=f"version: found {version}; accepted: 3. Next: go on with the stylebatch",
    ):
        Ledger(Folder.at(tmp_path)).former()


@pytest.mark.parametrize(
    "damage",
    ["none", "other plan", "short tar", "no tar", "no metadata", "bad metadata", "half stats"],
)
def test_only_whole_commits_of_this_plan_count(tmp_path: Path, damage: str) -> None:
    for folder in ("data", "metadata"):
        (tmp_path / folder).mkdir()
    tar, metadata, stats = (
        tmp_path / "data/train-0.tar",
        tmp_path / "metadata/train-0.parquet",
        tmp_path / "metadata/train-0_stats.json",
    )
    tar.write_bytes(b"x" * 100)
    metadata.write_bytes(b"m")
    stats.write_text(
        json.dumps(
            {
                "plan_digest": "other" if damage == "other plan" else "mine",
                "bytes": 100,
                "sha256": "0" * 64,
                "metadata_sha256": hashlib.sha256(b"m").hexdigest(),
                "num_samples": 1,
                "num_success": 1,
                "num_failed": 0,
            }
        )
    )
    if damage == "short tar":
        tar.write_bytes(b"x" * 99)
    elif damage == "no tar":
        tar.unlink()
    elif damage == "bad metadata":
        metadata.write_bytes(b"n")
    elif damage == "no metadata":
        metadata.unlink()
    elif damage == "half stats":
        stats.write_text(stats.read_text()[:20])
    assert (Ledger(Folder.at(tmp_path)).stats("train-0", "mine") is not None) == (damage == "none")


def test_a_plan_under_which_nothing_was_committed_may_change(tmp_path: Path) -> None:
    _open(tmp_path, _run(0.75))
    assert _open(tmp_path, _run(0.5)).identity["method"]["gamma"] == 0.5


def test_only_names_of_the_plan_are_removed(tmp_path: Path) -> None:
    """Shards of a replaced plan that were never committed are not left to loaders; what is not ours stays."""
    former = _open(tmp_path, _run(0.75))
    ours = ("data/train-00018.tar", "metadata/train-00018.parquet")
    left = ("inputs/.tmp-styles.parquet-0123abcd", "data/.tmp-train-00079.tar-0123abcd")
    foreign = (
        "data/train-imagenet.tar", "data/train-00080.tar", "data/train-18.tar", "metadata/train-extra.parquet",
        "data/.tmp-mine", ".tmp-notes.md-0123abcd", "data/.tmp-train-00080.tar-0123abcd",
    )  # fmt: skip
    _put(tmp_path, *ours, *left, *foreign)
    _open(tmp_path, _run(0.75))
    assert set(ours) <= _files(tmp_path)
    Ledger(Folder.at(tmp_path)).sweep(former)
    _open(tmp_path, _run(0.5))
    assert _files(tmp_path) == {"run.json", *foreign}


@pytest.mark.parametrize("gamma", [0.75, 0.5])
def test_shards_whose_metadata_a_copy_lost_are_kept(tmp_path: Path, gamma: float) -> None:
    _open(tmp_path, _run(0.75))
    _put(tmp_path, "README.md", *(f"data/train-{number:05d}.tar" for number in range(80)))
    before = _files(tmp_path)
    with pytest.raises(PlanChangedError, match="found 80 shards in data/, but no commit marker"):
        Ledger(Folder.at(tmp_path)).admit(_run(gamma))
    assert _files(tmp_path) == before
    assert Ledger(Folder.at(tmp_path)).admit(_run(0.75), mending=True)


def test_a_commit_that_was_taken_back_remembers_its_rungs(tmp_path: Path) -> None:
    ledger = Ledger(Folder.at(tmp_path))
    stats = {"plan_digest": "mine", "bytes": 0, "sha256": "", "metadata_sha256": "0" * 64,
             "num_samples": 1, "num_success": 0, "num_failed": 1}  # fmt: skip
    (tmp_path / "metadata").mkdir()
    (tmp_path / marker("train-00000")).write_text(json.dumps(stats))
    ledger.revoke("train-00000", executed=[[1, 1, 1]])
    assert ledger.stats("train-00000", "mine") is None
    taken = ledger.recorded("train-00000")
    assert taken is not None
    assert taken.executed == [[1, 1, 1]]
    assert ledger.has_commits


def test_diff_walks_nested_values() -> None:
    assert diff({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "d": 3}) == [
        "c: 2 -> null",
        "d: null -> 3",
    ]
