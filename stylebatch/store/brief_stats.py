"""Commit markers without what most of their memory is, for those who hold the markers of all shards."""

from __future__ import annotations

from stylebatch.store.output_record import ShardStats

MOST_LOOKS = 100_000
"""Samples whose looks are kept of the markers of all shards."""


def brief(stats: ShardStats, *, before: int = MOST_LOOKS) -> ShardStats:
    """The stats without inputs and rungs: of the markers of all shards, which some hold at once, those are most of the memory.

    `before`: samples of the shards before it; beyond MOST_LOOKS looks go too.
    """
    looks = stats.looks if before + stats.num_success <= MOST_LOOKS else None
    return stats.model_copy(update={"inputs": {}, "executed": [], "looks": looks})
