"""A whole run: plan, lock, resume, render what remains, derive the reports.

1. The plan is resolved; the output directory is locked; run.json is written, or compared with the one
   that is there (a changed plan is refused).
2. Shards that lack a commit are rendered by the engine.
3. From the records alone: errors.parquet, dataset card, contact sheet, gallery.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stylebatch.engine.accounts import Executed, HopelessError
from stylebatch.engine.admission import (
    admitted,
    generations,
    kept,
    require_same_arithmetic,
    shard_names,
    standing,
)
from stylebatch.engine.chosen_device import chosen
from stylebatch.engine.engines import open_engine
from stylebatch.engine.gate import check_gates
from stylebatch.engine.live import Live
from stylebatch.engine.local_engine import LocalEngine
from stylebatch.engine.run_record import ComputePlace, run_record, threads_of
from stylebatch.engine.sight import check_sight
from stylebatch.engine.tracking import tracked
from stylebatch.errors import ManifestError, PlanChangedError, StylebatchError
from stylebatch.folder import Folder
from stylebatch.interruption import interruptible
from stylebatch.manifest import check_inputs
from stylebatch.models.loading import check_model
from stylebatch.monitoring.metrics import served
from stylebatch.planning.choice import needs_measuring
from stylebatch.planning.identity import output_path
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve
from stylebatch.planning.run_inputs import Inputs, list_inputs
from stylebatch.progress import Progress
from stylebatch.reports.card import write_card
from stylebatch.reports.report import Report, report
from stylebatch.spec import RunSpec
from stylebatch.store.fingerprints import changed, keep, survey
from stylebatch.store.inputs_record import remember
from stylebatch.store.ledger import Ledger
from stylebatch.store.names import poison_file
from stylebatch.store.output_record import RunRecord, ShardStats
from stylebatch.store.previews import empty, preview_in
from stylebatch.store.run_lock import RunLock
from stylebatch.store.verify import verify
from stylebatch.store.versions import version_of
from stylebatch.words import counted, is_or_are


@dataclass(frozen=True)
class RunResult:
    """What a run did. `exit_code`: 3 when a shard lacks its commit or too many samples failed, else 0.

    `poisoned`: shards that failed too often and were left out, with the reason.
    """

    folder: Folder
    num_samples: int
    num_attempted: int
    num_resumed_shards: int
    seconds: float
    report: Report
    max_failed_fraction: float
    poisoned: dict[str, str]

    @property
    def output(self) -> Path:
        """The folder's path. Raises ValueError where it is not on this machine."""
        if self.folder.local is None:
            raise ValueError(f"output: found {self.folder}; accepted: an output on this machine")
        return self.folder.local

    @property
    def exit_code(self) -> int:
        incomplete = self.report.num_shards_committed < self.report.num_shards
        too_many_failed = self.report.num_failed > self.max_failed_fraction * self.num_samples
        return 3 if incomplete or too_many_failed else 0

    def problems(self) -> list[str]:
        """Why the exit code is not 0, one reason a line, with the next step."""
        lines = [
            f"shard {name} was left out: {reason}; details in {self.folder.where(poison_file(name))}; "
            "run the same command again to retry it"
            for name, reason in self.poisoned.items()
        ]
        failed = self.report.num_failed
        if failed > self.max_failed_fraction * self.num_samples:
            lines.append(
                f"{failed:,} of {counted(self.num_samples, 'sample')} failed, more than max_failed_fraction {self.max_failed_fraction:g} "
                f"allows; most often {self.report.reasons[0].line()}; all in {self.folder.where('metadata/errors.parquet')}. "
                "Next: mend their inputs and run the same command with --retry-failed, or allow more with a greater max_failed_fraction"
            )
        return lines


Redo = Literal["nothing", "failed", "damaged"]
"""Which committed shards a run renders again: those with failed samples, or those that `verify` finds damaged."""


def run(
    spec: RunSpec,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    redo: Redo = "nothing",
    inputs: Inputs | None = None,
) -> RunResult:
    """Render `spec` into its output directory, or continue an interrupted run of the same plan.

    `limit`: a preview of that many samples, in another directory (`OUTPUT-preview-LIMIT`); `inputs`: where they were listed
    already. Raises ManifestError, OutputLockedError, PlanChangedError, StorageError (see their exit codes), and
    Interrupted on SIGINT or SIGTERM, with nothing partial committed.
    """
    output = Folder.at(output_path(spec, limit))
    progress = Live(tracked(progress or Progress(), spec, output))
    check_inputs(spec)
    with (
        interruptible(),
        served(output, _metrics_port(spec), spec.engine.metrics_host, progress.note),
        open_engine(spec.engine, progress) as engine,
    ):
        # the result, on ranks other than the first
        followed: RunResult | None = engine.follow()
        if followed is not None:
            return followed
        inputs = inputs or list_inputs(spec)
        result = _lead(_Start(spec, limit, redo, inputs, engine, progress))
        engine.conclude(result)
        return result


def run_with(
    engine: LocalEngine,
    spec: RunSpec,
    *,
    limit: int,
    inputs: Inputs,
    progress: Progress,
) -> RunResult:
    """As `run` of a preview, by an engine that is entered already and keeps its model for the next call.

    The caller checks the inputs of `spec` (`check_inputs`) and handles signals.
    """
    return _lead(_Start(spec, limit, "nothing", inputs, engine, progress))


@dataclass(frozen=True)
class _Start:
    """What is to be rendered by whom; `inputs`: of `spec`, as they are now."""

    spec: RunSpec
    limit: int | None
    redo: Redo
    inputs: Inputs
    engine: LocalEngine
    progress: Progress


def _metrics_port(spec: RunSpec) -> int | None:
    """Where this process serves metrics: of several ranks the first one does."""
    return spec.engine.metrics_port if os.environ.get("RANK", "0") == "0" else None


Work = Sequence[tuple[Plan, list[int]]]
"""Each plan with those of its shards that are to be rendered."""


def _lead(start: _Start) -> RunResult:
    """The run itself, in the process that plans."""
    spec, progress = start.spec, start.progress
    draft = resolve(spec, limit=start.limit, inputs=start.inputs)
    check_gates(draft)
    if not spec.model.is_embedded:
        check_model(spec.model, start.inputs.checkpoint)
    check_sight(draft)
    output = Folder.at(draft.spec.output.path)
    ledger = Ledger(output)
    if start.limit is None or preview_in(output) is None:  # a damaged preview is replaced
        ledger.former()
    # printed before the lock is waited for, so that a wait has a reason on the screen
    for line in (draft.lines()[0], *draft.notes):
        progress.note(line)
    underway = progress.underway if isinstance(progress, Live) else None
    with RunLock(output, note=progress.note, underway=underway):
        plans, present, record = _begun(start, draft, ledger)
        is_mended = start.limit is not None and start.redo == "nothing"
        executed = _revoke(plans, ledger, "damaged" if is_mended else start.redo)
        there = standing(plans, ledger)
        work = list(zip(plans, there.remaining, strict=True))
        if plans[-1].numbering:
            progress.note(plans[-1].numbering)
        total = sum(plan.num_shards for plan in plans)
        done = total - sum(len(shards) for _, shards in work)
        if done:
            require_same_arithmetic(output, record, present)
            progress.note(
                f"Resuming {output}: {done:,} of {counted(total, 'shard')} {is_or_are(done)} committed"
            )
        if failed := there.failed_line():
            progress.note(failed)
        seconds = _render(start, work, ledger, record, executed)
        finished, poisoned = _finish(plans, ledger, record)
    num_samples = sum(plan.grid.num_samples for plan in plans)
    num_attempted = sum(plan.shard_size(shard) for plan, shards in work for shard in shards)
    allowed = spec.max_failed_fraction
    return RunResult(output, num_samples, num_attempted, done, seconds, finished, allowed, poisoned)


def _begun(
    start: _Start, draft: Plan, ledger: Ledger
) -> tuple[tuple[Plan, ...], RunRecord, RunRecord]:
    """As `_admitted`; a preview that is damaged or cannot be continued makes room for this one."""
    former = None if start.limit is None else preview_in(ledger.output)
    if former is None:
        return _admitted(start, draft, ledger)
    reason: StylebatchError | None = None
    try:
        ledger.former()
    except ManifestError as error:
        reason = error
    if reason is None:
        try:
            return _admitted(start, draft, ledger)
        except PlanChangedError as error:
            reason = error
    start.progress.note(f"The preview there is replaced: {str(reason).splitlines()[0]}")
    empty(ledger.output, former)
    return _admitted(start, draft, ledger)


def _admitted(
    start: _Start, draft: Plan, ledger: Ledger
) -> tuple[tuple[Plan, ...], RunRecord, RunRecord]:
    """The plans of all generations; the record of this start, and the one that the output goes on with, which is written."""
    former, inputs = ledger.former(), start.inputs
    place, told = start.engine.call(partial(chosen, start.spec, start.engine.name))
    start.progress.note(told)
    plan = _settle(start, draft, former, place)
    # a preview never grows: it is replaced
    is_preview = start.limit is not None
    plans = (plan,) if is_preview else generations(plan, ledger.output, inputs)
    present = run_record(plans, start.engine.name, place, start.limit)
    record, known = admitted(ledger, plans, present, mending=start.redo == "damaged")
    if is_preview and ledger.has_commits:
        require_same_arithmetic(ledger.output, record, present)
    ledger.sweep(former or record)
    if known is not None:
        keep(ledger, known)
    _begin(ledger, record, plans[-1])
    # only now: a start that was refused above leaves the records of what failed
    ledger.forgive()
    return plans, present, record


def _render(
    start: _Start, work: Work, ledger: Ledger, record: RunRecord, executed: Executed
) -> float:
    """Render and commit what is missing; the seconds that it took."""
    started, threads = time.monotonic(), record.resolved.threads
    try:
        with _shown(work, start.progress):
            for plan, shards in work:
                if shards:
                    start.engine.render(
                        plan, ledger.output, shards, threads=threads, executed=executed
                    )
    finally:
        ledger.sweep(record)  # what workers left that were ended in the middle of a shard
    return time.monotonic() - started


def _finish(
    plans: Sequence[Plan], ledger: Ledger, record: RunRecord
) -> tuple[Report, dict[str, str]]:
    """Derive what is derived from all shards; the report, and why shards were left out."""
    output = ledger.output
    stats = _gathered(ledger, plans)
    poisoned = ledger.poisoned()
    _require_some(ledger)
    finished = report(output, stats=stats)
    # every shard of a small run may have failed: a card names the split that it is about
    splits = finished.splits or {record.splits[0]: 0}
    version = version_of("stylebatch")
    write_card(
        plans[-1], output,
        splits=splits, version=version, verdict=finished.verdict, alike=finished.duplicates.sentence,
    )  # fmt: skip
    return finished, {name: str(facts["reason"]) for name, facts in poisoned.items()}


def _gathered(ledger: Ledger, plans: Sequence[Plan]) -> dict[str, ShardStats]:
    """What the markers say, by shard. Raises InputChangedError where shards were made of different bytes."""
    found = survey(ledger, shard_names(plans))
    keep(ledger, found)
    if found.other:
        raise changed(ledger.output, found.other)
    return found.stats


def _begin(ledger: Ledger, record: RunRecord, plan: Plan) -> None:
    """Write run.json and the lists of inputs, in an order that a kill between them costs nothing.

    An output with commits is read by its lists, of which run.json tells how much is in use: they go first. In a new one
    run.json says whose directory it is.
    """
    has_commits = ledger.has_commits
    if not has_commits:
        ledger.write(record)
    remember(ledger.output, plan)
    if has_commits:
        ledger.write(record)


def _require_some(ledger: Ledger) -> None:
    """Raise HopelessError where shards were left out and there is none to report on."""
    if ledger.poisoned() and not ledger.has_commits:
        raise HopelessError.of(ledger)


def _settle(start: _Start, draft: Plan, former: RunRecord | None, place: ComputePlace) -> Plan:
    """The plan with feature sources and batch as an earlier start chose them, or as chosen now."""
    replan = partial(resolve, start.spec, limit=start.limit, inputs=start.inputs)
    choice, conditions = kept(draft.spec, former, place)
    if choice is None and needs_measuring(start.spec):
        trial, threads = replan(conditions=conditions), threads_of(start.spec)
        conditions = start.engine.measure(trial, threads=threads, batch_gb=conditions.batch_gb)
    same = conditions == draft.conditions and choice in (None, draft.choice)
    plan = draft if same else replan(choice=choice, conditions=conditions)
    for reason in plan.reasons if choice is None else ():
        start.progress.note(reason)
    return plan


def _revoke(plans: Sequence[Plan], ledger: Ledger, redo: Redo) -> Executed:
    """Take back the commits of shards that are to be made again; by shard, the rungs that it is to be made at.

    Those of commits that an earlier start took back are among them.
    """
    damaged: set[int | None] = set()
    if redo == "damaged":
        damaged = {problem.shard for problem in verify(ledger.output)}
    for plan in plans if redo != "nothing" else ():
        for shard in plan.shards:
            name = plan.shard_name(shard)
            if redo == "damaged" and shard in damaged:
                recorded = ledger.recorded(name)
                ledger.revoke(name, executed=recorded.executed if recorded else [])
            elif redo == "failed":
                stats = ledger.stats(name, plan.digest)
                if stats is not None and stats.num_failed:
                    ledger.revoke(name, executed=[])
    return {shard: rungs for plan in plans for shard, rungs in _taken_back(plan, ledger)}


def _taken_back(plan: Plan, ledger: Ledger) -> Iterator[tuple[int, list[list[int]]]]:
    """Shards whose commit was taken back, with the rungs of each block, as far as the plan could have stepped to them."""
    numbers = {plan.shard_name(shard): shard for shard in plan.shards}
    for name, stats in ledger.of_marked(ledger.recorded, numbers):
        if stats is not None and stats.revoked and stats.executed:
            shard = numbers[name]
            # no plan steps up: a larger batch is of another plan, or of an edited file
            fits = all(1 <= rung[0] <= plan.batch for rung in stats.executed)
            if fits and len(stats.executed) == len(plan.shard(shard).blocks):
                yield shard, stats.executed


@contextmanager
def _shown(work: Work, progress: Progress) -> Iterator[None]:
    """Show `progress` of these shards."""
    samples = sum(plan.grid.num_samples for plan, _ in work)
    todo, evaluations = 0, 0.0
    for plan, shards in work:
        wanted = sum(plan.shard_size(shard) for shard in shards)
        todo += wanted
        evaluations += plan.evaluations * wanted / plan.grid.num_samples
    if not todo:
        yield
        return
    try:
        progress.begin(evaluations=round(evaluations), samples=samples, samples_done=samples - todo)
        yield
    finally:
        progress.end()
