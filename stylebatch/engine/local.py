"""The local engine: shards one after another in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylebatch.data.plan import Plan
from stylebatch.engine.worker import Worker
from stylebatch.progress import Progress


def run_shards(
    plan: Plan, output: Path, shard_ids: Sequence[int], *, threads: int, progress: Progress
) -> None:
    """Render and commit `shard_ids` in order."""
    with Worker(plan, output, threads=threads, on_evaluations=progress.advance) as worker:
        for shard_id in shard_ids:
            progress.enter_shard(plan.shard_name(shard_id))
            stats = worker.render(shard_id)
            progress.add_samples(stats["num_samples"])
            if stats["num_failed"]:
                progress.note(
                    f"{plan.shard_name(shard_id)}: {stats['num_failed']} of {stats['num_samples']} samples failed"
                )
