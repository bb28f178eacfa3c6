"""Whether a run is live, finished, interrupted, dead or damaged, and how far it is.

1. The lock says who writes. An owner on this machine is judged by its process; one elsewhere by whether its heartbeat still changes,
   by our own clock, since clocks of machines differ.
2. run.json says what is to be made, the commit markers what is made, and why samples failed.
3. The lock's facts of a live run say how fast it is: only its owner knows of work in shards that are not committed yet.
No picture is read, and no bytes are compared: that is for `verify`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from stylebatch.folder import Folder, Place
from stylebatch.monitoring.marked_shards import MarkedShards
from stylebatch.monitoring.pulse import Holder, Pulse
from stylebatch.store.ledger import Ledger
from stylebatch.store.lock_owner import Unreadable, read_lock
from stylebatch.store.names import POISON
from stylebatch.store.output_record import RunRecord, find_run, read_run
from stylebatch.store.underway import Underway

State = Literal["live", "finished", "interrupted", "incomplete", "dead", "damaged"]
"""`interrupted`: it stopped in order, before its end; `incomplete`: it came to its end and left shards out; `dead`: its owner is gone
and left the lock; `damaged`: nobody writes, and what was committed is not as it was."""
STATES: tuple[State, ...] = ("live", "finished", "interrupted", "incomplete", "dead", "damaged")
EXIT_CODES: dict[State, int] = {"live": 4, "finished": 0}
"""3 in any other state, and for a finished run of which too many samples failed."""
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Status:
    """What is known of a run from outside. Counts are of samples where nothing else is said.

    `owner`: who holds the lock, or left it, "" where there is no lock; `heartbeat`: when it was last seen, by its clock, and
    `last_commit`: seconds since the epoch, 0 where there is none; `left_out`: shards that failed too often, with the reason;
    `problems`: the first of `num_problems`; `preview_of`: samples that a preview was limited to.
    """

    output: str
    state: State
    name: str = ""
    owner: str = ""
    heartbeat: float = 0.0
    samples_planned: int = 0
    success: int = 0
    failed: int = 0
    rejected: int = 0
    shards_planned: int = 0
    shards_committed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    rejections: dict[str, int] = field(default_factory=dict)
    evaluations: int = 0
    evaluations_planned: int = 0
    bytes: int = 0
    worker_s: float = 0.0
    last_commit: float = 0.0
    max_failed_fraction: float = 1.0
    problems: tuple[str, ...] = ()
    num_problems: int = 0
    is_export: bool = False
    preview_of: int | None = None
    underway: Underway | None = None

    @property
    def samples_done(self) -> int:
        return self.success + self.failed + self.rejected

    @property
    def seen_s(self) -> float:
        """Age of the heartbeat, as far as the clocks agree."""
        return abs(time.time() - self.heartbeat)

    @property
    def exit_code(self) -> int:
        too_many = self.failed > self.max_failed_fraction * self.samples_planned
        return 3 if self.state == "finished" and too_many else EXIT_CODES.get(self.state, 3)

    @property
    def fraction(self) -> float | None:
        """Of the work that this start has to do, as far as it is done; None while nothing tells."""
        run = self.underway
        if self.state != "live" or run is None or run.phase != "rendering":
            return None
        planned = self.samples_planned - run.samples_before
        by_samples = _share(self.samples_done - run.samples_before, planned)
        by_work = _share(run.evaluations, run.evaluations_planned)
        # gates ask for more evaluations than were planned, and ranks tell of their own alone: then commits tell
        return max(by_samples, by_work if by_work < 1.0 else 0.0) or None

    @property
    def samples_per_s(self) -> float | None:
        """Mean since this start began to render."""
        run, fraction = self.underway, self.fraction
        if run is None or fraction is None or run.rendering_s <= 0:
            return None
        return fraction * (self.samples_planned - run.samples_before) / run.rendering_s

    @property
    def remaining_s(self) -> float | None:
        """Until the last shard is committed, at the mean rate so far."""
        run, fraction = self.underway, self.fraction
        if run is None or fraction is None:
            return None
        return run.rendering_s * (1.0 - fraction) / fraction

    @property
    def num_workers(self) -> int:
        return sum(place.count for place in self.underway.workers) if self.underway else 0


def _share(done: int, planned: int) -> float:
    return min(1.0, max(0, done) / planned) if planned > 0 else 0.0


class StatusReader:
    """Looks at an output again and again; each look reads what changed since the last one.

    `note`: see `Pulse`.
    """

    def __init__(self, output: Folder, note: Callable[[str], None] | None = None) -> None:
        self.output = output
        self._marked: MarkedShards | None = None
        self._pulse = Pulse(output, note)

    def look(self) -> Status:
        """The state now. Raises ManifestError where there is neither a run nor one that begins, StorageError."""
        holder = read_lock(self.output)
        is_live = self._pulse.is_live(holder)
        run = find_run(self.output)
        if run is None and is_live:
            return Status(str(self.output), "live", **_owner_facts(holder))
        if run is None:
            run = read_run(self.output)
        if self._marked is None or self._marked.run != run:
            self._marked = MarkedShards(self.output, run)
        files = self._marked.look()
        return self._status(run, self._marked, files, holder, is_live)

    def _status(
        self, run: RunRecord, marked: MarkedShards, files: Any, holder: Holder, is_live: bool
    ) -> Status:
        problems = list(marked.problems(files, with_payload=not is_live))
        poisoned = {}
        if any(file.endswith(POISON) for file in files):
            found = Ledger(self.output).poisoned()
            poisoned = {name: str(facts["reason"]) for name, facts in found.items()}
        totals, spec = marked.totals, run.spec
        is_whole = marked.num_committed >= run.plan.num_shards
        state: State = "finished" if is_whole else "interrupted"
        if is_live:
            state = "live"
        elif problems:
            state = "damaged"
        elif holder is not None:
            state = "dead"
        elif not is_whole and marked.num_committed + len(poisoned) >= run.plan.num_shards:
            state = "incomplete"
        allowed = spec.get("max_failed_fraction", 1.0)
        return Status(
            output=str(self.output),
            state=state,
            name=run.name,
            samples_planned=run.plan.num_samples,
            success=int(totals["num_success"]),
            failed=int(totals["num_failed"]),
            rejected=int(totals["num_rejected"]),
            shards_planned=run.plan.num_shards,
            shards_committed=marked.num_committed,
            left_out=poisoned,
            failures=dict((+marked.failures).most_common()),
            rejections=dict((+marked.rejections).most_common()),
            evaluations=int(totals["evaluations"]),
            evaluations_planned=run.plan.evaluations,
            bytes=int(totals["bytes"]),
            worker_s=float(totals["seconds"]),
            last_commit=marked.last_commit,
            max_failed_fraction=allowed if isinstance(allowed, int | float) else 1.0,
            problems=tuple(problems[:MOST_PROBLEMS]),
            num_problems=len(problems),
            is_export=run.export is not None,
            preview_of=run.limit,
            **_owner_facts(holder),
        )


def _owner_facts(holder: Holder) -> dict[str, Any]:
    if holder is None:
        return {}
    if isinstance(holder, Unreadable):
        return {"owner": "an unknown owner", "heartbeat": holder.version.modified}
    return {"owner": str(holder), "heartbeat": holder.heartbeat, "underway": holder.underway}


def status(output: Place) -> Status:
    """The state of `output` now. Raises ManifestError where there is no run, StorageError where the place cannot be read."""
    return StatusReader(Folder.at(output)).look()
