"""What engines share: a shard's outcome, and telling of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stylebatch.data.plan import Plan
from stylebatch.engine.queue import ShardQueue
from stylebatch.errors import StylebatchError
from stylebatch.progress import Event, Progress
from stylebatch.store.ledger import Ledger

HOPELESS = (
    "the first {count} shards failed {attempts} times each and none was committed; the last error was:\n{reason}\n"
    "Next: mend the cause and run the same command again."
)


class HopelessError(StylebatchError):
    """Shard after shard fails and none was ever made."""

    exit_code = 3


@dataclass(frozen=True)
class Failure:
    """Why a shard could not be made: the last line of its traceback, and all of it."""

    reason: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        lines = traceback.format_exception_only(error)
        return cls(lines[-1].strip(), "".join(traceback.format_exception(error)))


Executed = dict[int, list[list[int]]]
"""By shard, the rungs that an earlier rendering of it executed, to be repeated."""


class Books(Protocol):
    """What the driver tells of shards and workers; an `Account` is one."""

    queue: ShardQueue

    def committed(self, worker: str, shard: int, stats: Any) -> None: ...
    def failed(self, worker: str, shard: int, failure: Failure) -> None: ...
    def lost(self, worker: str, failure: Failure) -> None: ...


class Account:
    """Books of a rendering: who made which shard, what failed, what is poisoned; tells `progress`."""

    def __init__(self, plan: Plan, output: Path, queue: ShardQueue, progress: Progress) -> None:
        self.plan, self.queue, self.progress = plan, queue, progress
        self.ledger = Ledger(output)

    def committed(self, worker: str, shard: int, stats: dict[str, Any]) -> None:
        """A shard is on disk."""
        self.queue.done(worker, shard)
        name, failed = self.plan.shard_name(shard), stats["num_failed"]
        text = f"{failed} of {stats['num_samples']} samples failed" if failed else ""
        if stats["executed"]:
            lowest = stats["executed"][-1]
            text = f"{text}; " * bool(text) + (
                f"memory ran out; rendered in batches of {lowest[0]}, parts of {lowest[1] or 'all'} x {lowest[2] or 'all'}"
            )
        facts = {
            key: stats[key]
            for key in ("num_samples", "num_failed", "seconds", "evaluations", "bytes")
        }
        self.progress.event(Event("committed", text, name, worker, facts))
        self.progress.add_samples(stats["num_samples"])

    def failed(self, worker: str, shard: int, failure: Failure) -> None:
        """A worker is well but could not make a shard."""
        self.queue.fail(worker, shard, failure.reason)
        self.tell(worker, shard, failure)

    def lost(self, worker: str, failure: Failure) -> None:
        """A worker died; what it was at is tried again."""
        given = self.queue.leave(worker, failure.reason)
        self.progress.event(Event("lost", f"the worker is gone: {failure.reason}", "", worker))
        if given:
            self.tell(worker, given[0], failure)

    def tell(self, worker: str, shard: int, failure: Failure) -> None:
        """Say that a shard waits again, or record that it is poisoned. Raises HopelessError."""
        name, attempts = self.plan.shard_name(shard), self.queue.attempts(shard)
        facts = {"attempts": attempts, "reason": failure.reason}
        if shard not in self.queue.poisoned:
            text = f"attempt {attempts} failed ({failure.reason}); it will be tried again"
            self.progress.event(Event("retry", text, name, worker, facts))
            return
        self.ledger.poison(
            name, {"shard": shard, "plan_digest": self.plan.digest, **facts, "trace": failure.trace}
        )
        text = f"left out after {attempts} attempts: {failure.reason}"
        self.progress.event(Event("poisoned", text, name, worker, facts))
        if self.queue.is_hopeless:
            count = len(self.queue.poisoned)
            raise HopelessError(
                HOPELESS.format(count=count, attempts=attempts, reason=failure.reason)
            )


class StyleBooks:
    """Of styles to be cached. An image that cannot be used is told by its rows."""

    def __init__(self, queue: ShardQueue) -> None:
        self.queue = queue

    def committed(self, worker: str, shard: int, stats: Any) -> None:
        self.queue.done(worker, shard)

    def failed(self, worker: str, shard: int, failure: Failure) -> None:
        self.queue.done(worker, shard)

    def lost(self, worker: str, failure: Failure) -> None:
        self.queue.leave(worker, failure.reason)


def render_here(account: Account, worker: str, render: Callable[[int], dict[str, Any]]) -> None:
    """Render the queue's shards in this process, each as often as it may fail."""
    queue = account.queue
    queue.join(worker)
    while (shard := queue.next(worker)) is not None:
        account.progress.enter_shard(account.plan.shard_name(shard))
        try:
            stats = render(shard)
        except StylebatchError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a shard does, the others are rendered
            account.failed(worker, shard, Failure.of(error))
        else:
            account.committed(worker, shard, stats)
