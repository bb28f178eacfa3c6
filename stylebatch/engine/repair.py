"""Renders again what is damaged or missing in an output directory, by the plan that its run.json holds."""

from __future__ import annotations

import json
from pathlib import Path

from stylebatch.data.choice import Conditions, kept_choice
from stylebatch.data.generations import plan_generations
from stylebatch.engine.run import RunResult, run
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.progress import Progress
from stylebatch.spec import RunSpec
from stylebatch.store.inputs_record import history
from stylebatch.store.ledger import diff, read_json


def repair(output: Path, *, progress: Progress | None = None) -> RunResult:
    """Make `output` what its plan promises; sound shards are not touched, the others become the bytes they were.

    Raises ManifestError where run.json is missing or tells of a preview, PlanChangedError where inputs
    or model are no longer the same, and what `run` raises.
    """
    record = read_json(output / "run.json")
    if record is None:
        raise ManifestError(
            f"{output / 'run.json'}: missing or damaged; repair renders by it. Next: run the manifest into another "
            "directory with --output DIR"
        )
    if record.get("limit") is not None:
        raise ManifestError(
            f"{output}: found a preview of {record['limit']} pairs; accepted: a whole output. Next: remove it and run "
            "with --limit again"
        )
    spec = RunSpec.model_validate_json(json.dumps(record["spec"]))
    here = spec.output.model_copy(update={"path": str(output)})
    spec = spec.model_copy(update={"output": here})
    resolved = record["resolved"]
    choice = kept_choice(spec, resolved["features"]) if "features" in resolved else None
    conditions = Conditions(batch_gb=resolved.get("batch_gb"))
    plans = plan_generations(spec, history(output), choice=choice, conditions=conditions)
    plan = plans[-1]
    changes = diff(record["identity"], json.loads(json.dumps(plan.identity)))
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        raise PlanChangedError(
            f"{output} cannot be repaired by its own plan; these differ now:\n{lines}\n"
            "Next: bring the inputs or the model back, or render into another directory with --output DIR."
        )
    return run(spec, progress=progress, redo="damaged")
