"""Renders again what is damaged or missing in an output directory, by the plan that its run.json holds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from stylebatch.engine.run import RunResult, run
from stylebatch.errors import ManifestError, OutputLockedError, PlanChangedError
from stylebatch.folder import Folder, Place
from stylebatch.manifest import recorded_spec
from stylebatch.masking import MASK, masked_values
from stylebatch.planning.choice import Measurements, kept_choice
from stylebatch.planning.growth import plan_generations
from stylebatch.planning.run_inputs import Inputs, list_inputs
from stylebatch.planning.ways_out import elsewhere
from stylebatch.progress import Progress
from stylebatch.spec import RunSpec
from stylebatch.store.inputs_record import history
from stylebatch.store.ledger import diff
from stylebatch.store.lock_owner import activity
from stylebatch.store.output_record import RUN, read_run


def repair(output: Place, *, progress: Progress | None = None) -> RunResult:
    """Make `output` what its plan promises; sound shards are not touched, the others become the bytes they were.

    Raises as `require_repairable`, and what `run` raises.
    """
    spec, inputs = require_repairable(output)
    with _reachable(spec) as spec:
        return run(spec, progress=progress, redo="damaged", inputs=inputs)


def require_repairable(output: Place) -> tuple[RunSpec, Inputs]:
    """The specification and the inputs that an output is repaired by. Writes nothing.

    Raises ManifestError where run.json is missing, damaged or tells of a preview, OutputLockedError where a run is writing,
    PlanChangedError where inputs or model are no longer the same.
    """
    output = Folder.at(output)
    record = read_run(output)
    lock = activity(output, record)
    if lock is not None and lock.is_live:
        raise OutputLockedError(
            f"{output} cannot be repaired: {lock.text}. Next: wait for it or stop it, and repair then"
        )
    if record.limit is not None:
        raise ManifestError(
            f"{output}: found a preview of {record.limit} samples; accepted: a whole output. Next: "
            f"stylebatch run MANIFEST --limit {record.limit}, which renders what is damaged anew"
        )
    spec = recorded_spec(record.spec, output.where(RUN))
    here = spec.output.model_copy(update={"path": str(output)})
    # a port that is taken now would stand in the way, and nobody could give another
    engine = spec.engine.model_copy(update={"metrics_port": None})
    spec = spec.model_copy(update={"output": here, "engine": engine})
    resolved = record.resolved
    choice = None if resolved.features is None else kept_choice(spec, resolved.features)
    conditions = Measurements(batch_gb=resolved.batch_gb)
    inputs = list_inputs(spec)
    try:
        plans = plan_generations(
            spec, history(output), choice=choice, conditions=conditions, inputs=inputs
        )
    except PlanChangedError as error:
        raise error.offering("bring the inputs back as they were", elsewhere(output)) from None
    plan = plans[-1]
    # masked as run.json is: credentials are no difference
    changes = diff(record.identity, masked_values(json.loads(json.dumps(plan.identity))))
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        raise PlanChangedError(
            f"{output} cannot be repaired by its own plan; these differ now:\n{lines}\n"
            "Next: bring the inputs or the model back, or render into another directory with --output DIR."
        )
    return spec, inputs


@contextmanager
def _reachable(spec: RunSpec) -> Iterator[RunSpec]:
    """`spec`, with a temporary cache in place of one whose credentials run.json does not keep: its styles are the same bytes."""
    if MASK not in (spec.features.cache or ""):
        yield spec
        return
    with tempfile.TemporaryDirectory(prefix="stylebatch-styles-") as folder:
        features = spec.features.model_copy(update={"cache": folder})
        yield spec.model_copy(update={"features": features})
