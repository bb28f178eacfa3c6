"""A whole run: plan, lock, resume, render what remains, derive the reports.

1. The plan is resolved; the output directory is locked; run.json is written, or compared with the one
   that is there (a changed plan is refused).
2. Shards that lack a commit are rendered by the engine.
3. From the records alone: errors.parquet, dataset card, contact sheet, gallery.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from stylebatch.card import write_card
from stylebatch.data.choice import Conditions, kept_choice, needs_measuring
from stylebatch.data.generations import History, plan_generations
from stylebatch.data.plan import PairPlan, Plan, output_path, plan_pairs
from stylebatch.data.plan import plan as resolve
from stylebatch.engine.engines import open_engine
from stylebatch.engine.local import LocalEngine
from stylebatch.engine.measure import Place, find_place
from stylebatch.engine.shards import HOPELESS, Executed, HopelessError
from stylebatch.engine.tracking import tracked
from stylebatch.errors import Interrupted, PlanChangedError
from stylebatch.manifest import check_inputs
from stylebatch.progress import Progress
from stylebatch.reports.report import Report, report
from stylebatch.spec import RunSpec
from stylebatch.store.inputs_record import history, remember
from stylebatch.store.ledger import Ledger, diff, read_json
from stylebatch.store.run_lock import RunLock
from stylebatch.store.verify import verify

MAX_THREADS = 8
_LIBRARIES = (
    "stylebatch",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "pillow",
    "pyarrow",
    "webdataset",
)


@dataclass(frozen=True)
class RunResult:
    """What a run did. `exit_code`: 3 when a shard lacks its commit or too many samples failed, else 0.

    `poisoned`: shards that failed too often and were left out, with the reason.
    """

    output: Path
    num_pairs: int
    num_attempted: int
    num_resumed_shards: int
    seconds: float
    report: Report
    max_failed_fraction: float
    poisoned: dict[str, str]

    @property
    def exit_code(self) -> int:
        incomplete = self.report.num_shards_committed < self.report.num_shards
        too_many_failed = self.report.num_failed > self.max_failed_fraction * self.num_pairs
        return 3 if incomplete or too_many_failed else 0

    def problems(self) -> list[str]:
        """Why the exit code is not 0, one reason a line, with the next step."""
        lines = [
            f"shard {name} was left out: {reason}; details in {self.output / 'metadata' / f'{name}_poison.json'}; "
            "run the same command again to retry it"
            for name, reason in self.poisoned.items()
        ]
        failed = self.report.num_failed
        if failed > self.max_failed_fraction * self.num_pairs:
            lines.append(
                f"{failed} of {self.num_pairs} samples failed, more than max_failed_fraction {self.max_failed_fraction:g} "
                f"allows; reasons in {self.output / 'metadata' / 'errors.parquet'}"
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
) -> RunResult:
    """Render `spec` into its output directory, or continue an interrupted run of the same plan.

    `limit`: a preview of that many pairs, in a directory of its own (`OUTPUT-preview-LIMIT`). Raises
    ManifestError, OutputLockedError, PlanChangedError, StorageError (see their exit codes), and
    Interrupted on SIGINT or SIGTERM, with nothing partial committed.
    """
    progress = tracked(progress or Progress(), spec, output_path(spec, limit))
    check_inputs(spec)
    with interruptible(), open_engine(spec.engine, progress) as engine:
        followed: RunResult | None = engine.follow()
        if followed is not None:
            return followed
        result = _lead(spec, limit, engine, progress, redo)
        engine.conclude(result)
        return result


def _lead(
    spec: RunSpec, limit: int | None, engine: LocalEngine, progress: Progress, redo: Redo
) -> RunResult:
    """The run itself, in the process that plans."""
    draft = resolve(spec, limit=limit)
    output = Path(draft.spec.output.path)
    with RunLock(output, note=progress.note):
        ledger = Ledger(output)
        place = engine.call(partial(find_place, spec.model.dtype))
        plan = _settle(spec, limit, draft, ledger, engine, place, progress)
        plans = (plan,) if limit is not None else _generations(plan, history(output))
        present = _run_record(plans, engine.name, place) | {"limit": limit}
        record = ledger.open(present)
        if isinstance(plans[-1], PairPlan):
            remember(output, plans[-1].contents, plans[-1].styles)
        ledger.forgive()
        executed = _revoke(plans, ledger, redo)
        work = [(plan, _remaining(plan, ledger)) for plan in plans]
        total = sum(plan.num_shards for plan in plans)
        done = total - sum(len(shards) for _, shards in work)
        if done:
            _require_same_arithmetic(output, record, present)
            progress.note(f"Resuming {output}: {done} of {total} shards are committed")
        started = time.monotonic()
        with _shown(work, progress):
            for plan, shards in work:
                if shards:
                    threads = int(record["resolved"]["threads"])
                    engine.render(plan, output, shards, threads=threads, executed=executed)
        seconds = time.monotonic() - started
        ledger.sweep()
        _require_some(ledger)
        finished = report(output)
        version = _version("stylebatch")
        write_card(plans[-1], output, num_samples=finished.num_success, version=version)
        poisoned = {name: str(facts["reason"]) for name, facts in ledger.poisoned().items()}
    num_pairs = sum(plan.grid.num_pairs for plan in plans)
    num_attempted = sum(plan.shard_size(shard) for plan, shards in work for shard in shards)
    allowed = plan.spec.max_failed_fraction
    return RunResult(output, num_pairs, num_attempted, done, seconds, finished, allowed, poisoned)


def _require_some(ledger: Ledger) -> None:
    """Raise HopelessError where shards were left out and there is none to report on."""
    poisoned = list(ledger.poisoned().values())
    if poisoned and not any((ledger.output / "metadata").glob("*_stats.json")):
        attempts, reason = poisoned[0]["attempts"], poisoned[0]["reason"]
        raise HopelessError(HOPELESS.format(count=len(poisoned), attempts=attempts, reason=reason))


def _generations(plan: Plan, former: History | None) -> tuple[Plan, ...]:
    """The plans of an output that may have grown; one in most runs."""
    if former is None:
        return (plan,)
    return plan_generations(plan.spec, former, choice=plan.choice, conditions=plan.conditions)


def _remaining(plan: Plan, ledger: Ledger) -> list[int]:
    """Shards without a commit."""
    return [i for i in plan.shards if ledger.stats(plan.shard_name(i), plan.digest) is None]


def _settle(
    spec: RunSpec,
    limit: int | None,
    draft: Plan,
    ledger: Ledger,
    engine: LocalEngine,
    place: Place,
    progress: Progress,
) -> Plan:
    """The plan with feature sources and batch as an earlier start chose them, or as chosen now."""
    resolved = (read_json(ledger.run_path) or {}).get("resolved", {})
    choice = kept_choice(draft.spec, resolved.get("features")) if draft.choice else None
    batch_gb = resolved.get("batch_gb", place.batch_gb)
    conditions = Conditions(batch_gb=batch_gb)
    if choice is None and needs_measuring(spec):
        trial = plan_pairs(spec, limit=limit, conditions=conditions)
        conditions = engine.measure(trial, threads=threads_of(spec), batch_gb=batch_gb)
    same = conditions == draft.conditions and choice in (None, draft.choice)
    plan = draft if same else resolve(spec, limit=limit, choice=choice, conditions=conditions)
    for reason in plan.reasons if choice is None else ():
        progress.note(reason)
    return plan


def threads_of(spec: RunSpec) -> int:
    """CPU threads of the network; they change the last bits of floats."""
    return spec.engine.threads or min(MAX_THREADS, os.cpu_count() or 1)


def _revoke(plans: Sequence[Plan], ledger: Ledger, redo: Redo) -> Executed:
    """Take back the commits of shards that are to be made again; the rungs that damaged ones were made at."""
    executed: Executed = {}
    damaged: set[int | None] = set()
    if redo == "damaged":
        damaged = {problem.shard for problem in verify(ledger.output)}
    for plan in plans if redo != "nothing" else ():
        for shard in plan.shards:
            name = plan.shard_name(shard)
            if redo == "damaged" and shard in damaged:
                marker = read_json(ledger.output / "metadata" / f"{name}_stats.json") or {}
                executed[shard] = marker.get("executed", [])
                ledger.revoke(name)
            elif redo == "failed":
                stats = ledger.stats(name, plan.digest)
                if stats is not None and stats["num_failed"]:
                    ledger.revoke(name)
    return executed


@contextmanager
def _shown(work: Sequence[tuple[Plan, list[int]]], progress: Progress) -> Iterator[None]:
    """Show `progress` of these shards."""
    samples = sum(plan.grid.num_pairs for plan, _ in work)
    todo, evaluations = 0, 0.0
    for plan, shards in work:
        wanted = sum(plan.shard_size(shard) for shard in shards)
        todo += wanted
        evaluations += plan.evaluations * wanted / plan.grid.num_pairs
    if not todo:
        yield
        return
    progress.begin(evaluations=round(evaluations), samples=samples, samples_done=samples - todo)
    try:
        yield
    finally:
        progress.end()


def _require_same_arithmetic(output: Path, former: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise PlanChangedError when committed shards were computed on another kind of device or dtype."""
    fields = ("device", "dtype")
    before, after = ({name: run["resolved"].get(name) for name in fields} for run in (former, now))
    changes = diff(before, after)
    if changes:
        raise PlanChangedError(
            f"{output} holds shards that were computed otherwise: {'; '.join(changes)}.\n"
            "Next: continue on the same kind of device, set model.dtype to the former dtype, or give this "
            "run a directory of its own with --output DIR."
        )


def _run_record(plans: Sequence[Plan], engine: str, place: Place) -> dict[str, Any]:
    """What run.json holds. `identity` and `digest` decide about resuming; `resolved` is kept on resume."""
    plan = plans[-1]
    summary = plan.summary()
    for name in ("num_pairs", "num_blocks", "num_shards", "evaluations"):
        summary[name] = sum(part.summary()[name] for part in plans)
    return {
        "name": plan.spec.name,
        "digest": plan.digest,
        "identity": plan.identity,
        "plan": summary,
        "generations": [
            {
                "first_shard": part.first_shard,
                "num_shards": part.num_shards,
                "num_contents": part.totals[0],
                "num_styles": part.totals[1],
                "digest": part.digest,
            }
            for part in plans
        ],
        "spec": plan.spec.model_dump(mode="json"),
        "model": plan.model,
        "resolved": {
            "engine": engine,
            "threads": threads_of(plan.spec),
            "device": place.device,
            "dtype": place.dtype,
            "batch_gb": plan.conditions.batch_gb,
            "measured": asdict(plan.conditions),
            **_feature_record(plan),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _LIBRARIES},
        },
    }


def _feature_record(plan: Plan) -> dict[str, Any]:
    if not isinstance(plan, PairPlan):
        return {}
    return {"features": asdict(plan.choice), "reason": plan.chosen.reason}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`; a second signal acts as usual. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, former[signal.Signals(signum)])
        raise Interrupted(signum)

    former = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    for sig in former:
        signal.signal(sig, interrupt)
    try:
        yield
    except SystemError as error:
        if isinstance(
            error.__cause__, Interrupted
        ):  # what Ray makes of one that falls into its waiting
            raise error.__cause__ from None
        raise
    finally:
        for sig, handler in former.items():
            signal.signal(sig, handler)
