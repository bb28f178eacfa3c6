"""`stylebatch plan`: tells what a run would do and take, and refuses what a run would refuse, with its exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from stylebatch.cli.messages import print_problem
from stylebatch.engine.admission import Standing, foreseen
from stylebatch.engine.run_record import ComputePlace, run_record
from stylebatch.errors import StylebatchError
from stylebatch.folder import Folder
from stylebatch.models.checkpoint import Checkpoint, checkpoint_to_plan
from stylebatch.planning.forecast import Forecast, forecast, require_within
from stylebatch.planning.identity import output_path
from stylebatch.planning.plan import Plan
from stylebatch.planning.profiles import find_profile, profiles_folder
from stylebatch.planning.resolve import plan as resolve
from stylebatch.planning.run_inputs import list_inputs
from stylebatch.spec import EngineSpec, RunSpec
from stylebatch.store.ledger import Ledger
from stylebatch.store.loaders import loader_hints
from stylebatch.store.lock_owner import activity
from stylebatch.store.names import STATS
from stylebatch.store.output_record import RunRecord, find_run
from stylebatch.store.previews import preview_in
from stylebatch.store.run_lock import RunLock
from stylebatch.words import counted, is_or_are

if TYPE_CHECKING:
    from stylebatch.engine.gate_outlook import GateOutlook


@dataclass(frozen=True)
class Bounds:
    """What a run may take; `price`: of a device's hour."""

    price: float | None
    max_hours: float | None
    max_bytes: float | None


@dataclass(frozen=True)
class _Outlook:
    """The plan of what would be rendered next; `shards`: of all plans, of which some are `there`."""

    plan: Plan
    there: Standing | None = None
    shards: int = 0
    gates: GateOutlook | None = None

    @property
    def has_identity(self) -> bool:
        """Whether the model's files are here."""
        return bool(self.plan.identity["model_fingerprint"])

    @property
    def committed(self) -> int:
        """Shards that are committed."""
        return 0 if self.there is None else self.shards - sum(map(len, self.there.remaining))

    def lines(self, *, retry_failed: bool) -> list[str]:
        """What is there, and what of it a run would leave."""
        if self.there is None or not self.committed:
            return []
        left, again = self.shards - self.committed, self.there.num_with_failed * retry_failed
        rest = f"a run renders {left:,} more" if left else "a run has nothing left to render"
        if again:
            rest = f"a run renders {counted(again, 'shard')} with failed samples again" + (
                f", and {left:,} more" if left else ""
            )
        done = f"{self.committed:,} of {counted(self.shards, 'shard')} {is_or_are(self.committed)} committed; {rest}"
        return [done, *filter(None, [] if retry_failed else [self.there.failed_line()])]


def tell(
    spec: RunSpec, bounds: Bounds, *, as_json: bool = False, retry_failed: bool = False
) -> None:
    """Print the plan of `spec`, and for people what a run would do that is told to `retry_failed`.

    Raises what a run would raise before it renders, after what is known was told.
    """
    _require_options(spec.engine)
    inputs = list_inputs(spec, checkpoint_to_plan)
    draft = resolve(spec, inputs=inputs)
    assert inputs.checkpoint is not None, "it was found when the inputs were listed"
    _require_model(spec, inputs.checkpoint)
    gates = _gates(draft)
    ledger = Ledger(Folder.at(draft.spec.output.path))
    ledger.former()
    outlook, refusal = _Outlook(draft), None
    try:
        _require_unlocked(ledger)
        plans, there = foreseen(draft, inputs, ledger, partial(_place, spec))
        outlook = _Outlook(plans[-1], there, sum(plan.num_shards for plan in plans))
    except StylebatchError as error:
        refusal = error
    found = _forecast(outlook.plan, inputs.checkpoint)
    if gates is not None and found.device_s is not None:
        found = replace(found, device_s=found.device_s * (1 + gates.extra))
    outlook = replace(outlook, gates=gates)
    if as_json:
        _print_json(outlook, found, bounds.price)
    else:
        _print_lines(outlook, found, bounds.price, retry_failed=retry_failed)
    # last, so that what is refused was told
    if refusal is not None:
        raise refusal
    require_within(found, bounds.max_hours, bounds.max_bytes)


def foretell(spec: RunSpec, *, limit: int | None, retry_failed: bool) -> None:
    """Print what `run` would do. Raises what it would raise before it renders."""
    if limit is None:
        tell(spec, Bounds(None, None, None), retry_failed=retry_failed)
        return
    _tell_preview(spec, limit)
    output = Folder.at(output_path(spec, limit))
    if retry_failed and find_run(output) is not None:
        ledger = Ledger(output)
        stats = ledger.of_marked(ledger.recorded, ledger.shards_with(STATS))
        failed = sum(1 for _, one in stats if one is not None and one.num_failed)
        print(f"{output}: would render {counted(failed, 'shard')} with failed samples again")


def _tell_preview(spec: RunSpec, limit: int) -> None:
    """Print the plan of a preview. Raises ManifestError or PlanChangedError where its directory holds something else."""
    _require_options(spec.engine)
    inputs = list_inputs(spec, checkpoint_to_plan)
    plan = resolve(spec, limit=limit, inputs=inputs)
    assert inputs.checkpoint is not None, "it was found when the inputs were listed"
    _require_model(spec, inputs.checkpoint)
    _gates(plan)
    ledger = Ledger(Folder.at(plan.spec.output.path))
    _require_unlocked(ledger)
    is_there = preview_in(ledger.output) is not None
    if not is_there and (former := ledger.former()) is not None:
        ledger.admit(run_record((plan,), "local", _place(spec, former), limit))
    _print_lines(_Outlook(plan), _forecast(plan, inputs.checkpoint), None)
    if is_there:
        print(f"{ledger.output}: a preview is there; it is continued, or replaced if it is another")


def _gates(draft: Plan) -> GateOutlook | None:
    """What gates will cost, None where there are none. Raises ManifestError for rules that cannot be used."""
    if draft.spec.gates is None:
        return None
    from stylebatch.engine.gate import check_gates  # imports duckdb
    from stylebatch.engine.gate_outlook import gate_outlook

    check_gates(draft)
    return gate_outlook(draft)


def _require_options(engine: EngineSpec) -> None:
    """Raise ManifestError for options that belong to another engine than a run would take."""
    given = (engine.workers, engine.address, engine.gpus_per_worker, engine.cpus_per_worker)
    if engine.name == "ray" or engine.device != "auto" or any(one is not None for one in given):
        from stylebatch.engine.engines import checked_name  # imports torch

        checked_name(engine)


def _require_model(spec: RunSpec, checkpoint: Checkpoint) -> None:
    """Raise ManifestError unless weights and LoRA files are whole and fit each other."""
    if checkpoint.is_here and not spec.model.is_embedded:
        from stylebatch.models.loading import check_model  # imports torch

        check_model(spec.model, checkpoint)


def _require_unlocked(ledger: Ledger) -> None:
    """Tell who holds the output's lock. Raises OutputLockedError where a run would."""
    lock = activity(ledger.output, ledger.former())
    if lock is not None:
        print_problem(f"{ledger.output}: {lock.text}", as_json=False)
    RunLock(ledger.output, note=partial(print_problem, as_json=False)).dead_holder()


def _place(spec: RunSpec, former: RunRecord) -> ComputePlace:
    """Where a run would compute; the nodes of a cluster are not asked, and taken for what they were."""
    from stylebatch.engine.engines import engine_name  # imports torch
    from stylebatch.engine.measure import find_place

    if engine_name(spec.engine) == "ray":
        was = former.resolved
        return ComputePlace(was.device, was.dtype, was.batch_gb)
    return find_place(spec.model.dtype, spec.engine.device)


def _forecast(plan: Plan, checkpoint: Checkpoint) -> Forecast:
    fingerprint, size = str(plan.identity["model_fingerprint"]), min(plan.window)
    profile = find_profile(profiles_folder(), fingerprint, size, dtype=plan.spec.model.dtype)
    return forecast(plan, checkpoint.family, profile)


def _print_json(outlook: _Outlook, found: Forecast, price: float | None) -> None:
    plan = outlook.plan
    summary = plan.summary() | {
        "output": plan.spec.output.path,
        "model": plan.model,
        "model_is_here": outlook.has_identity,
        "notes": [*filter(None, [plan.numbering]), *plan.notes, *loader_hints(plan)],
        "num_committed_shards": outlook.committed,
        "forecast": found.summary(price),
        **({} if outlook.gates is None else {"gates": outlook.gates.summary()}),
    }
    if not outlook.has_identity:
        del summary["digest"]
    print(json.dumps(summary, indent=1))


def _print_lines(
    outlook: _Outlook, found: Forecast, price: float | None, *, retry_failed: bool = False
) -> None:
    plan, output = outlook.plan, outlook.plan.spec.output.path
    if plan.first_shard:
        print(
            f"{output} keeps {plan.first_shard} shards of earlier inputs; for the inputs added since:"
        )
    gates = [] if outlook.gates is None else [outlook.gates.line()]
    lines = [*plan.lines(), *gates, *found.lines(price), *loader_hints(plan)]
    print("\n".join(lines))
    # a plan without the model's files has no identity
    print(f"output: {output}" + f" (plan {plan.digest[:16]})" * outlook.has_identity)
    for line in outlook.lines(retry_failed=retry_failed):
        print(f"{output}: {line}")
