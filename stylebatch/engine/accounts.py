"""What engines share: the outcomes of shards, how they are counted, and how they are reported."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from stylebatch.engine.queue import ShardQueue
from stylebatch.errors import StylebatchError
from stylebatch.folder import Folder
from stylebatch.methods.user_code import UserCodeError
from stylebatch.planning.plan import Plan
from stylebatch.progress import Event, Progress
from stylebatch.store.ledger import Ledger
from stylebatch.words import counted

MAX_NOTES_SHOWN = 5
"""Notes about pictures that a run shows."""


class HopelessError(StylebatchError):
    """Shard after shard fails and none was ever made."""

    exit_code = 3

    @classmethod
    def of(cls, ledger: Ledger) -> HopelessError:
        """From what is recorded of the shards that were left out."""
        poisoned = ledger.poisoned()
        name, facts = next(iter(poisoned.items()))
        shards, attempts = counted(len(poisoned), "shard"), facts.get("attempts", 1)
        return cls(
            f"no shard could be made: {shards} failed, tried {counted(attempts, 'time')} each; the first one by\n"
            f"{facts.get('reason', 'an unknown error')}\n"
            f"Details: {ledger.poison_path(name)}. Next: mend the cause and run the same command again."
        )


@dataclass(frozen=True)
class Failure:
    """Why a shard could not be made: one line, and the whole trace.

    `source`: the line of a user's method that failed. `is_final`: every further attempt fails alike.
    """

    reason: str
    trace: str
    source: str = ""
    is_final: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, UserCodeError):
            return cls(str(error), trace, error.source, not error.may_pass)
        return cls(traceback.format_exception_only(error)[-1].strip(), trace)


Executed = dict[int, list[list[int]]]
"""By shard, the rungs that an earlier rendering of it executed, to be repeated."""


class Books(Protocol):
    """What the driver reports outcomes of shards and workers to; an `Account` is one."""

    queue: ShardQueue

    def committed(self, worker: str, shard: int, stats: Any) -> None: ...
    def failed(self, worker: str, shard: int, failure: Failure) -> None: ...
    def lost(self, worker: str, failure: Failure) -> None: ...


class Account:
    """Books of a rendering: who made which shard, what failed, what is poisoned. `progress` shows each change."""

    def __init__(self, plan: Plan, output: Folder, queue: ShardQueue, progress: Progress) -> None:
        self.plan, self.queue, self.progress = plan, queue, progress
        self.ledger = Ledger(output)
        self._noted: set[str] = set()
        self._shown: set[str] = set()

    def committed(self, worker: str, shard: int, stats: dict[str, Any]) -> None:
        """A shard is on disk."""
        self.queue.done(worker, shard)
        name, failed = self.plan.shard_name(shard), stats["num_failed"]
        text = f"{failed:,} of {counted(stats['num_samples'], 'sample')} failed" if failed else ""
        if rejected := stats.get("num_rejected", 0):
            text = (
                f"{text}; " * bool(text)
                + f"{rejected:,} of {counted(stats['num_samples'], 'sample')} rejected"
            )
        # the lowest rung is the last: within a shard batches only shrink
        if stats["executed"]:
            lowest = stats["executed"][-1]
            text = f"{text}; " * bool(text) + (
                f"memory ran out; rendered in batches of {lowest[0]}, parts of {lowest[1] or 'all'} x {lowest[2] or 'all'}"
            )
        facts = {
            key: stats[key]
            for key in ("num_samples", "num_failed", "seconds", "evaluations", "bytes")
        }
        if rejected:
            facts["num_rejected"] = rejected
        self.progress.event(Event("committed", text, name, worker, facts))
        self._show_notes(name, worker, stats["notes"])
        self.progress.add_samples(stats["num_samples"])

    def _show_notes(self, shard: str, worker: str, notes: list[str]) -> None:
        """Show what was odd about pictures, each note once in a run and only a few; the stats of shards hold the rest."""
        for note in notes:
            # one more than is shown, for the line that says that there are more
            if note in self._noted or len(self._noted) > MAX_NOTES_SHOWN:
                continue
            self._noted.add(note)
            is_last = len(self._noted) > MAX_NOTES_SHOWN
            text = "more notes about pictures are in the stats of shards" if is_last else note
            self.progress.event(Event("noted", text, shard, worker))

    def failed(self, worker: str, shard: int, failure: Failure) -> None:
        """A worker is well but could not make a shard."""
        self.queue.fail(worker, shard, failure.reason, is_final=failure.is_final)
        self._record_failure(worker, shard, failure)

    def lost(self, worker: str, failure: Failure) -> None:
        """A worker died; what it was at is tried again."""
        given = self.queue.leave(worker, failure.reason)
        self.progress.event(Event("lost", f"the worker is gone: {failure.reason}", "", worker))
        if given:
            self._record_failure(worker, given[0], failure)

    def _record_failure(self, worker: str, shard: int, failure: Failure) -> None:
        """Say that a shard waits again, or record that it is poisoned. Raises HopelessError."""
        name, attempts = self.plan.shard_name(shard), self.queue.attempts(shard)
        facts: dict[str, Any] = {"attempts": attempts, "reason": failure.reason}
        if failure.source:
            facts["source"] = failure.source
        # the line of a user's method once, not with each of a thousand shards
        shown = f"\n    {failure.source}" if failure.source not in ("", *self._shown) else ""
        self._shown.add(failure.source)
        if shard not in self.queue.poisoned:
            text = f"attempt {attempts} failed ({failure.reason}); it will be tried again{shown}"
            self.progress.event(Event("retry", text, name, worker, facts))
            return
        self.ledger.poison(
            name, {"shard": shard, "plan_digest": self.plan.digest, **facts, "trace": failure.trace}
        )
        text = f"left out after {counted(attempts, 'attempt')}: {failure.reason}; details in {self.ledger.poison_path(name)}{shown}"
        self.progress.event(Event("poisoned", text, name, worker, facts))
        if self.queue.is_hopeless:
            raise HopelessError.of(self.ledger)


def here(device: object) -> dict[str, Any]:
    """What a worker that is ready says of its process."""
    return {"device": str(device), "host": socket.gethostname(), "pid": os.getpid()}


class StyleBooks:
    """Books of styles to be cached. An image that cannot be used is reported later, by the rows of its samples."""

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
        # about the run (storage, changed inputs), which no other shard would escape
        except StylebatchError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a shard does, the others are rendered
            account.failed(worker, shard, Failure.of(error))
        else:
            account.committed(worker, shard, stats)
