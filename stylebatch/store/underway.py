"""How far the owner of a run lock is: facts that it writes into the lock with each heartbeat, for whoever looks from outside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MOST_PLACES = 200
"""Places of workers that a lock names; thousands of hosts would make it long."""
_Count = Annotated[int, Field(ge=0, le=10**15)]
_Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Name = Annotated[str, Field(max_length=300)]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class WorkersAt(_Facts):
    """Workers of one host and kind of device; `host` is "" for those of hosts beyond `MOST_PLACES`."""

    host: _Name
    device: _Name
    count: _Count


class Underway(_Facts):
    """A run as its owner sees it, at the time of the heartbeat.

    `run_s`: since it began; `rendering_s`: since it began to render; `samples_before`: committed by then; `evaluations`: made since,
    of the `evaluations_planned` that were left. `shard`: the one that is rendered, where this is one process.
    `workers_lost`, `retries`: workers that died, attempts at shards that failed.
    """

    phase: Literal["preparing", "rendering", "reporting"]
    run_s: _Seconds
    rendering_s: _Seconds = 0.0
    samples_before: _Count = 0
    evaluations: _Count = 0
    evaluations_planned: _Count = 0
    shard: _Name = ""
    workers: Annotated[list[WorkersAt], Field(max_length=MOST_PLACES + 1)] = []
    workers_lost: _Count = 0
    retries: _Count = 0

    @classmethod
    def of(cls, value: Any) -> Underway | None:
        """From a lock; None where it has none, or one that no run writes."""
        try:
            return None if value is None else cls.model_validate(value)
        except (ValidationError, RecursionError):
            return None
