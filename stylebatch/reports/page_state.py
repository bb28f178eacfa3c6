"""What a page tells of an output as a whole, beside its samples: counts, reasons, where it comes from. Plain values, for JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from stylebatch.masking import masked_values, one_line, printable
from stylebatch.reports.parameters import parameters
from stylebatch.reports.reasons import Reason
from stylebatch.store.output_record import RunRecord
from stylebatch.words import counted

MOST_REASONS = 50
MARKS_HEAD = "# Samples marked in a page of stylebatch, for `stylebatch export --drop`. Output: "
"""How a file of marks begins."""


def marks_head(run: RunRecord) -> str:
    """The first line of a file of marks: whose they are. An output that grows keeps its first plan."""
    return f"{MARKS_HEAD}{run.parts[0].digest[:16]} {one_line(run.name)}"


def summary(run: RunRecord, counts: Mapping[str, int], num_shards: int) -> Iterator[str]:
    """Short facts in a line; `counts`: committed samples by status."""
    plan = run.plan
    yield f"{counts.get('success', 0):,} of {counted(plan.num_samples, 'sample')} rendered"
    yield from (
        f"{count:,} {word}" for word, count in counts.items() if word != "success" and count
    )
    if num_shards < plan.num_shards:
        yield f"{num_shards:,} of {counted(plan.num_shards, 'shard')} committed"
    of_plan = {
        "content": plan.num_contents,
        "style": plan.num_styles,
        "image": plan.num_images,
        "prompt": plan.num_prompts,
        "set": plan.num_sets,
    }
    yield from (counted(count, noun) for noun, count in of_plan.items() if count is not None)


def facts(run: RunRecord) -> list[list[str]]:
    """Where the output comes from, as pairs of a word and a text."""
    method = run.identity.get("method")
    found = [["method", str(method.get("name", "")) if isinstance(method, dict) else ""]]
    found += [["model", run.model], ["format", run.output_format], ["plan", run.digest[:12]]]
    found += [[one.what.lower(), one.origin or "in the manifest"] for one in run.lineage]
    if run.export is not None:
        found += [["made from", f"{one.name} ({one.path})"] for one in run.export.outputs]
        found += [["condition", run.export.where]]
    shown = masked_values([pair for pair in found if pair[1]])
    return [[str(word), printable(str(text))] for word, text in shown]


def lineage(run: RunRecord, row: Mapping[str, Any]) -> list[list[str]]:
    """As `facts`, of one sample, whose `shard` is the stem of its shard's files."""
    number, parts = run.number_of(row["shard"]), run.parts
    part = next((n for n, one in enumerate(parts) if number in one.shards), 0)
    found = [["shard", str(row["shard"])]]
    if len(parts) > 1:
        found.append(["generation", f"{part + 1} of {len(parts)}, plan {parts[part].digest[:12]}"])
    found += [["from the sample", str(row["source_key"])]] if row.get("source_key") else []
    found += [["from the output", str(row["source"])]] if row.get("source") else []
    found += [["made with", made_with(row, run.option_names)]]
    return [*found, *facts(run)]


def made_with(row: Mapping[str, Any], options: Collection[str]) -> str:
    """The method and its options in words."""
    common, _ = parameters([dict(row)], options)
    return printable(common)


def reasons_told(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    """The commonest reasons why samples failed or were rejected."""
    return [
        {"code": one.code, "count": one.num_samples, "example": printable(one.example)}
        for one in reasons[:MOST_REASONS]
    ]
