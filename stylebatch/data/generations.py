"""Plans of an output that grew: contents or styles were added after shards were committed.

The first generation is the plan as it was; each further one renders the pairs that the grown product has and the former
ones had not: new contents with all styles, then former contents with new styles. Shard numbers go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylebatch.data.choice import UNKNOWN, Choice, Conditions
from stylebatch.data.plan import Extension, PairPlan, Plan, list_sources, plan, plan_pairs
from stylebatch.data.sources import ImageRow
from stylebatch.errors import PlanChangedError
from stylebatch.spec import RunSpec

NAMED = 3


@dataclass(frozen=True)
class History:
    """Inputs of an output with committed shards, in the order of their generations.

    `sizes`: contents and styles at each generation, ascending.
    """

    contents: tuple[ImageRow, ...]
    styles: tuple[ImageRow, ...]
    sizes: tuple[tuple[int, int], ...]


def plan_generations(
    spec: RunSpec,
    history: History | None,
    *,
    choice: Choice | None = None,
    conditions: Conditions = UNKNOWN,
) -> tuple[Plan, ...]:
    """The plan of each generation, the last one new where inputs were added.

    Only products grow; what was listed otherwise is planned as a whole and then refused where it changed.
    Raises PlanChangedError when former inputs are gone or have another label or caption.
    """
    if history is None or spec.prompts is not None or spec.pairing.mode != "product":
        return (plan(spec, choice=choice, conditions=conditions),)
    contents, styles, _ = list_sources(spec)
    contents = _grown(contents, history.contents, "contents")
    styles = _grown(styles, history.styles, "styles")
    sizes = list(history.sizes)
    if sizes[-1] != (len(contents), len(styles)):
        sizes.append((len(contents), len(styles)))
    plans: list[PairPlan] = []
    for number, (num_contents, num_styles) in enumerate(sizes):
        former = plans[-1] if plans else None
        extension = Extension(
            contents=tuple(contents[:num_contents]),
            styles=tuple(styles[:num_styles]),
            former=sizes[number - 1] if number else (0, 0),
            first_shard=former.shards.stop if former else 0,
            former_digest=former.digest if former else "",
            labels=former.labels if former else (),
        )
        chosen = former.choice if former else choice
        plans.append(plan_pairs(spec, choice=chosen, conditions=conditions, extension=extension))
        _require_same_members(plans[0], plans[-1])
    return tuple(plans)


def _grown(rows: Sequence[ImageRow], former: Sequence[ImageRow], field: str) -> list[ImageRow]:
    """`rows` with the former ones first, in their order."""
    found = {row.id: row for row in rows}
    gone = [row.id for row in former if row.id not in found]
    if gone:
        raise _changed(f"{field}: {len(gone)} of {len(former)} are gone", gone)
    kept = [found.pop(row.id) for row in former]
    other = [
        row.id
        for row, before in zip(kept, former, strict=True)
        if (row.label, row.caption) != (before.label, before.caption)
    ]
    if other:
        raise _changed(f"{field}: {len(other)} have another label or caption than before", other)
    return [*kept, *found.values()]


def _changed(what: str, ids: list[str]) -> PlanChangedError:
    named = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
    return PlanChangedError(
        f"{what} ({named}); accepted: inputs may be added to an output with committed shards, not removed, renamed "
        "or relabelled.\nNext: bring them back, or give the changed run a directory of its own with --output DIR."
    )


def _require_same_members(first: PairPlan, last: PairPlan) -> None:
    """A dataset's samples have the same members throughout."""
    for what, before, after in (
        ("labels", bool(first.labels), bool(last.labels)),
        ("captions", first.has_captions, last.has_captions),
    ):
        if before != after:
            raise PlanChangedError(
                f"contents: the added ones have {what}, the former have none, and every sample of a dataset has the same "
                "members.\nNext: give the grown run a directory of its own with --output DIR."
            )
    if first.extra_columns != last.extra_columns:
        former, now = (", ".join(one.extra_columns) or "none" for one in (first, last))
        raise PlanChangedError(
            f"inputs: with the added ones records have the further columns {now}, the former have {former} (masks and blends are "
            "recorded where there are any), and every record of a dataset has the same columns.\n"
            "Next: give the grown run a directory of its own with --output DIR."
        )
