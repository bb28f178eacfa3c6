"""What run.json is to hold: plans, what was resolved, versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stylebatch.data.sources.kinds import form_of
from stylebatch.masking import masked_values, safe_text
from stylebatch.planning.forecast import device_seconds
from stylebatch.planning.plan import Plan
from stylebatch.planning.profiles import find_profile, profiles_folder
from stylebatch.reports.card import lineage
from stylebatch.spec import RunSpec
from stylebatch.store.output_record import FORMAT, VERSION, RunRecord
from stylebatch.store.versions import versions
from stylebatch.usable_cores import usable_cores

MAX_THREADS = 8
MOST_SECONDS = 1e12


@dataclass(frozen=True)
class ComputePlace:
    """Where a worker computes: kind of device, dtype, and GiB for activations (None on a CPU, where the manifest says)."""

    device: str
    dtype: str
    batch_gb: float | None


def threads_of(spec: RunSpec) -> int:
    """CPU threads of the network; they change the last bits of floats."""
    return spec.engine.threads or min(MAX_THREADS, usable_cores())


def run_record(
    plans: Sequence[Plan], engine: str, place: ComputePlace, limit: int | None
) -> RunRecord:
    """What run.json holds."""
    plan = plans[-1]
    summary = plan.summary()
    for name in ("num_samples", "num_blocks", "num_shards", "evaluations"):
        summary[name] = sum(part.summary()[name] for part in plans)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "name": plan.spec.name,
        "digest": plan.digest,
        "identity": plan.identity,
        "axes": [axis.name for axis in plan.axes],
        "plan": summary,
        "generations": [
            {
                "first_shard": part.first_shard,
                "num_shards": part.num_shards,
                "num_rows": part.extent.rows,
                "num_columns": part.extent.columns,
                "num_cells": part.extent.cells,
                "num_classes": len(part.labels),
                "digest": part.digest,
                **_splits(part),
            }
            for part in plans
        ],
        "spec": spec_record(plan.spec),
        "model": plan.model,
        "resolved": {
            "engine": engine,
            "threads": threads_of(plan.spec),
            "device": place.device,
            "dtype": place.dtype,
            "batch_gb": plan.conditions.batch_gb,
            "measured": asdict(plan.conditions),
            **_feature_record(plan),
            **_forecast_record(plans, place),
        },
        "versions": versions(),
        "limit": limit,
        "labels": list(plan.labels),
        "lineage": masked_values([one.model_dump() for one in lineage(plan)]),
        **_annotations(plan),
    }
    # through JSON, so that it equals what a later start reads: tuples are lists there
    return RunRecord.model_validate(json.loads(json.dumps(record)))


def _splits(plan: Plan) -> dict[str, Any]:
    """How many shards each split has, where a run makes some."""
    if not plan.layout.parts:
        return {}
    return {"splits": [{"name": name, "num_shards": n} for name, n in plan.cut.by_split]}


def _annotations(plan: Plan) -> dict[str, Any]:
    """The form of annotations, which an export to files writes again, whatever the format of this output is."""
    contents = plan.sources.by_field.get("contents")
    if not plan.has_objects or contents is None:
        return {}
    return {"annotations": form_of(contents)}


def spec_record(spec: RunSpec) -> dict[str, Any]:
    """The specification without credentials."""
    found: dict[str, Any] = masked_values(spec.model_dump(mode="json"))
    address = found["engine"]["address"]
    found["engine"]["address"] = None if address is None else safe_text(address)
    return found


def _feature_record(plan: Plan) -> dict[str, Any]:
    if plan.choice is None or plan.chosen is None:
        return {}
    return {"features": asdict(plan.choice), "reason": plan.chosen.reason}


def _forecast_record(plans: Sequence[Plan], place: ComputePlace) -> dict[str, Any]:
    fingerprint, size = str(plans[-1].identity["model_fingerprint"]), min(plans[-1].window)
    profile = find_profile(
        profiles_folder(), fingerprint, size, device=place.device, dtype=place.dtype
    )
    if profile is None:
        return {}
    seconds = sum(device_seconds(plan, profile) for plan in plans)
    # of a profile that makes no sense nothing is kept, which later starts would refuse
    return {"forecast_s": round(seconds, 1)} if seconds <= MOST_SECONDS else {}
