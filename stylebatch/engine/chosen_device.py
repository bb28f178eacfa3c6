"""On what a run computes, in one line that also says why not on more."""

from __future__ import annotations

import os
import platform
import sys

import torch

from stylebatch.engine.measure import find_place
from stylebatch.engine.ray_here import has_ray
from stylebatch.engine.run_record import ComputePlace, threads_of
from stylebatch.spec import RunSpec
from stylebatch.usable_cores import usable_cores
from stylebatch.words import counted

APPLE_GPU = "Apple GPU"


def chosen(spec: RunSpec, engine: str) -> tuple[ComputePlace, str]:
    """The place of this process, and `device: cpu, 2 cores, float32, local engine; no CUDA device found`.

    Raises ManifestError where there is no device as `engine.device` asks.
    """
    place = find_place(spec.model.dtype, spec.engine.device)
    where = [_cores(threads_of(spec))] if place.device == "cpu" else [f"({place.device})"]
    name = "cpu," if place.device == "cpu" else device_name(torch.device(place.device))
    parts = [" ".join([name, *where]), place.dtype, _workers(spec, engine)]
    reasons = [reason for reason in (_why(place, spec, engine),) if reason]
    return place, "; ".join([f"device: {', '.join(parts)}", *reasons])


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return APPLE_GPU if device.type == "mps" else platform.processor()


def _cores(threads: int) -> str:
    cores = usable_cores()
    if threads == cores:
        return counted(cores, "core")
    return f"{counted(threads, 'thread')} on {counted(cores, 'core')}"


def _workers(spec: RunSpec, engine: str) -> str:
    """Name of the engine, and by how many processes where that is fixed."""
    if engine == "accelerate":
        return f"{engine} engine, {counted(int(os.environ.get('WORLD_SIZE', '1')), 'rank')}"
    workers = spec.engine.workers if engine == "ray" else None
    return f"{engine} engine" + (f", {counted(workers, 'worker')}" if workers else "")


def _why(place: ComputePlace, spec: RunSpec, engine: str) -> str:
    """Why no faster device, or not all of them; "" where nothing is left unused."""
    if place.device == "cuda":
        gpus = torch.cuda.device_count()
        if gpus == 1 or engine != "local" or spec.engine.name != "auto" or has_ray():
            return ""
        return f"1 of {gpus} GPUs; for all of them pip install 'stylebatch[ray]', or torchrun"
    if place.device != "cpu":
        return ""
    if spec.engine.device == "cpu":
        return "as engine.device says"
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return "accelerate was told to use no GPU (ACCELERATE_USE_CPU)"
    if torch.version.cuda is not None:
        return f"torch for CUDA {torch.version.cuda} finds no device"
    kinds = "CUDA or MPS" if sys.platform == "darwin" else "CUDA"
    return f"no {kinds} device found"
