"""Tells where an output has fewer shards than a loader has workers."""

from __future__ import annotations

from collections.abc import Iterator

from stylebatch.planning.plan import Plan
from stylebatch.planning.shard_cuts import USUAL_WORKERS, Stretch
from stylebatch.planning.work import NOTHING
from stylebatch.spec.output import OutputFormat
from stylebatch.store.sinks import sink_of


def loader_hints(plan: Plan) -> list[str]:
    """Lines for people, none where there are shards enough or a loader needs none."""
    return list(_of_splits(plan))


def few_shards(num_shards: int, format: OutputFormat) -> str:
    """What people should know of so few shards; "" where they are enough."""
    if num_shards >= USUAL_WORKERS or not sink_of(format).is_one_file:
        return ""
    shards = "one shard" if num_shards == 1 else f"{num_shards} shards"
    most = "one worker" if num_shards == 1 else f"{num_shards} workers"
    return f"{shards}: loaders share out whole shards, so {most} at most will have work"


def _of_splits(plan: Plan) -> Iterator[str]:
    has_splits = bool(plan.layout.parts)
    # shards of former generations are there too, of whichever splits
    has_grown = plan.layout.work.former != NOTHING
    for stretch in () if has_splits and has_grown else plan.cut.stretches:
        num_shards = stretch.num_shards if has_splits else plan.shards.stop
        line = few_shards(num_shards, plan.spec.output.format)
        if not line:
            continue
        line = f"{stretch.split}: {line}" if has_splits else line
        wanted = _samples(plan, stretch) // USUAL_WORKERS
        if plan.layout.samples_per_block <= wanted < plan.samples_per_shard:
            line += f", or render with output.shard_size: {wanted}"
        yield line


def _samples(plan: Plan, stretch: Stretch) -> int:
    before = plan.grid.num_samples_before
    return before(stretch.first_block + stretch.num_blocks) - before(stretch.first_block)
