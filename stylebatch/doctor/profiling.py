"""Measures a `Profile`: what this device does with a model in a second, by which plans tell hours."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from statistics import median

import torch
from torch import Tensor

from stylebatch.data.image_section import ImageFormat
from stylebatch.data.images import encode, fit
from stylebatch.data.pictures.decoding import decode
from stylebatch.doctor.prediction import picture
from stylebatch.engine.chosen_device import device_name
from stylebatch.methods.pixels import to_pixels
from stylebatch.methods.prompted import embedded
from stylebatch.methods.stylealigned.algorithm import Reference, StyleAligned
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.lanes import Lanes
from stylebatch.planning.profiles import Profile
from stylebatch.quality.measures import measured
from stylebatch.quality.reduction import Reduction

SECONDS = 1.5
"""For each figure; more only where one repetition takes longer."""
FEWEST = 3
"""Repetitions of each figure."""


@torch.inference_mode()
def profile_of(
    model: Denoiser,
    name: str,
    *,
    size: int,
    batch: int,
    lanes: int,
) -> Profile:
    """Measure a loaded model for pictures of `size` px. `lanes`: evaluations side by side, as a run on this device has them.

    The caller fills in the fingerprint, and how long loading took.
    """
    threads = torch.get_num_threads()
    counts = [rows for rows in (1, 2, 4, 8, 16, 32, 64) if rows < batch] + [batch]
    with closing(Lanes(lanes if model.device.type == "cpu" else 1, threads)) as side_by_side:
        model.lanes = side_by_side
        try:
            row_s = {rows: _row_seconds(model, size, rows) for rows in counts}
            related_row_s = row_s
            if model.num_self_attentions:
                beside = sorted({*counts, side_by_side.count * batch})
                related_row_s = {
                    rows: _related_row_seconds(model, size, rows, batch) for rows in beside
                }
        finally:
            model.lanes = None
    # after the rows: the first evaluations warm the device up
    latents = model.encode(picture(size))
    on_device = model.device.type != "cpu"
    return Profile(
        model=name,
        fingerprint="",
        device=model.device.type,
        name=device_name(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=threads,
        size=size,
        row_s=row_s,
        related_row_s=related_row_s,
        encode_s=_typical(lambda: model.encode(picture(size))),
        decode_s=_typical(lambda: model.decode(latents)),
        # beside a GPU the CPU does this while the next block is rendered
        sample_s=0.0 if on_device else _typical(partial(_outside_the_network, size)),
        load_s=0.0,
        measured=datetime.date.today().isoformat(),
    )


def _row_seconds(model: Denoiser, size: int, rows: int) -> float:
    side, channels = size // model.latent_factor, model.latent_channels
    cond = model.embed([""])
    timestep = model.schedule.sampling_steps(2)[1].t
    latents = torch.zeros((rows, channels, side, side), device=model.device)
    return _typical(lambda: model.predict_noise(latents, timestep, cond)) / rows


def _related_row_seconds(model: Denoiser, size: int, rows: int, batch: int) -> float:
    """As `_row_seconds`, of a step of StyleAligned in evaluations of at most `batch` rows, each with the reference."""
    side, channels, batch = size // model.latent_factor, model.latent_channels, max(2, batch)
    latents = torch.zeros((rows, channels, side, side), device=model.device)
    method, prompts = StyleAligned(guidance=1.0), embedded(model, [""], guidance=1.0)
    reference, samples = Reference(latents[:1], prompts), latents[math.ceil(rows / batch) :]

    def step() -> Tensor:
        return next(method.denoising(model, reference, samples, prompts, batch=batch)).samples

    return _typical(step) / rows


def _outside_the_network(size: int) -> None:
    """What a sample takes on the CPU: an input decoded and fitted, the result measured and encoded, with its inputs."""
    (pixels,) = to_pixels(picture(size))
    file = encode(pixels, ImageFormat())
    fitted = fit(decode(file, "profile"), size)
    # a style is reduced once for many samples
    measured(Reduction(pixels), dict.fromkeys(("content", "style"), Reduction(fitted)))
    encode(pixels, ImageFormat())


def _typical(work: Callable[[], object]) -> float:
    """Seconds of one call, the median of several after a first that is not counted."""
    _timed(work)
    times, until = [_timed(work)], time.perf_counter() + SECONDS
    # a median, since one call in ten is slow on any machine that does other things too
    while len(times) < FEWEST or time.perf_counter() < until:
        times.append(_timed(work))
    return median(times)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    found = work()
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, Tensor):
            one.cpu()  # waits for the device
    return time.perf_counter() - started
