"""What is committed, and what a changed plan says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.store.ledger import Ledger, diff


def _run(gamma: float) -> dict[str, Any]:
    return {
        "digest": f"{gamma}",
        "identity": {"method": {"gamma": gamma, "tau": 1.5}, "contents": f"{gamma:.62f}"[:64]},
    }


def test_changed_plan_is_refused_with_a_readable_diff(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = ledger.open(_run(0.75))
    assert ledger.open(_run(0.75)) == first
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "train-00000_stats.json").write_text("{}")
    with pytest.raises(PlanChangedError) as caught:
        ledger.open(_run(0.5))
    assert "method.gamma: 0.75 -> 0.5" in str(caught.value)
    assert "contents: file names, labels or captions changed" in str(caught.value)
    assert "tau" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ManifestError, match=r"thesis\.tex"):
        Ledger(tmp_path).open(_run(0.75))


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
                "metadata_sha256": hashlib.sha256(b"m").hexdigest(),
                "num_success": 1,
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
    assert (Ledger(tmp_path).stats("train-0", "mine") is not None) == (damage == "none")


def test_diff_walks_nested_values() -> None:
    assert diff({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "d": 3}) == [
        "c: 2 -> null",
        "d: null -> 3",
    ]


def test_a_plan_under_which_nothing_was_committed_may_change(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open(_run(0.75))
    assert ledger.open(_run(0.5))["digest"] == "0.5"


def test_shards_of_a_replaced_plan_that_were_never_committed_are_not_left_to_loaders(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    ledger.open(_run(0.75))
    for name in ("data/train-00018.tar", "metadata/train-00018.parquet", "inputs/.tmp-styles-1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"of the former plan")
    ledger.open(_run(0.75))
    assert (tmp_path / "data/train-00018.tar").exists()
    ledger.open(_run(0.5))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"run.json"}


def test_a_damaged_run_record_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"digest": ')
    with pytest.raises(ManifestError, match=r"run\.json is damaged"):
        Ledger(tmp_path).open(_run(0.75))
