"""Plans of an output that grew: inputs were added after shards were committed.

The first generation is the plan as it was; each further one renders what the grown inputs ask for and the former ones did not:
of a product new rows with all columns, then former rows with new columns; of a list its new cells; of samples new rows, which
draw from all columns; of sets new prompts, beside the reference that their set has. Shard numbers go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stylebatch.data.rows import Cell, Diagonal
from stylebatch.data.sources.source import ClassList
from stylebatch.errors import PlanChangedError
from stylebatch.planning.axes import Axis, ImageAxis, former_splits
from stylebatch.planning.choice import UNKNOWN, FeatureSources, Measurements
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import FIRST, Extension, in_splits, plan
from stylebatch.planning.run_inputs import Inputs, list_inputs
from stylebatch.planning.work import Extent
from stylebatch.spec import RunSpec
from stylebatch.words import counted, is_or_are

NAMED = 3
CellFacts = tuple[str, str, str, str]
"""Ids of row and column, label, caption."""


@dataclass(frozen=True)
class History:
    """Inputs of an output with committed shards, in the order of their generations.

    `facts`: of each axis the things along it, as `Axis.facts` gives them; `cells`: those that were listed, else None.
    `extents`: how much each generation covered, ascending; `classes`: those of each, None where they are numbered by name.
    """

    facts: tuple[tuple[tuple[str, ...], ...], ...]
    cells: tuple[CellFacts, ...] | None
    extents: tuple[Extent, ...]
    classes: tuple[tuple[str, ...] | None, ...]


def plan_generations(
    spec: RunSpec,
    history: History | None,
    *,
    choice: FeatureSources | None = None,
    conditions: Measurements = UNKNOWN,
    inputs: Inputs | None = None,
) -> tuple[Plan, ...]:
    """The plan of each generation, the last one new where inputs were added. `inputs`: else listed now.

    Raises PlanChangedError when former inputs are gone or other than they were.
    """
    if inputs is None:
        inputs = list_inputs(spec)
    if history is None:
        return (plan(spec, choice=choice, conditions=conditions, inputs=inputs),)
    kept = [former_splits(facts) for facts in history.facts]
    inputs = grown(in_splits(spec, inputs, kept), history)
    whole = Extent(*inputs.counts, len(inputs.listed or ()))
    # each earlier generation is planned from the inputs that it had, so that its digest comes out as recorded
    extents = list(history.extents)
    if _renders_more(spec, inputs, extents[-1], whole):
        extents.append(whole)
    plans: list[Plan] = []
    for number, extent in enumerate(extents):
        former = plans[-1] if plans else None
        extension = (
            FIRST
            if former is None
            else Extension(extents[number - 1], former.shards.stop, former.digest, former.labels)
        )
        plans.append(
            plan(
                spec,
                choice=former.choice if former else choice,
                conditions=conditions,
                inputs=_numbered(_first_of(inputs, extent), history.classes[number : number + 1]),
                extension=extension,
            )
        )
        _require_same_members(plans[0], plans[-1])
    return tuple(plans)


def _renders_more(spec: RunSpec, inputs: Inputs, former: Extent, whole: Extent) -> bool:
    """Whether what was added asks for samples: columns alone do in a product only."""
    if inputs.listed is not None:
        return whole.cells > former.cells
    grows_by_columns = spec.pairing.mode == "product" and inputs.set_of is None
    return whole.rows > former.rows or (grows_by_columns and whole.columns > former.columns)


def _numbered(inputs: Inputs, recorded: Sequence[tuple[str, ...] | None]) -> Inputs:
    """The inputs of a generation with the class numbers that were recorded of it; of a new one the source's own."""
    if not recorded:
        return inputs
    classes = recorded[0]
    lists = () if classes is None else (ClassList("", tuple(enumerate(classes))),)
    return replace(inputs, class_lists=lists)


def _first_of(inputs: Inputs, extent: Extent) -> Inputs:
    """The inputs that a generation had."""
    sizes = (extent.rows, extent.columns)
    axes = tuple(
        axis if len(axis) == size else axis.chosen(range(size))
        for axis, size in zip(inputs.axes, sizes, strict=False)
    )
    listed = None if inputs.listed is None else inputs.listed[: extent.cells]
    set_of = None if inputs.set_of is None else inputs.set_of[: extent.rows]
    return replace(inputs, axes=axes, listed=listed, set_of=set_of)


def grown(inputs: Inputs, history: History) -> Inputs:
    """`inputs` with the former ones first, in their order. Raises PlanChangedError where some are gone or changed."""
    if len(history.facts) != len(inputs.axes) or (history.cells is None) != (inputs.listed is None):
        raise PlanChangedError(
            "pairing, method: inputs are combined in another way than before; accepted: an output goes on as it was begun"
        )
    _require_splits_as_before(inputs.axes[0], history.facts[0])
    found = [
        axis.as_planned(former) if isinstance(axis, ImageAxis) else axis
        for axis, former in zip(inputs.axes, history.facts, strict=True)
    ]
    orders = [_order(axis, former) for axis, former in zip(found, history.facts, strict=True)]
    axes = tuple(
        axis if list(order) == list(range(len(axis))) else axis.chosen(order)
        for axis, order in zip(found, orders, strict=True)
    )
    places = [{old: new for new, old in enumerate(order)} for order in orders]
    set_of, listed = inputs.set_of, inputs.listed
    if set_of is not None:
        set_of = tuple(places[1][set_of[old]] for old in orders[0])
    # pairs of zip stay arithmetic where nothing moved
    is_zip = isinstance(listed, Diagonal) and axes == inputs.axes
    if listed is not None and history.cells is not None and not is_zip:
        moved = [
            replace(cell, row=places[0][cell.row], column=places[1][cell.column]) for cell in listed
        ]
        listed = _grown_cells(axes, moved, history.cells)
    return replace(inputs, axes=axes, listed=listed, set_of=set_of)


def _require_splits_as_before(axis: Axis, former: Sequence[tuple[str, ...]]) -> None:
    had_splits = bool(former_splits(former))
    if had_splits != bool(axis.splits):
        was, now = ("splits", "none") if had_splits else ("no splits", "some")
        raise PlanChangedError(
            f"split: the output has {was}, and the manifest makes {now}; accepted: an output goes on as it was begun"
        )


def _order(axis: Axis, former: Sequence[tuple[str, ...]]) -> list[int]:
    """Places of the axis, the former things first, in their order; the new ones in the axis's own."""
    facts = list(axis.facts())
    places = {one[0]: place for place, one in enumerate(facts)}
    field = f"{axis.name}s"
    gone = [one[0] for one in former if one[0] not in places]
    if gone:
        raise _changed(
            f"{field}: {len(gone):,} of {len(former):,} {is_or_are(len(gone))} gone", gone
        )
    other = [one[0] for one in former if facts[places[one[0]]] != one]
    if other:
        what = "with another label, caption, split, size or option than before"
        raise _changed(f"{field}: {len(other):,} {what}", other)
    # former inputs first, wherever they stand now: their numbers are in committed shards
    kept = [places[one[0]] for one in former]
    seen = set(kept)
    return [*kept, *(place for place in range(len(facts)) if place not in seen)]


def _grown_cells(
    axes: Sequence[Axis], cells: Sequence[Cell], former: Sequence[CellFacts]
) -> tuple[Cell, ...]:
    """Cells with the former ones first, in their order: a list may be shuffled, and gains rows anywhere."""
    ids = [[one[0] for one in axis.facts()] for axis in axes]
    waiting: dict[CellFacts, list[Cell]] = {}
    for cell in reversed(cells):  # so that `pop` takes the first of equal cells
        facts = (ids[0][cell.row], ids[1][cell.column], cell.label, cell.caption)
        waiting.setdefault(facts, []).append(cell)
    gone = [
        f"{one[0]} with {one[1]}"
        for one, n in Counter(former).items()
        if len(waiting.get(one, ())) < n
    ]
    if gone:
        raise _changed(
            f"pairing: {counted(len(gone), 'row')} gone, or with another label or caption", gone
        )
    kept = [waiting[one].pop() for one in former]
    # by identity: cells that are equal may stand in the list several times
    left = Counter(id(cell) for group in waiting.values() for cell in group)
    added = (cell for cell in cells if id(cell) in left)
    return tuple(replace(cell, number=i) for i, cell in enumerate((*kept, *added), 1))


def _changed(what: str, ids: list[str]) -> PlanChangedError:
    named = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
    named = named.replace("\0", " under ")  # an image and its mask
    return PlanChangedError(
        f"{what} ({named}); accepted: inputs may be added to an output with committed shards, not removed, renamed "
        "or relabelled"
    )


def _require_same_members(first: Plan, last: Plan) -> None:
    """A dataset's samples have the same members throughout."""
    for what, before, after in (
        ("labels", bool(first.labels), bool(last.labels)),
        ("captions", first.has_captions, last.has_captions),
    ):
        if before != after:
            raise PlanChangedError(
                f"{first.axes[0].name}s: the added ones have {what}, the former have none, and every sample of a dataset has the same "
                "members"
            )
    # columns of records are fixed by what inputs use; a reader of all shards needs one schema
    former, now = (
        (
            *plan.input_columns,
            *plan.options.record_types(blends=plan.has_blends),
            *(f"{one.column} ({one.kind})" for one in plan.carried),
        )
        for plan in (first, last)
    )
    if former != now:
        named = [
            ", ".join(sorted(set(one) - set(other))) or "none"
            for one, other in ((now, former), (former, now))
        ]
        raise PlanChangedError(
            f"inputs: with the added ones records have the further columns {named[0]}, the former have {named[1]} (masks and blends are "
            "recorded where there are any), and every record of a dataset has the same columns"
        )
