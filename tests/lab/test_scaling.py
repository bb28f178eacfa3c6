"""The simulated cluster: closed forms, every shard once whatever happens, and what the plan's own forecast says of one worker."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bench import scaling
from pipelines.bench.scaling_jobs import DEVICE, Rendering, phases, planned
from pipelines.bench.simulated_cluster import IDEAL, Conditions, Cost, Simulation
from pipelines.bench.simulated_storage import SharedStorage
from stylebatch.planning.forecast import device_seconds

PICTURES = {"contents": {"path": "c"}, "styles": {"path": "s"}}
SAMPLED = {**PICTURES, "pairing": {"mode": "sample", "per_content": 2}}
JOBS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "product": ((150, 37), PICTURES),
    "sampled": ((900, 70), SAMPLED),
    "prompts": ((1200, 1), {"prompts": {"path": "p.csv"}, "method": {"name": "text2img"}}),
    "images and prompts": (
        (90, 7),
        {
            "contents": {"path": "c"},
            "prompts": {"path": "p.csv"},
            "method": {"name": "img2img", "strength": 0.5},
        },
    ),
}


class Shards:
    """Shards of these seconds and bytes."""

    def __init__(self, costs: list[Cost]) -> None:
        self.numbers, self.costs = range(7, 7 + len(costs)), costs

    def cost(self, number: int, kept: dict[str, Any]) -> Cost:
        return self.costs[number - 7]


@settings(max_examples=40, deadline=None)
@given(
    each=st.integers(5, 9),
    more=st.integers(0, 40),
    workers=st.integers(1, 40),
    seconds=st.floats(0.1, 1e4),
)
def test_equal_shards_on_equal_machines_take_whole_rounds(
    each: int, more: int, workers: int, seconds: float
) -> None:
    # with fewer, who joins first is given a second one that somebody else could have had
    shards = each * workers + more
    found = Simulation(workers, IDEAL).run([Shards([Cost(seconds)] * shards)])
    rounds = math.ceil(shards / workers)
    assert found.took_s == pytest.approx(rounds * seconds)
    assert found.efficiency == pytest.approx(shards / (workers * rounds))


# machines live long enough for a shard, or no run would end
CONDITIONS = st.builds(
    Conditions,
    seed=st.integers(0, 5),
    speed_spread=st.floats(0, 0.3),
    shard_spread=st.floats(0, 0.3),
    slow_share=st.floats(0, 1),
    slow_speed=st.floats(0.3, 1),
    placed_s=st.floats(0, 1000),
    load_s=st.floats(0, 300),
    weights_bytes=st.sampled_from([0.0, 1.0, 2e9]),
    preempted_per_hour=st.sampled_from([0.0, 0.1, 0.5]),
    noticed_s=st.floats(0, 600),
    storage_bytes_s=st.floats(1e8, 1e12),
    link_bytes_s=st.floats(1e8, 1e12),
    commit_s=st.floats(0, 100),
    driver_s=st.sampled_from([0.0, 1e-3, 30.0]),
)
COSTS = st.lists(
    st.builds(
        Cost,
        st.floats(0, 200),
        st.floats(0, 50),
        st.sampled_from([0.0, 1e3, 1e9]),
        st.sampled_from([0.0, 1e3, 1e9]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(conditions=CONDITIONS, costs=COSTS, workers=st.integers(1, 20))
def test_every_shard_is_done_once_and_all_time_is_accounted_for(
    conditions: Conditions, costs: list[Cost], workers: int
) -> None:
    found, again = (
        Simulation(workers, conditions, max_attempts=10**6).run([Shards(costs)] * 2)
        for _ in range(2)
    )
    assert found == again
    assert found.done == dict.fromkeys(range(7, 7 + len(costs)), 1)
    assert found.poisoned == 0
    assert 0 <= found.efficiency <= 1 + 1e-9
    assert all(seconds > -1e-3 for seconds in found.spent.values())
    assert found.written_bytes >= 2 * sum(cost.written_bytes for cost in costs)
    if not conditions.preempted_per_hour:
        machines = min(workers, len(costs))
        assert sum(found.spent.values()) == pytest.approx(machines * found.took_s)
        assert found.written_bytes == 2 * sum(cost.written_bytes for cost in costs)
        most = found.written_bytes + found.read_bytes
        assert found.took_s >= most / conditions.storage_bytes_s - 1e-6


@settings(max_examples=20, deadline=None)
@given(conditions=CONDITIONS, costs=COSTS, factor=st.floats(1, 10))
def test_a_worker_alone_is_never_faster_where_something_is_slower(
    conditions: Conditions, costs: list[Cost], factor: float
) -> None:
    # of several, list scheduling knows no such order: a slower machine may leave a shard to a faster one
    conditions = replace(conditions, preempted_per_hour=0.0)
    took = Simulation(1, conditions).run([Shards(costs)]).took_s
    for name in ("load_s", "weights_bytes", "commit_s", "placed_s", "driver_s"):
        worse = replace(conditions, **{name: factor * getattr(conditions, name)})
        assert Simulation(1, worse).run([Shards(costs)]).took_s >= took - 1e-6, name
    for name in ("storage_bytes_s", "link_bytes_s", "slow_speed"):
        worse = replace(conditions, **{name: getattr(conditions, name) / factor})
        assert Simulation(1, worse).run([Shards(costs)]).took_s >= took - 1e-6, name
    longer = [replace(cost, useful_s=factor * cost.useful_s) for cost in costs]
    assert Simulation(1, conditions).run([Shards(longer)]).took_s >= took - 1e-6


def test_another_seed_draws_other_machines() -> None:
    costs = [Cost(50.0)] * 40
    took = {Simulation(4, Conditions(seed=seed)).run([Shards(costs)]).took_s for seed in range(5)}
    assert len(took) == 5


def test_a_shard_that_kills_machines_is_poisoned_and_the_rest_is_done() -> None:
    costs = [Cost(5.0)] * 30
    costs[11] = Cost(1e9)  # no machine lives so long
    found = Simulation(4, Conditions(preempted_per_hour=1.0)).run([Shards(costs)])
    assert found.poisoned == 1
    assert sorted(found.done) == [n for n in range(7, 37) if n != 18]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), total=st.floats(1, 50), link=st.floats(1, 50))
def test_transfers_share_the_storage_equally(seed: int, total: float, link: float) -> None:
    draw = random.Random(seed)
    starts = sorted((draw.uniform(0, 5), draw.uniform(0.1, 20)) for _ in range(draw.randint(1, 8)))
    storage, ended, waiting, now = SharedStorage(total, link), [], list(starts), 0.0
    while waiting or storage.next_end < math.inf:
        if waiting and waiting[0][0] <= storage.next_end:
            now, size = waiting.pop(0)
            storage.start(now, size, lambda: None)
        else:
            now = storage.next_end
            storage.end_next(now)
            ended.append(now)
    # the same in small steps
    left, slow, step = {i: size for i, (_, size) in enumerate(starts)}, [], 2e-3
    at = 0.0
    while left:
        present = [i for i in left if starts[i][0] <= at]
        for i in present:
            left[i] -= step * min(link, total / len(present))
            if left[i] <= 0:
                del left[i]
                slow.append(at)
        at += step
    assert ended == pytest.approx(slow, abs=0.05)


def test_a_stopped_transfer_leaves_its_share_to_the_others() -> None:
    storage = SharedStorage(10.0, 100.0)
    stopped = storage.start(0.0, 100.0, lambda: None)
    storage.start(0.0, 100.0, lambda: None)
    assert storage.next_end == pytest.approx(20.0)
    storage.stop(10.0, stopped)
    assert storage.next_end == pytest.approx(15.0)
    storage.end_next(storage.next_end)
    assert storage.next_end == math.inf


@pytest.mark.parametrize("name", JOBS)
def test_one_worker_takes_what_the_plan_forecasts(name: str) -> None:
    counts, manifest = JOBS[name]
    rendering = Rendering(planned(counts, **manifest))
    found = Simulation(1, IDEAL).run(phases(rendering))
    forecast = device_seconds(rendering.plan, DEVICE) - DEVICE.load_s
    assert found.took_s == pytest.approx(forecast)
    assert found.efficiency == pytest.approx(1.0)


def test_a_cache_is_filled_first_and_its_styles_are_read_once_per_block() -> None:
    features = {"source": "cached", "cache": "c", "codec": "x"}
    rendering = Rendering(planned((150, 37), **PICTURES, features=features))
    found = Simulation(3, IDEAL).run(phases(rendering))
    layout = rendering.plan.layout
    assert found.shards == 37 + rendering.plan.num_shards
    assert found.written_bytes == layout.cache_bytes + 150 * 37 * rendering.each
    blocks = [layout.grid.block(i) for i in range(layout.grid.num_blocks)]
    read = sum(len(block.columns) for block in blocks) * rendering.stored_bytes
    assert read == layout.read_bytes
    assert 0 < found.read_bytes - read < 0.05 * read  # pictures


@pytest.mark.parametrize("name", JOBS)
def test_outlines_are_those_of_the_blocks(name: str) -> None:
    counts, manifest = JOBS[name]
    rendering = Rendering(planned(counts, **manifest))
    grid, columns = rendering.plan.grid, {}
    for number in range(grid.num_blocks):
        block, outline = grid.block(number), rendering.outlines[number]
        sizes = (len(block.rows), len(block.columns), len(block.cells))
        assert (outline.num_rows, outline.num_columns, outline.samples) == sizes
        assert columns.setdefault(outline.columns, block.columns) == block.columns


@pytest.mark.slow
def test_all_parts_run_and_leave_figures_and_plots(tmp_path: Path) -> None:
    assert scaling.main(["--quick", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "bench_scaling.json").read_text())
    assert set(record["parts"]) == set(scaling.PARTS)
    for part in record["parts"].values():
        assert all(0 < row["efficiency"] <= 100 for row in part["conditions"]["rows"])
    assert len(list(tmp_path.glob("*.png"))) == 3
    assert scaling.main(["--parts", "--out", str(tmp_path)]) == 1
