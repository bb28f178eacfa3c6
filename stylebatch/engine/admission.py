"""Whether an output takes a plan: what `run` asks before it renders, and `plan` tells before anybody runs. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from stylebatch.engine.input_files import require_rows_as_before, require_unchanged
from stylebatch.engine.run_record import ComputePlace, run_record, spec_record
from stylebatch.errors import PlanChangedError
from stylebatch.folder import Folder
from stylebatch.planning.choice import FeatureSources, Measurements, kept_choice
from stylebatch.planning.growth import plan_generations
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve
from stylebatch.planning.run_inputs import Inputs
from stylebatch.planning.ways_out import elsewhere, ways_out
from stylebatch.spec import RunSpec
from stylebatch.store.fingerprints import Survey, survey
from stylebatch.store.inputs_record import history
from stylebatch.store.ledger import Ledger, diff, is_replaced
from stylebatch.store.output_record import RunRecord, read_run
from stylebatch.words import counted


def admitted(
    ledger: Ledger, plans: Sequence[Plan], present: RunRecord, *, mending: bool = False
) -> tuple[RunRecord, Survey | None]:
    """The record that the output goes on with, and what is known of the bytes of its inputs, None where nothing is.

    `present`: the record of `plans`; `mending`: as `Ledger.admit`. Raises PlanChangedError where it holds another plan,
    InputChangedError where files have other bytes than committed shards were made of.
    """
    former = ledger.former()
    record = ledger.admit(present, mending=mending)
    if former is None or is_replaced(former, record) or not ledger.has_commits:
        return record, None
    known = survey(ledger, shard_names(plans))
    require_unchanged(plans[-1], ledger.output, known.known)
    for plan in plans:
        require_rows_as_before(plan, ledger.output, known.known, known.stats)
    return record, known


def kept(
    spec: RunSpec, former: RunRecord | None, place: ComputePlace
) -> tuple[FeatureSources | None, Measurements]:
    """Where features come from and the memory for activations, as an earlier start chose them, else as is there."""
    choice, batch_gb = None, place.batch_gb
    if former is not None:
        if spec.options.keeps_features:
            choice = kept_choice(spec, former.resolved.features)
        if "batch_gb" in former.resolved.model_fields_set:
            batch_gb = former.resolved.batch_gb
    return choice, Measurements(batch_gb=batch_gb)


def generations(plan: Plan, output: Folder, inputs: Inputs) -> tuple[Plan, ...]:
    """The plans of an output that may have grown; one in most runs. Raises PlanChangedError for what growth does not allow."""
    former = history(output)
    if former is None:
        return (plan,)
    try:
        return plan_generations(
            plan.spec, former, choice=plan.choice, conditions=plan.conditions, inputs=inputs
        )
    except PlanChangedError as error:
        recorded = read_run(output).spec
        raise error.offering(*ways_out(output, recorded, spec_record(plan.spec))) from None


class Standing(NamedTuple):
    """Of the shards of some plans. `remaining`: without a commit, plan by plan; `num_failed`: samples of the others, in so many shards."""

    remaining: list[list[int]]
    num_failed: int
    num_with_failed: int

    def failed_line(self) -> str:
        """What a run does about samples that failed before; "" where there are none."""
        if not self.num_failed:
            return ""
        failed = counted(self.num_failed, "sample")
        shards = counted(self.num_with_failed, "committed shard")
        return (
            f"{failed} in {shards} failed before; a run leaves them so. "
            "Where their inputs were mended, --retry-failed renders these shards again"
        )


def standing(plans: Sequence[Plan], ledger: Ledger) -> Standing:
    """Which shards of the plans are committed, and how much of these failed."""
    left: list[list[int]] = []
    failed: list[int] = []
    for plan in plans:
        asked = ledger.of_marked(
            partial(ledger.stats, plan_digest=plan.digest), map(plan.shard_name, plan.shards)
        )
        committed = {name: stats.num_failed for name, stats in asked if stats is not None}
        left.append([i for i in plan.shards if plan.shard_name(i) not in committed])
        failed += filter(None, committed.values())
    return Standing(left, sum(failed), len(failed))


def shard_names(plans: Iterable[Plan]) -> Iterator[str]:
    """Names of the shards of all generations."""
    return (plan.shard_name(shard) for plan in plans for shard in plan.shards)


def require_same_arithmetic(output: Folder, former: RunRecord, now: RunRecord) -> None:
    """Raise PlanChangedError when committed shards were computed on another kind of device or dtype."""
    before, after = (
        {"device": run.resolved.device, "dtype": run.resolved.dtype} for run in (former, now)
    )
    changes = diff(before, after)
    if changes:
        raise PlanChangedError(
            f"{output} holds shards that were computed otherwise: {'; '.join(changes)}"
        ).offering(
            f"continue on {before['device']} in {before['dtype']}: {{run}} --set model.dtype={before['dtype']}",
            elsewhere(output),
        )


def foreseen(
    draft: Plan, inputs: Inputs, ledger: Ledger, find_place: Callable[[RunRecord], ComputePlace]
) -> tuple[tuple[Plan, ...], Standing | None]:
    """The plans that a run would render now, `draft` where nothing is there yet, and what of them is there already.

    `find_place`: where a run would compute. Raises what a run would raise.
    """
    former = ledger.former()
    if former is None:
        return (draft,), None
    if inputs.checkpoint is not None and not inputs.checkpoint.is_here:
        # without its weights no plan has a run's identity, so that there is nothing to compare
        return generations(draft, ledger.output, inputs), None
    place = find_place(former)
    choice, conditions = kept(draft.spec, former, place)
    plan = draft
    if conditions != draft.conditions or choice not in (None, draft.choice):
        plan = resolve(draft.spec, choice=choice, conditions=conditions, inputs=inputs)
    plans = generations(plan, ledger.output, inputs)
    present = run_record(plans, former.resolved.engine, place, None)
    record, _ = admitted(ledger, plans, present)
    found = standing(plans, ledger)
    if sum(map(len, found.remaining)) < sum(plan.num_shards for plan in plans):
        require_same_arithmetic(ledger.output, record, present)
    return plans, found
