"""The benchmark of the ray driver measures the real loop, and fails when it measured nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.bench.ray_scheduling import Row, Shift, ideal_end, require_flat, row, table
from pipelines.bench.record import BenchmarkError

ROOT = Path(__file__).parents[2]


def bench(out: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.bench.ray_driver", "--quick", "--out", str(out),
         "--parts", *parts],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.slow
def test_two_workers_and_the_queue_are_measured(tmp_path: Path) -> None:
    done = bench(tmp_path, "queue", "scheduling")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench_ray.json").read_text())
    (found,) = record["parts"]["scheduling"]["conditions"]["rows"]
    assert (found["workers"], found["shards"]) == (2, 120)
    assert 50 < found["efficiency"] <= 100
    assert found["took"] >= found["ideal"] > 0
    assert found["tail"] >= 0
    costs = [f["value"] for f in record["parts"]["queue"]["figures"] if f["unit"] == "us"]
    assert len(costs) == 2
    assert all(0 < cost < 2000 for cost in costs)


@pytest.mark.slow
def test_queue_and_stretches_cost_no_more_inversions_than_turns(tmp_path: Path) -> None:
    done = bench(tmp_path, "affinity")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench_ray.json").read_text())
    more = {f["name"]: f["value"] for f in record["parts"]["affinity"]["figures"]}
    assert len(more) == 18
    for way in ("queue", "in stretches"):
        of_way = {name: value for name, value in more.items() if way in name}
        assert all(0 <= of_way[n] <= more[n.replace(way, "by turns")] for n in of_way)
        assert any(of_way[n] < more[n.replace(way, "by turns")] for n in of_way)


@pytest.mark.slow
def test_measuring_nothing_fails(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert done.returncode == 1
    assert "measured nothing" in done.stderr


@pytest.mark.parametrize(
    ("work", "expected"),
    [(1.0, 11.0), (4.0, 13.0), (7.0, 10 + 7.5 / 2.25)],  # alone; two of 1 and 0.5; with a third
)
def test_the_ideal_counts_workers_from_their_readiness(work: float, expected: float) -> None:
    shifts = [Shift(11.0, 0.5, 0.0), Shift(10.0, 1.0, 0.0), Shift(13.0, 0.75, 0.0)]
    end = ideal_end(work, shifts)
    assert sum(s.speed * max(0.0, end - s.ready) for s in shifts) == pytest.approx(work)
    if work < 7:
        assert end == pytest.approx(expected)


def test_efficiency_is_work_over_what_the_workers_could_have_done() -> None:
    shifts = [Shift(0.0, 1.0, 10.0), Shift(2.0, 0.5, 8.0)]
    found = row([3.0] * 4, shifts, 2, 10.0)
    assert found.efficiency == pytest.approx(100 * 12 / 14)
    assert (found.tail, found.took, found.mean_shard) == (2.0, 10.0, 3.0)
    assert found.ideal == pytest.approx(13 / 1.5)
    assert "| 2 | 4 | 3.00 | 8.67 | 10.00 | 85.71 | 2.00 |" in table([found])
    assert isinstance(found, Row)


def test_a_worker_that_came_too_late_is_no_measurement() -> None:
    with pytest.raises(BenchmarkError, match="only 1 of 2 workers"):
        row([1.0], [Shift(0.0, 1.0, 1.0)], 2, 1.0)


def test_cost_and_memory_must_be_flat() -> None:
    require_flat(1.4, 3.9)
    with pytest.raises(BenchmarkError, match=r"1\.60 times"):
        require_flat(1.6, 0.0)
    with pytest.raises(BenchmarkError, match=r"4\.1 MB"):
        require_flat(1.0, 4.1)
