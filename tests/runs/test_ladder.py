"""A device that runs out of memory: smaller batches, then smaller parts, then failed samples; all repeatable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from stylebatch.engine.ladder import Rung, is_out_of_memory
from stylebatch.engine.worker import Worker
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.planning.grid import Block
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from tests.support.runs import digests, small_manifest
from tests.support.small_device import Device

BLOCK = Block(0, (0, 1, 2, 3), (5, 6), tuple((c, s) for c in range(4) for s in (5, 6)))


def test_batches_are_halved_before_blocks_are_cut() -> None:
    rungs = [Rung(4)]
    while not rungs[-1].is_last:
        rungs.append(rungs[-1].below(BLOCK))
    assert [rung.as_list() for rung in rungs] == [
        [4, 0, 0], [2, 0, 0], [1, 0, 0], [1, 2, 2], [1, 1, 2], [1, 1, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("rung", [Rung(8), Rung(1, 3, 2), Rung(1, 2, 1), Rung(1, 1, 1)])
def test_parts_cover_every_pair_once(rung: Rung) -> None:
    pairs = [(c, s) for cs, ss in rung.parts(BLOCK) for c in cs for s in ss]
    assert sorted(pairs) == sorted(BLOCK.cells)


def test_only_failed_allocations_are_taken_for_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.fixture
def resolved(tmp_path: Path) -> Plan:
    manifest = small_manifest(tmp_path, contents=3, styles=2)
    document = json.loads(manifest.read_text())
    document["engine"] = {"threads": 1, "batch": 4}
    document["output"]["shard_size"] = 100
    manifest.write_text(json.dumps(document))
    return plan(load_spec(manifest))


def _render(
    plan: Plan, output: Path, rows: int, executed: Any = None
) -> tuple[dict[str, Any], int]:
    device = Device(rows)
    with Worker(plan, Folder.at(output), threads=1, on_evaluations=device) as worker:
        return worker.render(0, executed), device.refused


def test_a_small_device_renders_in_smaller_batches_and_says_so(
    resolved: Plan, tmp_path: Path
) -> None:
    stats, refused = _render(resolved, tmp_path / "a", 2)
    assert refused == 1
    assert stats["executed"] == [[2, 0, 0]]
    assert stats["num_success"] == resolved.grid.num_samples
    whole, _ = _render(resolved, tmp_path / "b", 99)
    assert whole["executed"] == []


def test_a_repeated_rendering_starts_at_the_recorded_rung(resolved: Plan, tmp_path: Path) -> None:
    stats, _ = _render(resolved, tmp_path / "a", 1)
    again, refused = _render(resolved, tmp_path / "b", 99, stats["executed"])
    assert refused == 0
    assert again["executed"] == stats["executed"] == [[1, 0, 0]]
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_shard_does_not_depend_on_what_its_worker_met_before(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path / "in", contents=4, styles=4)
    changes = ["engine.feature_gb=0.0015", "output.shard_size=4"]
    resolved, device = plan(load_spec(manifest, changes)), Device(1)
    with Worker(resolved, Folder.at(tmp_path / "a"), threads=1, on_evaluations=device) as worker:
        assert worker.render(0)["executed"]
        device.rows = 99
        assert worker.render(1)["executed"] == []
    with Worker(resolved, Folder.at(tmp_path / "b"), threads=1) as worker:
        worker.render(1)
    found, alone = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert {name: found[name] for name in alone} == alone


def test_samples_that_never_fit_are_failed_rows(resolved: Plan, tmp_path: Path) -> None:
    stats, _ = _render(resolved, tmp_path / "a", 0)
    assert stats["num_failed"] == resolved.grid.num_samples
    assert stats["executed"] == [[1, 1, 1]]
    rows = pq.read_table(tmp_path / "a" / "metadata" / "train-00000.parquet").to_pylist()
    assert {row["error_code"] for row in rows} == {"oom"}


def test_a_retry_that_never_fits_leaves_the_verdict_before_it(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path, contents=1, styles=2)
    changes = ["gates.reject=true", "gates.retry=[{gamma: 0.9}]"]
    resolved, refused = plan(load_spec(manifest, changes)), []
    with Worker(resolved, Folder.at(tmp_path / "a"), threads=1) as worker:

        def full(rows: int) -> None:
            if worker._is_extra:
                refused.append(rows)
                assert len(refused) < 99, "begun again without an end"
                raise torch.OutOfMemoryError("out of memory")

        worker.model.on_evaluations = full
        stats = worker.render(0)
    assert stats["executed"] == [[1, 1, 1]]
    rows = pq.read_table(tmp_path / "a" / "metadata" / "train-00000.parquet").to_pylist()
    assert {(row["status"], row["attempt"]) for row in rows} == {("rejected", 1)}


def test_other_errors_are_not_swallowed(resolved: Plan, tmp_path: Path) -> None:
    def broken(rows: int) -> None:
        raise RuntimeError("shapes do not match")

    with (
        Worker(resolved, Folder.at(tmp_path / "a"), threads=1, on_evaluations=broken) as worker,
        pytest.raises(RuntimeError, match="shapes"),
    ):
        worker.render(0)
    assert digests(tmp_path / "a") == {}
