"""What gates will cost a run, from a preview of it: its records tell how many samples were tried again, or would be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.engine.gate import Gate
from stylebatch.errors import ManifestError, StorageError
from stylebatch.folder import Folder
from stylebatch.planning.plan import Plan
from stylebatch.reports.committed import Committed
from stylebatch.reports.verdicts import ATTEMPT, REJECTED, Verdicts
from stylebatch.store.output_record import RunRecord, find_run
from stylebatch.words import counted

ALIKE = ("method", "model", "dtype", "image", "pairing")
"""What of a plan's identity a preview must have in common with it."""
PREVIEW = "-preview-"


@dataclass(frozen=True)
class GateOutlook:
    """`samples`: of the preview at `preview` that were judged, "" where there is none; `rejected`: of them at the first attempt.

    `least`, `most`: further evaluations of the run; `share`: of samples that stay rejected, None where nothing tells.
    """

    preview: str = ""
    samples: int = 0
    rejected: int = 0
    least: int = 0
    most: int = 0
    share: float | None = None
    evaluations: int = 0

    @property
    def extra(self) -> float:
        """Further work as a share of what the plan counts, in the middle of what may be."""
        return (self.least + self.most) / 2 / self.evaluations if self.evaluations else 0.0

    def summary(self) -> dict[str, Any]:
        """Plain values, for `plan --json`."""
        return {
            "preview": self.preview or None,
            "samples": self.samples,
            "rejected_at_first": self.rejected,
            "further_evaluations": [self.least, self.most] if self.preview else None,
            "rejected_share": self.share,
        }

    def line(self) -> str:
        """For a terminal."""
        if not self.samples:
            return "gates: what they cost is not known before a preview, such as `stylebatch run MANIFEST --limit 50`"
        found = f"gates: of {counted(self.samples, 'sample')} of {self.preview} {self.rejected:,} are rejected at first"
        if not self.most:
            return f"{found}; nothing would be tried again"
        share = f"{self.least / self.evaluations:.0%}"
        span = f"{self.least:,}"
        if self.most != self.least:
            share, span = (
                f"{share} to {self.most / self.evaluations:.0%}",
                f"{span} to {self.most:,}",
            )
        end = "" if self.share is None else f", after which about {self.share:.0%} stay rejected"
        return f"{found}: about {span} further evaluations ({share} more){end}"


def gate_outlook(plan: Plan) -> GateOutlook:
    """From the largest preview beside the output that was made alike; one with the plan's own gates goes first."""
    gates = plan.spec.gates
    assert gates is not None, "a plan without gates has nothing to foresee"
    best: tuple[bool, int, str, pa.Table] | None = None
    for folder, record in _previews(plan):
        had = record.identity.get("gates")
        # other gates left other pictures
        if had not in (None, gates.facts):
            continue
        try:
            table = pa.concat_tables([shard.table for shard in Committed(folder).read()])
        except (ManifestError, StorageError, OSError):
            continue
        table = table.filter(pc.not_equal(table["status"], "failed"))
        found = (had is not None, len(table), str(folder), table)
        if len(table) and (best is None or found[:3] > best[:3]):
            best = found
    if best is None:
        return GateOutlook()
    is_same, _, place, table = best
    outlook = GateOutlook(place, len(table), evaluations=plan.evaluations)
    return _tried(plan, outlook, table) if is_same else _judged(plan, outlook, table)


def _previews(plan: Plan) -> Iterator[tuple[Folder, RunRecord]]:
    parent, _, name = plan.spec.output.path.rstrip("/").rpartition("/")
    root = Folder.at(parent or ".")
    try:
        names = root.names(f"{name}{PREVIEW}")
    except (StorageError, OSError):
        return
    for one in names:
        if not one.removeprefix(f"{name}{PREVIEW}").isdecimal():
            continue
        folder = root.sub(one)
        try:
            record = find_run(folder)
        except (ManifestError, StorageError):
            continue
        if record is not None and all(
            record.identity.get(field) == plan.identity.get(field) for field in ALIKE
        ):
            yield folder, record


def _tried(plan: Plan, outlook: GateOutlook, table: pa.Table) -> GateOutlook:
    """Of a preview with the same gates: what was done is what will be."""
    verdicts = Verdicts()
    verdicts.add(table)
    further, rejected = 0, verdicts.num_rejected
    if ATTEMPT in table.column_names:
        further = pc.sum(table[ATTEMPT]).as_py() - len(table)
        at_first = pc.or_(pc.greater(table[ATTEMPT], 1), pc.equal(table["status"], REJECTED))
        rejected = pc.sum(at_first).as_py() or 0
    total = _evaluations(plan, further / len(table))
    share = verdicts.num_rejected / len(table)
    return replace(outlook, rejected=rejected, least=total, most=total, share=share)


def _judged(plan: Plan, outlook: GateOutlook, table: pa.Table) -> GateOutlook:
    """Of a preview without gates: the first rung may mend all that the rules reject, or none may."""
    gates = plan.spec.gates
    assert gates is not None, "asked of a plan with gates"
    rejected = sum(map(bool, Gate(plan).reasons(table.to_pylist())))
    each = rejected / len(table)
    attempts = gates.num_attempts - 1 if 1 - each < gates.yield_ else 0
    least = _evaluations(plan, each) if attempts else 0
    most = _evaluations(plan, each * attempts)
    share = None if attempts else each
    return replace(outlook, rejected=rejected, least=least, most=most, share=share)


def _evaluations(plan: Plan, attempts: float) -> int:
    """Evaluations of so many further attempts per sample."""
    size = replace(plan.layout.work.size, samples=1)
    return round(plan.grid.num_samples * attempts * plan.options.evaluations(size))
