"""How busy the driver of the ray engine keeps its workers, and its own cost per shard.

The driver's loop and queue are the real ones, but workers sleep. So the order of shards and the time between two of them can
be measured on a machine with fewer cores than workers.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from resource import getpagesize
from typing import Any

from pipelines.bench.record import BenchmarkError, Figure, Outcome, Size
from pipelines.bench.sleeper import Sleeper
from stylebatch.engine.accounts import Failure
from stylebatch.engine.drive import ActorSetup, Drive
from stylebatch.engine.queue import ShardQueue
from stylebatch.engine.ray_pool import RayEngine
from stylebatch.progress import Progress
from stylebatch.spec import EngineSpec

REVERSE, INVERSION, PAIRS = 49, 50, 16
"""Evaluations of a pair and of an image at 50 steps; pairs of a shard."""
EVALUATION_S = 0.0004
EVALUATION_SPREAD = 0.1
"""Sigma of the logarithm: one shard's evaluations are slower than another's."""
SLOW = 0.5
"""Speed of one of several workers; the others have 1."""
TARGET = 95.0
QUEUE_WORKERS = 64
MAX_COST_RATIO = 1.5
MAX_GROWTH_MB = 4.0


@dataclass(frozen=True)
class Shift:
    """The time of one worker, in seconds of the machine's clock. `last`: when it finished its last shard."""

    ready: float
    speed: float
    last: float


@dataclass(frozen=True)
class Row:
    """One run. Seconds from the first worker's readiness; `tail`: from the first that has nothing left to the end."""

    workers: int
    shards: int
    mean_shard: float
    ideal: float
    took: float
    efficiency: float
    tail: float


class Tally:
    """A record of shards, kept in memory alone."""

    def __init__(self, queue: ShardQueue) -> None:
        self.queue = queue
        self.shifts: dict[str, Shift] = {}

    def committed(self, worker: str, shard: int, stats: Any) -> None:
        """Record until when the worker was busy."""
        self.queue.done(worker, shard)
        self.shifts[worker] = Shift(stats["ready"], stats["speed"], stats["ended"])

    def failed(self, worker: str, shard: int, failure: Failure) -> None:
        """Nothing fails here."""
        raise BenchmarkError(f"{worker} failed at shard {shard}: {failure.trace}")

    def lost(self, worker: str, failure: Failure) -> None:
        """Nobody dies here."""
        raise BenchmarkError(f"{worker} died: {failure.trace}")


def shard_seconds(count: int, rng: random.Random, evaluation_s: float) -> tuple[float, ...]:
    """Seconds of shards: 16 pairs each, 1 to 20 images inverted for them, evaluations of uneven speed."""
    return tuple(
        (PAIRS * REVERSE + rng.randint(1, 20) * INVERSION)
        * evaluation_s
        * rng.lognormvariate(0.0, EVALUATION_SPREAD)
        for _ in range(count)
    )


def ideal_end(work: float, shifts: Sequence[Shift]) -> float:
    """When `work` seconds at speed 1 are done if every worker works from its readiness on to the same end."""
    ordered = sorted(shifts, key=lambda shift: shift.ready)
    for count in range(1, len(ordered) + 1):
        # sum of speed_i (end - ready_i) = work, over the workers that are ready before that end
        early = ordered[:count]
        end = (work + sum(s.speed * s.ready for s in early)) / sum(s.speed for s in early)
        if count == len(ordered) or end <= ordered[count].ready:
            return end
    raise BenchmarkError("there was no worker")


def row(work: Sequence[float], shifts: Sequence[Shift], num_workers: int, end: float) -> Row:
    """The figures of a run. Raises BenchmarkError if a worker did nothing."""
    if len(shifts) < num_workers:
        raise BenchmarkError(
            f"only {len(shifts)} of {num_workers} workers were ready before the work was done"
        )
    first, total = min(shift.ready for shift in shifts), sum(work)
    available = sum(shift.speed * (end - shift.ready) for shift in shifts)
    return Row(
        num_workers, len(work), total / len(work), ideal_end(total, shifts) - first, end - first,
        100.0 * total / available, end - min(shift.last for shift in shifts),
    )  # fmt: skip


def _scheduled(engine: RayEngine, num_workers: int, per_worker: int, size: Size) -> Row:
    """One run of `num_workers` sleepers over shards drawn from the seed 0."""
    rng = random.Random(0)
    work = shard_seconds(num_workers * per_worker, rng, EVALUATION_S / size.of(1, 10))
    delays = [rng.uniform(0.0, size.of(30, 2) / 10) for _ in range(num_workers)]

    def arguments(number: int) -> tuple[float, float, tuple[float, ...]]:
        is_slow = num_workers > 1 and number == 0
        return SLOW if is_slow else 1.0, delays[number % num_workers], work

    tally = Tally(ShardQueue(range(len(work))))
    drive = Drive(engine.cluster(1), ActorSetup(Sleeper, arguments, num_workers), drain_s=0.0)
    try:
        drive.run("render", tally)
        end = time.monotonic()
    finally:
        drive.dismiss()
    if tally.queue.num_done != len(work):
        raise BenchmarkError(f"{tally.queue.num_done} of {len(work)} shards were done")
    return row(work, list(tally.shifts.values()), num_workers, end)


def scheduling(size: Size) -> Outcome:
    """1 to 8 workers with 30 shards each, and 8 with 10: what so few cost."""
    cases = [(2, 60)] if size.is_quick else [(1, 30), (2, 30), (4, 30), (6, 30), (8, 30), (8, 10)]
    most = max(workers for workers, _ in cases)
    spec = EngineSpec(name="ray", workers=most, cpus_per_worker=1, gpus_per_worker=0)
    with RayEngine(spec, Progress()) as engine:
        rows = [_scheduled(engine, workers, shards, size) for workers, shards in cases]
    figures = []
    for (workers, shards), found in zip(cases, rows, strict=True):
        label, target = f"{workers} workers, {shards} shards each", TARGET if shards >= 30 else None
        figures += [
            Figure(f"{label}: efficiency", found.efficiency, "%", target),
            Figure(f"{label}: tail idle", found.tail, "s"),
        ]
    conditions = {
        "seed": 0,
        "slow": SLOW,
        "evaluation_s": EVALUATION_S,
        "rows": list(map(vars, rows)),
    }
    return Outcome(tuple(figures), conditions, table(rows))


def table(rows: Sequence[Row]) -> str:
    """For people, and for Markdown."""
    names = [field.name for field in fields(Row)]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for found in rows:
        values = (getattr(found, name) for name in names)
        lines.append(
            f"| {' | '.join(str(v) if isinstance(v, int) else f'{v:.2f}' for v in values)} |"
        )
    return "\n".join(lines)


def hand_out_all(count: int, *, watch: int = 0) -> tuple[float, int]:
    """Do `count` shards through the queue with 64 workers: seconds of CPU, and the largest resident set seen, bytes.

    As the driver does it: after each shard all workers are looked at. `watch`: shards between looks at memory.
    """
    rng, queue = random.Random(0), ShardQueue(range(count))
    held: list[deque[int]] = [deque() for _ in range(QUEUE_WORKERS)]
    names = [f"worker-{number}" for number in range(QUEUE_WORKERS)]
    most, started = resident(), time.process_time()
    for name in names:
        queue.join(name)
    while not queue.is_finished:
        for name, given in zip(names, held, strict=True):
            while (shard := queue.next(name)) is not None:
                given.append(shard)
        number = rng.randrange(QUEUE_WORKERS)
        if held[number]:
            queue.done(names[number], held[number].popleft())
            if watch and queue.num_done % watch == 0:
                most = max(most, resident())
    return time.process_time() - started, most


def resident() -> int:
    """Bytes of this process in memory; 0 on systems without /proc."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * getpagesize() if path.exists() else 0


def traced_peak(count: int) -> int:
    """Peak bytes of Python's objects while `count` shards were done."""
    # apart from the timed runs, which tracing slows down several times
    tracemalloc.start()
    try:
        hand_out_all(count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def require_flat(cost_ratio: float, growth_mb: float) -> None:
    """Raise BenchmarkError when the cost or memory of a shard depends on how many there are."""
    if cost_ratio > MAX_COST_RATIO:
        raise BenchmarkError(
            f"a shard of many costs {cost_ratio:.2f} times one of few; at most {MAX_COST_RATIO}"
        )
    if growth_mb > MAX_GROWTH_MB:
        raise BenchmarkError(f"memory grows by {growth_mb:.1f} MB; at most {MAX_GROWTH_MB}")


def queue(size: Size) -> Outcome:
    """10^3 to 10^5 shards without actors: CPU per shard and memory must not depend on their number."""
    counts = [10**3, 10**4, 10**5][: size.of(3, 2)]
    before = max(hand_out_all(counts[0])[1], resident())
    cost = {n: min(hand_out_all(n)[0] for _ in range(max(3, 10**4 // n))) / n for n in counts}
    most = hand_out_all(counts[-1], watch=1000)[1]
    growth = (most - before) / 1e6
    traced = (traced_peak(counts[-1]) - traced_peak(counts[0])) / 1e6
    ratio = cost[counts[-1]] / cost[counts[0]]
    require_flat(ratio, max(growth, traced))
    figures = [Figure(f"{n:,} shards: CPU per shard", 1e6 * s, "us") for n, s in cost.items()]
    figures += [Figure(f"{n:,} shards: per second", 1 / s, "shards/s") for n, s in cost.items()]
    figures += [
        Figure(f"CPU per shard, {counts[-1]:,} / {counts[0]:,}", ratio, "x", MAX_COST_RATIO, "<="),
        Figure(f"resident set, {counts[-1]:,} shards, growth", growth, "MB", MAX_GROWTH_MB, "<="),
        Figure(f"Python objects, {counts[-1]:,} less {counts[0]:,}", traced, "MB", MAX_GROWTH_MB, "<="),
    ]  # fmt: skip
    return Outcome(tuple(figures), {"workers": QUEUE_WORKERS, "rounds": "least of several"})
