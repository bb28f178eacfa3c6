"""The cost of several workers inverting the same images: shards handed out by the run's queue, in stretches, and by turns.

The queue and the plan are those of a run of 128 contents x 64 styles; time is virtual, a shard takes as long as its
evaluations. A worker keeps one group of contents and as many groups of styles as the plan says.
"""

from __future__ import annotations

import heapq
import json
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from pipelines.bench.record import Figure, Outcome, Size
from stylebatch.engine.queue import ShardQueue
from stylebatch.engine.ranks import stretch
from stylebatch.manifest import load_spec
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve

REVERSE, INVERSION = 49, 50
"""Evaluations of a pair and of an image at 50 steps."""
BLOCKS = (
    ("output.shard_size=256",),
    ("engine.feature_gb=0.25", "output.shard_size=64"),
)
"""16 x 16, and 4 x 2 with one group of styles held."""


class Resident:
    """The inverted groups that one worker keeps."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.contents: OrderedDict[tuple[int, ...], None] = OrderedDict()
        self.styles: OrderedDict[tuple[int, ...], None] = OrderedDict()

    def evaluations(self, shard: int) -> int:
        """Evaluations of rendering `shard` next."""
        total = 0
        for block, samples in self.plan.samples(self.plan.shard(shard)):
            missing = self._missing(self.contents, 1, block.rows)
            missing += self._missing(
                self.styles, self.plan.layout.num_column_groups_held, block.columns
            )
            total += REVERSE * len(samples) + INVERSION * missing
        return total

    @staticmethod
    def _missing(
        kept: OrderedDict[tuple[int, ...], None], capacity: int, group: tuple[int, ...]
    ) -> int:
        if group in kept:
            kept.move_to_end(group)
            return 0
        while len(kept) >= capacity:
            kept.popitem(last=False)
        kept[group] = None
        return len(group)


def queued(plan: Plan, num_workers: int) -> int:
    """Evaluations of a whole run whose shards the queue hands out."""
    now, total = [0.0], 0
    queue = ShardQueue(plan.shards, clock=lambda: now[0])
    workers = {f"worker-{number}": Resident(plan) for number in range(num_workers)}
    given: dict[str, list[int]] = {name: [] for name in workers}
    busy: list[tuple[float, str]] = []
    for name in workers:
        queue.join(name)
    while not queue.is_finished:
        # The queue gives a worker up to two shards ahead; it computes one at a time.
        for name, worker in workers.items():
            while (shard := queue.next(name)) is not None:
                given[name].append(shard)
            if given[name] and all(name != other for _, other in busy):
                cost = worker.evaluations(given[name][0])
                total += cost
                heapq.heappush(busy, (now[0] + cost, name))
        now[0], name = heapq.heappop(busy)
        queue.done(name, given[name].pop(0))
    return total


def by_turns(plan: Plan, num_workers: int) -> int:
    """The same where worker k takes every n-th shard."""
    return _shared(plan, [plan.shards[number::num_workers] for number in range(num_workers)])


def in_stretches(plan: Plan, num_workers: int) -> int:
    """The same where worker k takes neighbours, as ranks do."""
    numbers = range(num_workers)
    return _shared(plan, [stretch(plan.shards, number, num_workers) for number in numbers])


def _shared(plan: Plan, parts: Sequence[Sequence[int]]) -> int:
    total = 0
    for part in parts:
        worker = Resident(plan)
        total += sum(map(worker.evaluations, part))
    return total


def affinity(size: Size) -> Outcome:
    """Evaluations over those of one worker, for 2, 4 and 8 workers; takes a second at any `size`."""
    figures = []
    for overrides in BLOCKS:
        resolved = _product(overrides)
        alone = queued(resolved, 1)
        rows, columns = resolved.summary()["block"]
        for workers in (2, 4, 8):
            label = f"blocks of {rows} x {columns}, {workers} workers"
            for name, total in (
                ("queue", queued(resolved, workers)),
                ("in stretches", in_stretches(resolved, workers)),
                ("by turns", by_turns(resolved, workers)),
            ):
                more = 100.0 * (total / alone - 1.0)
                figures.append(Figure(f"{label}, {name}: more evaluations", more, "%"))
    return Outcome(tuple(figures), {"reverse": REVERSE, "inversion": INVERSION})


def _product(overrides: Sequence[str]) -> Plan:
    """A plan over files that are only listed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, count in (("contents", 128), ("styles", 64)):
            (folder / side).mkdir()
            for i in range(count):
                (folder / side / f"{i:04d}.png").touch()
        manifest = folder / "run.yaml"
        manifest.write_text(
            json.dumps(
                {
                    "name": "affinity",
                    "contents": {"path": "contents"},
                    "styles": {"path": "styles"},
                    "model": "tiny",
                    "output": {"path": str(folder / "out")},
                }
            )
        )
        return resolve(load_spec(manifest, overrides))
