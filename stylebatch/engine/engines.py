"""Which engine runs a manifest."""

from __future__ import annotations

import os

import torch

from stylebatch.engine.local_engine import LocalEngine
from stylebatch.engine.ranks import RanksEngine, by_accelerate
from stylebatch.engine.ray_here import has_ray, require_ray
from stylebatch.engine.ray_pool import RayEngine
from stylebatch.errors import ManifestError
from stylebatch.models.loading import find_device
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
    if spec.workers is not None:
        return "ray" if spec.workers > 1 else "local"
    # several GPUs without Ray: one of them works, and the first line of the run says so
    return "ray" if torch.cuda.device_count() > 1 and has_ray() else "local"


def checked_name(spec: EngineSpec) -> str:
    """As `engine_name`. Raises ManifestError for options that belong to another engine, and where Ray is asked for but missing."""
    name = engine_name(spec)
    if name == "ray":
        require_ray(f"engine {_asked(spec)}", "engine local, or torchrun (docs/cluster.md)")
    if name == "local":
        find_device(spec.device)  # raises early; workers of a cluster have devices of their own
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


def _asked(spec: EngineSpec) -> str:
    """Which option asked for Ray."""
    if spec.name == "ray":
        return "ray"
    if spec.workers is not None and spec.workers > 1:
        return f"with workers {spec.workers}"
    return f"with address {spec.address or os.environ.get('RAY_ADDRESS')}"


def open_engine(spec: EngineSpec, progress: Progress) -> LocalEngine:
    """The engine of `spec`, to be entered. Raises ManifestError, as `checked_name`."""
    return ENGINES[checked_name(spec)](spec, progress)
