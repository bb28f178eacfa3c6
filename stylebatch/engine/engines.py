"""Which engine runs a manifest."""

from __future__ import annotations

import os

import torch

from stylebatch.engine.local_engine import LocalEngine
from stylebatch.engine.ranks import RanksEngine, by_accelerate
from stylebatch.engine.ray_pool import RayEngine
from stylebatch.errors import ManifestError
from stylebatch.progress import Progress
from stylebatch.spec import EngineSpec

ENGINES: dict[str, type[LocalEngine]] = {
    "local": LocalEngine,
    "ray": RayEngine,
    "accelerate": RanksEngine,
}


def engine_name(spec: EngineSpec) -> str:
    """What `auto` means here: a launcher's rank, a Ray cluster, several devices, or this process alone."""
    if spec.name != "auto":
        return spec.name
    # first: a rank must not start a cluster beside the other ranks
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or by_accelerate():
        return "accelerate"
    if spec.address is not None or os.environ.get("RAY_ADDRESS"):
        return "ray"
    return "ray" if (spec.workers or torch.cuda.device_count()) > 1 else "local"


def checked_name(spec: EngineSpec) -> str:
    """As `engine_name`. Raises ManifestError for options that belong to another engine."""
    name = engine_name(spec)
    given = {
        "workers": spec.workers if name == "local" and (spec.workers or 1) > 1 else None,
        "address": spec.address if name != "ray" else None,
        "gpus_per_worker": spec.gpus_per_worker if name != "ray" else None,
        "cpus_per_worker": spec.cpus_per_worker if name != "ray" else None,
    }
    for field, value in given.items():
        if value is not None:
            raise ManifestError(
                f"engine.{field}: found {value} with engine {name}; accepted: leave it out, or engine ray"
            )
    return name


def open_engine(spec: EngineSpec, progress: Progress) -> LocalEngine:
    """The engine of `spec`, to be entered. Raises ManifestError, as `checked_name`."""
    return ENGINES[checked_name(spec)](spec, progress)
