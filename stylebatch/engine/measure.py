"""What decides `features: auto` where a cache is given: seconds of the network and bandwidth of the cache.

A few seconds in all; the outcome goes to run.json, so that a resumed run does not measure again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch

from stylebatch.engine.run_record import ComputePlace
from stylebatch.features.bandwidth import cache_room, measure_bandwidth
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.lanes import Lanes
from stylebatch.models.loading import find_device, load_model, placement
from stylebatch.planning.choice import Measurements
from stylebatch.planning.plan import Plan

SECONDS = 2.0
"""For the network; more only where a single row takes longer."""


def find_place(dtype: str, kind: str = "auto") -> ComputePlace:
    """The place of this process; `dtype` and `kind` of device as in the manifest. Half of a GPU's memory is for activations.

    Raises ManifestError where there is no such device.
    """
    device, resolved = placement(dtype, find_device(kind))
    if device.type != "cuda":
        return ComputePlace(device.type, resolved, None)
    total = torch.cuda.get_device_properties(device).total_memory
    return ComputePlace(device.type, resolved, round(total / 2**31, 1))


def measure(
    plan: Plan, *, threads: int, batch_gb: float | None, model: Denoiser | None = None
) -> Measurements:
    """Measure for `plan`, whose manifest names a cache, with `model` or the plan's. Raises CacheError when the cache fails."""
    cache = plan.spec.features.cache
    if cache is None:
        raise ValueError("features.cache: found none; accepted: a folder or fsspec URL")
    bandwidth = measure_bandwidth(cache)
    model = model or load_model(plan.spec.model, device=find_device(plan.spec.engine.device))
    with network_threads(threads), closing(lanes_of(plan, model, threads)) as lanes:
        model.lanes = lanes
        try:
            seconds = evaluation_seconds(model, plan.image_size[0], plan.batch)
        finally:
            model.lanes = None
    return Measurements(seconds, bandwidth.read, bandwidth.write, cache_room(cache), batch_gb)


def lanes_of(plan: Plan, model: Denoiser, threads: int) -> Lanes:
    """The lanes that evaluations of a plan go in: on a CPU as many as memory and threads allow."""
    on_cpu = model.device.type == "cpu" and plan.spec.model.offload == "none"
    return Lanes(plan.batches_at_once if on_cpu else 1, threads)


@contextmanager
def network_threads(count: int) -> Iterator[None]:
    """CPU threads of the network for a `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def evaluation_seconds(model: Denoiser, size: int, batch: int) -> float:
    """Least seconds per row of a network evaluation: one row, and `batch` rows where time allows."""
    side, channels = size // model.latent_factor, model.latent_channels
    cond = model.embed([""])
    timestep = model.schedule.sampling_steps(2)[1].t

    def timed(rows: int) -> float:
        latents = torch.zeros((rows, channels, side, side), device=model.device)
        started = time.perf_counter()
        model.predict_noise(latents, timestep, cond).cpu()  # waits for the device
        return (time.perf_counter() - started) / rows

    timed(1)
    best, until = timed(1), time.perf_counter() + SECONDS
    while time.perf_counter() + best * batch < until:
        best = min(best, timed(batch))
    return best
