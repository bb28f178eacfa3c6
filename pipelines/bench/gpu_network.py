"""The networks alone: rows per second of a UNet by batch and dtype, compiled and not; the autoencoder; memory against the plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipelines.bench.gpu_lab import Budget, Lab, Subject
from pipelines.bench.record import BenchmarkError, Figure, Outcome, SkippedError
from stylebatch.models.unet.stable_diffusion import StableDiffusion

BATCHES = (1, 2, 4, 8, 16, 32, 64)
TIMESTEP = 401.0
COMPILING_S = 60.0
"""Seconds that a first compilation may take, until one was seen."""
DEEPER = 2.5
"""Compile time of SDXL over that of SD 1.5: it has 70 transformer blocks, not 16."""


def latents(model: StableDiffusion, size: int, rows: int) -> Tensor:
    """Noise (rows, c, h, w) on the model's device."""
    cells = size // model.latent_factor
    draw = torch.Generator(model.device).manual_seed(rows)
    shape = (rows, model.latent_channels, cells, cells)
    return torch.randn(shape, generator=draw, device=model.device)


class Bare:
    """The network's forward alone, with the arguments of the adapter prepared once on the device."""

    def __init__(self, model: StableDiffusion, size: int, rows: int) -> None:
        taken: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hook = model.unet.register_forward_pre_hook(
            lambda _, args, kwargs: taken.append((args, kwargs)), with_kwargs=True
        )
        try:
            model.predict_noise(latents(model, size, rows), TIMESTEP, model.embed([""]))
        finally:
            hook.remove()
        (self.x, _), self.options = taken[0]
        # on the device: a Python number would be copied there in every call
        self.t = torch.full((), TIMESTEP, device=model.device)

    def __call__(self, unet: Any) -> Tensor:
        with torch.inference_mode():
            out: Tensor = unet(self.x, self.t, **self.options)[0]
        return out


def per_row(lab: Lab, model: StableDiffusion, size: int, rows: int) -> float:
    """Seconds of a row of the bare network. Raises BenchmarkError for an output that is not finite."""
    bare = Bare(model, size, rows)
    if not bool(bare(model.unet).isfinite().all()):
        raise BenchmarkError(
            f"{model.unet.dtype}, batch {rows}: the network's output is not finite"
        )
    return lab.seconds(lambda: bare(model.unet)) / rows


def network(lab: Lab, budget: Budget) -> Outcome:
    """Every subject in every dtype, batch after batch; for one row and sixteen also the cost of the adapter."""
    figures: list[Figure] = []
    bound = 1.05 if lab.is_cuda else None
    for subject, dtype in ((s, d) for d in lab.dtypes for s in lab.subjects):
        about, expected = f"{subject.name}, {subject.size} px, {dtype}", 5.0
        if not budget.allows(expected, about):
            continue
        with lab.model(subject, dtype) as model:
            for rows in BATCHES[: lab.of(len(BATCHES), 2)]:
                what = f"{about}, batch {rows}"
                planned = rows * subject.memory(dtype).row
                if not lab.fits(planned, budget, what) or not budget.allows(expected, what):
                    break
                found = per_row(lab, model, subject.size, rows)
                expected = 2.0 + 10 * rows * found  # the next batch is twice this one
                figures.append(Figure(what, 1.0 / found, "rows/s"))
                if rows in (1, 16):
                    whole = _through_adapter(lab, model, subject.size, rows)
                    name = f"{what}: adapter / bare"
                    figures.append(Figure(name, whole / found, "x", bound, "<="))
    return Outcome(tuple(figures), {"timestep": TIMESTEP, "clock": "CUDA events"})


def _through_adapter(lab: Lab, model: StableDiffusion, size: int, rows: int) -> float:
    """Seconds of a row through the adapter, as methods call it."""
    x, cond = latents(model, size, rows), model.embed([""])
    return lab.seconds(lambda: model.predict_noise(x, TIMESTEP, cond)) / rows


def compiled(lab: Lab, budget: Budget) -> Outcome:
    """The bare network with `channels_last` and `torch.compile`, against without; most of the time goes into compiling."""
    figures: list[Figure] = []
    rows, dtype, compiling = lab.of(16, 1), lab.dtypes[0], COMPILING_S if lab.is_cuda else 0.0
    for subject in dict.fromkeys((lab.each[0], lab.each[-1])):
        about = f"{subject.name}, {subject.size} px, {dtype}"
        if not budget.allows(compiling, f"{about}, compiled"):
            continue
        with lab.model(subject, dtype) as model:
            plain = per_row(lab, model, subject.size, rows)
            figures.append(Figure(f"{about}, batch {rows}, plain", 1.0 / plain, "rows/s"))
            model.unet.to(memory_format=torch.channels_last)
            last = per_row(lab, model, subject.size, rows)
            figures.append(
                Figure(f"{about}, batch {rows}, channels_last / plain", last / plain, "x")
            )
            before = budget.left
            for batch, found in _compiled(lab, budget, model, subject, rows):
                name = f"{about}, batch {batch}, channels_last and compiled"
                figures.append(Figure(name, 1.0 / found, "rows/s"))
                if batch == rows:
                    took = before - budget.left
                    compiling = DEEPER * took
                    figures.append(Figure(f"{about}: compiling and measuring", took, "s"))
                    figures.append(Figure(f"{name} / plain", found / plain, "x"))
    torch.compiler.reset()  # compiled graphs hold the weights
    if not figures:
        raise SkippedError("; ".join(budget.skipped))
    return Outcome(tuple(figures), {"is_compiled": lab.is_cuda, "batch": rows})


def _compiled(
    lab: Lab, budget: Budget, model: StableDiffusion, subject: Subject, first: int
) -> Iterator[tuple[int, float]]:
    """(batch, seconds of a row), `first` first; a second batch compiles once more, for any size. On a CPU nothing is compiled."""
    unet = torch.compile(model.unet, disable=not lab.is_cuda)
    expected = 0.0
    for rows in (first, *(b for b in BATCHES if b != first and not lab.is_quick)):
        if not budget.allows(expected, f"{subject.name}, batch {rows}, compiled"):
            return
        bare, before = Bare(model, subject.size, rows), budget.left
        yield rows, lab.seconds(partial(bare, unet)) / rows
        expected = before - budget.left if rows == first else 5.0


def autoencoder(lab: Lab, budget: Budget) -> Outcome:
    """Pictures per second into latents and back; SDXL's in float32 where the rest is float16, as the product has it."""
    figures: list[Figure] = []
    for subject, dtype in ((s, d) for s in lab.each for d in lab.dtypes):
        about, expected = f"{subject.name}, {subject.size} px", 4.0
        if not budget.allows(expected, f"{about}, {dtype}"):
            continue
        with lab.model(subject, dtype) as model:
            for count in (1, 4, 16)[: lab.of(3, 1)]:
                what = f"{about}, {str(model.vae.dtype).removeprefix('torch.')}, {count} pictures"
                planned = count * subject.memory(dtype).picture
                if not lab.fits(planned, budget, what) or not budget.allows(expected, what):
                    break
                images = torch.zeros(count, 3, subject.size, subject.size, device=lab.device)
                x = latents(model, subject.size, count)
                encoding = lab.seconds(partial(model.encode, images), 0.5)
                decoding = lab.seconds(partial(model.decode, x), 0.5)
                expected = 1.0 + 12 * (encoding + decoding)
                figures.append(Figure(f"{what}: encoded", count / encoding, "pictures/s"))
                figures.append(Figure(f"{what}: decoded", count / decoding, "pictures/s"))
    return Outcome(tuple(figures), {"clock": "CUDA events"})


def memory(lab: Lab, budget: Budget) -> Outcome:
    """Peak activations over the plan's, for batches of the network and pictures in the autoencoder.

    The claim, on a GPU: never more than planned.
    """
    if not lab.is_cuda and sys.platform != "linux":
        raise SkippedError("the resident set is read from /proc")
    figures: list[Figure] = []
    bound = 1.0 if lab.is_cuda else None
    dtype = lab.dtypes[-1]
    for subject in lab.each:
        if not budget.allows(5.0, subject.name):
            continue
        with lab.model(subject, dtype) as model:
            for what, planned, work in _memory_cases(lab, subject, model, dtype):
                name = f"{subject.name}, {subject.size} px, {dtype}, {what}"
                if not lab.fits(planned, budget, name) or not budget.allows(2.0, name):
                    continue
                found = lab.peak_bytes(work)
                figures.append(Figure(f"{name}: measured", found / 1e6, "MB"))
                figures.append(
                    Figure(f"{name}: measured / planned", found / planned, "x", bound, "<=")
                )
    return Outcome(tuple(figures), {"of": "torch.cuda.max_memory_allocated less what was held"})


def _memory_cases(
    lab: Lab, subject: Subject, model: StableDiffusion, dtype: str
) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """(name, planned bytes, work) of each case."""
    size, planned_for = subject.size, subject.memory(dtype)
    for rows in (1, 8, 16)[: lab.of(3, 1)]:
        bare = Bare(model, size, rows)
        planned = rows * planned_for.row
        yield f"batch {rows}", planned, partial(bare, model.unet)
    for count in (1, 4)[: lab.of(2, 1)]:
        planned = count * planned_for.picture
        images = torch.zeros(count, 3, size, size, device=lab.device)
        yield f"{count} encoded", planned, partial(model.encode, images)
        yield f"{count} decoded", planned, partial(model.decode, latents(model, size, count))
