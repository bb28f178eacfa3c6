"""How much of the stylise phase is the bare network: evaluations x seconds per row at the best batch / wall."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from stylebatch.bench import workload
from stylebatch.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.data.plan import plan
from stylebatch.models.stable_diffusion import StableDiffusion

BATCHES = (1, 2, 4, 8, 16, 32)


def bare_evaluation(
    model: StableDiffusion,
    rows: int,
    mode: Callable[[], AbstractContextManager[object]] = torch.inference_mode,
) -> Callable[[], object]:
    """The network's forward alone on `rows` latents, without edits, within `mode`."""
    cells = workload.SIZE // model.latent_factor
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn((rows, int(model.unet.config.in_channels), cells, cells), generator=generator)
    hidden = model.embed([""]).expand(rows)

    def evaluate() -> object:
        with mode():
            return model.unet(x, 401, encoder_hidden_states=hidden, return_dict=False)

    return evaluate


def efficiency(size: Size) -> Outcome:
    """Blocks of 8 x 8 at 50 steps and 16 x 16 at 20."""
    figures: list[Figure] = []
    conditions: dict[str, object] = {"threads": size.threads}
    with workload.threads(size.threads):
        model = workload.loaded()
        for side, steps in ((size.of(8, 2), size.of(50, 4)), (size.of(16, 3), size.of(20, 4))):
            found, facts = _block(model, side, steps, size)
            figures += found
            conditions[f"{side} x {side}"] = facts
    return Outcome(tuple(figures), conditions)


def _block(
    model: StableDiffusion, side: int, steps: int, size: Size
) -> tuple[list[Figure], dict[str, object]]:
    """Bare network before, the stylise phase, bare network after."""
    with tempfile.TemporaryDirectory() as folder:
        resolved = plan(
            workload.run_spec(
                Path(folder),
                side,
                side,
                method={"steps": steps, "start": "paper"},
                features={"source": "held", "contents": "held"},
            )
        )
    method, planned = workload.method(steps), resolved.layout.rendering_evaluations
    batches = BATCHES[: size.of(len(BATCHES), 2)]
    bare = {str(rows): bare_evaluation(model, rows) for rows in batches}
    contents = method.invert(model, workload.latents(model, side, first_seed=0), "query")
    styles = method.invert(model, workload.latents(model, side, first_seed=9), "key_value")
    workload.alternated(bare, 1)
    times = workload.alternated(bare, size.of(4, 1))
    counted: list[int] = []
    model.on_evaluations = counted.append
    wall = workload.seconds(lambda: method.stylise(model, contents, styles, batch=resolved.batch))
    model.on_evaluations = None
    for name, after in workload.alternated(bare, size.of(4, 1)).items():
        times[name] += after
    if sum(counted) != planned:
        raise BenchmarkError(f"{sum(counted)} evaluations; the plan says {planned}")
    per_row = {rows: statistics.median(times[str(rows)]) / rows for rows in batches}
    best = min(per_row, key=lambda rows: per_row[rows])
    name = f"{side} x {side}, {steps} steps"
    figures = [
        Figure(f"{name}: evaluations x bare network / wall", planned * per_row[best] / wall, "x", 0.90),
        Figure(f"{name}: stylise phase", wall, "s"),
        Figure(f"{name}: bare network, batch {best}", 1000 * per_row[best], "ms/row"),
    ]  # fmt: skip
    facts = {
        "evaluations": planned,
        "batch": resolved.batch,
        "best_bare_batch": best,
        "bare_ms_per_row": {str(rows): 1000 * value for rows, value in per_row.items()},
    }
    return figures, facts
