"""What a sample costs outside network and autoencoder: reading, decoding, fitting, measuring, encoding, writing.

A worker renders shards on one core with a copy in place of the network (`copying.py`), in turn with bare Pillow: decode, resize,
encode, in one thread. Sources are JPEG of 640 x 480, results JPEG of 512 x 512 at quality 95 with full colours.
"""

from __future__ import annotations

import io as memory_io
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from pipelines.bench import workload
from pipelines.bench.copying import Copier
from pipelines.bench.record import Figure, Outcome, Size
from stylebatch.engine.worker import Worker
from stylebatch.folder import Folder
from stylebatch.models.denoiser import Denoiser
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve
from stylebatch.spec import RunSpec

SIDE = 512
SOURCE = (640, 480)
ROUNDS = 5


def throughput(size: Size) -> Outcome:
    """Samples per second of one core, and their share of bare Pillow's; with inputs beside each sample, once per shard, not at all."""
    count = size.of(96, 2)
    with tempfile.TemporaryDirectory() as folder, _one_core():
        sources = _sources(Path(folder) / "contents", count)
        _sources(Path(folder) / "styles", 1)
        plans = {
            "inputs: false": _plan(folder, "without", False),
            "inputs: reference": _plan(folder, "shared", "reference"),
            "inputs: true": _plan(folder, "beside", True),
        }
        works = {name: _rendering(plan) for name, plan in plans.items()}
        works["bare"] = lambda: _bare(sources)
        for work in works.values():
            work()  # what is imported and compiled at first
        spent: dict[str, list[workload.Spent]] = {name: [] for name in works}
        for _ in range(size.of(ROUNDS, 1)):
            for name, work in works.items():
                spent[name].append(workload.spent(work))
    cpu = {name: statistics.median(one.cpu for one in found) for name, found in spent.items()}
    # `inputs: true` encodes the content as well, which bare Pillow then does twice
    return Outcome(
        (
            Figure("samples per second of a core, inputs: false", count / cpu["inputs: false"], "1/s", 100),
            Figure("of bare decode + resize + encode, inputs: false", cpu["bare"] / cpu["inputs: false"], "x", 0.8),
            *(
                Figure(f"samples per second of a core, {name}", count / cpu[name], "1/s")
                for name in ("inputs: reference", "inputs: true", "bare")
            ),
        ),
        {"samples": count, "rounds": ROUNDS, "clock": "CPU seconds of all threads, median"},
    )  # fmt: skip


@contextmanager
def _one_core() -> Iterator[None]:
    """Threads of this process share one core inside, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _sources(folder: Path, count: int) -> list[Path]:
    """Photograph-like files: waves and blots, with noise, since a JPEG of smooth colours costs nothing."""
    folder.mkdir(parents=True)
    paths = [folder / f"{index:04d}.jpg" for index in range(count)]
    for seed, path in enumerate(paths):
        pixels = workload.picture(seed, SOURCE[0])[: SOURCE[1]].astype(np.int16)
        grain = np.random.default_rng(seed).normal(0, 8, pixels.shape).astype(np.int16)
        noisy = np.clip(pixels + grain, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=92)
    return paths


def _plan(folder: str, name: str, inputs: Any) -> Plan:
    return resolve(
        RunSpec.model_validate(
            {
                "contents": {"path": f"{folder}/contents"},
                "styles": {"path": f"{folder}/styles"},
                "method": {"path": "pipelines.bench.copying:Copying", "steps": 1},
                "image": {"size": SIDE},
                "output": {"path": f"{folder}/{name}", "inputs": inputs},
            }
        )
    )


def _rendering(plan: Plan) -> Any:
    """Renders all of a plan, with nothing kept of an earlier time."""

    def work() -> None:
        model, output = cast(Denoiser, Copier(SIDE)), Folder.at(plan.spec.output.path)
        with Worker(plan, output, threads=1, model=model) as worker:
            for shard in range(plan.num_shards):
                stats = worker.render(shard)
                assert not stats["num_failed"], stats

    return work


def _bare(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(memory_io.BytesIO(path.read_bytes())) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        resized = square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        resized.save(memory_io.BytesIO(), "JPEG", quality=95, subsampling=0)
