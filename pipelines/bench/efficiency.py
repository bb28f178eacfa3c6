"""The share of the bare network in the stylise phase: evaluations x seconds per row at the best batch / wall time.

Both run in lanes, as a worker on a CPU does: as many batches side by side as there are threads.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pipelines.bench import workload
from pipelines.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.engine.measure import network_threads
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.block_pairs import Pairs
from stylebatch.methods.styleid.features import FeatureSource, SiteFeatures
from stylebatch.models.lanes import Lanes
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve

BATCHES = (1, 2, 4, 8, 16, 32)
PER_TIMESTEP = 2
"""Bare evaluations measured at every timestep of the phase."""
NONSENSE = 1.05
"""A ratio above it is a wrong measurement: no phase is faster than the network in it. 5 % are for noise."""


def bare_evaluation(
    model: StableDiffusion,
    rows: int,
    cells: Sequence[int] = (),
    mode: Callable[[], AbstractContextManager[object]] = torch.inference_mode,
) -> Callable[[], object]:
    """The network's forward alone on `rows` latents of `cells` (h, w), by default those of a square, without edits, within `mode`."""
    cells = cells or (workload.SIZE // model.latent_factor,) * 2
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn((rows, int(model.unet.config.in_channels), *cells), generator=generator)
    hidden = model.embed([""]).expand(rows)

    def evaluate() -> object:
        with mode():
            return model.unet(x, 401, encoder_hidden_states=hidden, return_dict=False)

    return evaluate


class Interleaved:
    """Features that measure the bare network in all lanes, one batch size after another, at each call of `at`.

    The phase calls it once per timestep, outside its edits. `spent` is the time of those measurements.
    """

    # Interleaved, because a machine's speed drifts: a bare network measured before or after would meet another one.

    def __init__(
        self, source: FeatureSource, bare: Mapping[int, Callable[[], object]], lanes: Lanes
    ) -> None:
        self.source, self.bare, self.lanes = source, bare, lanes
        self.turns = itertools.cycle(bare)
        self.times: dict[int, list[workload.Spent]] = {rows: [] for rows in bare}

    @property
    def spent(self) -> workload.Spent:
        every = [spent for times in self.times.values() for spent in times]
        return workload.Spent(sum(spent.wall for spent in every), sum(spent.cpu for spent in every))

    def per_row(self, clock: Literal["wall", "cpu"]) -> dict[int, float]:
        """Median seconds of a row, by batch."""
        return {
            rows: statistics.median(getattr(spent, clock) for spent in times)
            / (rows * self.lanes.count)
            for rows, times in self.times.items()
        }

    def at(self, t: float) -> SiteFeatures:
        """The source's features, after PER_TIMESTEP bare evaluations."""
        for rows in itertools.islice(self.turns, PER_TIMESTEP):
            self.times[rows].append(workload.spent(partial(self.evaluate, rows)))
        return self.source.at(t)

    def evaluate(self, rows: int) -> None:
        """A batch of `rows` in every lane."""
        self.lanes.map(lambda _: self.bare[rows](), range(self.lanes.count))


@dataclass(frozen=True)
class Case:
    """A block: its contents and styles, who meets whom (all, or a style per content), and pictures of `width` x `height`."""

    name: str
    side: int
    steps: int
    pairing: Literal["product", "sample"] = "product"
    width: int = workload.SIZE
    height: int = workload.SIZE

    @property
    def pairs(self) -> Pairs:
        if self.pairing == "product":
            return Pairs.product(self.side, self.side)
        return Pairs(tuple(reversed(range(self.side))), tuple(range(self.side)))

    def latents(self, model: StableDiffusion, first_seed: int) -> Tensor:
        """Clean latents of the block's contents or styles."""
        seeds = range(first_seed, first_seed + self.side)
        larger = max(self.width, self.height)
        pictures = [workload.picture(seed, larger)[: self.height, : self.width] for seed in seeds]
        return model.encode(to_tensor(pictures))


def efficiency(size: Size) -> Outcome:
    """Products, a pool in which each content meets one style, and pictures of 3:2."""
    few = size.of(10, 4)
    cases = [
        Case("8 x 8", size.of(8, 2), size.of(50, 4)),
        Case("16 x 16", size.of(16, 3), few),
        Case("k = 1, 16 contents and styles", size.of(16, 2), size.of(50, 4), "sample"),
        Case("8 x 8 of 160 x 104 px", size.of(8, 2), few, width=160, height=104),
    ]
    figures: list[Figure] = []
    conditions: dict[str, object] = {"threads": size.threads}
    with network_threads(size.threads), closing(Lanes(size.threads, size.threads)) as lanes:
        model = workload.loaded()
        for case in cases:
            found, facts = _block(model, case, size, lanes)
            figures += found
            conditions[case.name] = facts
    return Outcome(tuple(figures), conditions)


def _block(
    model: StableDiffusion, case: Case, size: Size, lanes: Lanes
) -> tuple[list[Figure], dict[str, object]]:
    """The stylise phase, with the bare network measured in turn at its timesteps."""
    resolved, method = _plan(case), workload.method(case.steps)
    planned = resolved.layout.rendering_evaluations
    batches = sorted({*BATCHES[: size.of(len(BATCHES), 2)], resolved.batch})
    clean = case.latents(model, 0)
    bare = {rows: bare_evaluation(model, rows, clean.shape[2:]) for rows in batches}
    contents = method.invert(model, clean, "query")
    styles = method.invert(model, case.latents(model, 9), "key_value")
    features = Interleaved(contents.features, bare, lanes)
    for rows in bare:  # warms up: the first call of a shape picks kernels
        features.evaluate(rows)
    contents = replace(contents, features=features)
    counted: list[int] = []
    model.on_evaluations, model.lanes = counted.append, lanes
    phase = workload.spent(
        lambda: method.stylise(model, contents, styles, case.pairs, batch=resolved.batch)
    )
    model.on_evaluations = model.lanes = None
    wall, cpu = phase.wall - features.spent.wall, phase.cpu - features.spent.cpu
    if sum(counted) != planned:
        raise BenchmarkError(f"{case.name}: {sum(counted)} evaluations; the plan says {planned}")
    per_row = features.per_row("wall")
    best = min(per_row, key=lambda rows: per_row[rows])
    ratio = planned * per_row[best] / wall
    _require_sense(case, ratio)
    name = f"{case.name}, {case.steps} steps"
    figures = [
        Figure(f"{name}: evaluations x bare network / wall", ratio, "x", 0.95),
        Figure(
            f"{name}: the same in CPU seconds",
            planned * min(features.per_row("cpu").values()) / cpu,
            "x",
        ),
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


def _plan(case: Case) -> Plan:
    """Of the block, with its features held."""
    with tempfile.TemporaryDirectory() as folder:
        return resolve(
            workload.run_spec(
                Path(folder),
                case.side,
                case.side,
                method={"steps": case.steps, "start": "paper"},
                features={"source": "held", "contents": "held"},
                pairing={"mode": case.pairing},
            )
        )


def _require_sense(case: Case, ratio: float) -> None:
    if ratio > NONSENSE:
        raise BenchmarkError(
            f"{case.name}: the bare network took {ratio:.3f} times as long as the phase that contains it; "
            f"accepted: at most {NONSENSE}. Next: measure again on a machine that does nothing else."
        )
