"""StyleID on a device: pools of pairs end to end through the run's worker; held, cached and recomputed features; copies."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipelines.bench import workload
from pipelines.bench.gpu_lab import Budget, Lab, Subject
from pipelines.bench.gpu_network import per_row
from pipelines.bench.record import BenchmarkError, Figure, Outcome, SkippedError
from stylebatch.engine.worker import Worker
from stylebatch.features.codecs import Codec
from stylebatch.features.style_bank import StyleBank, feature_codec
from stylebatch.features.style_cache import StyleCache
from stylebatch.folder import Folder
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Inverted, Kept
from stylebatch.models.family import Memory
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.choice import Measurements
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve
from stylebatch.usable_cores import usable_cores

BEST = (8, 16, 32)
"""Batches of the bare network that a pool is compared with: the fastest counts."""
SOURCE_PX = 256
"""Side of the input pictures, which a run resizes."""


@dataclass(frozen=True)
class Pool:
    """Contents and styles of a block engine's work: all pairs, or `per_content` styles for each content."""

    subject: int
    contents: int
    styles: int
    steps: int
    per_content: int | None = None

    @property
    def name(self) -> str:
        drawn = "" if self.per_content is None else f", k = {self.per_content}"
        return f"{self.contents} x {self.styles}{drawn}, {self.steps} steps"


FULL = (Pool(0, 8, 8, 50), Pool(0, 64, 16, 50, 1), Pool(-1, 4, 4, 20))
QUICK = (Pool(0, 2, 2, 2), Pool(-1, 3, 2, 2, 1))


@dataclass
class Shares:
    """Marks around every call of the network and of the autoencoder, on the device's clock."""

    lab: Lab
    found: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)

    @contextmanager
    def watching(self, model: StableDiffusion) -> Iterator[None]:
        """Mark the calls within a `with` block."""
        former = model.unet.forward, model.vae.encode, model.vae.decode
        model.unet.forward = self._marked("network", former[0])
        model.vae.encode = self._marked("autoencoder", former[1])
        model.vae.decode = self._marked("autoencoder", former[2])
        try:
            yield
        finally:
            model.unet.forward, model.vae.encode, model.vae.decode = former

    def _marked(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        marks = self.found.setdefault(name, [])

        # CUDA events cost microseconds and wait for nothing, so that the run stays as fast as it is
        def marked(*args: Any, **kwargs: Any) -> Any:
            first = self.lab.mark()
            out = call(*args, **kwargs)
            marks.append((first, self.lab.mark()))
            return out

        return marked

    def seconds(self, name: str) -> float:
        return sum(self.lab.between(*marks) for marks in self.found.get(name, []))


def pools(lab: Lab, budget: Budget) -> Outcome:
    """Whole blocks as in a run: pictures are read, inverted, rendered, decoded and encoded, and a shard is committed.

    Claims: as many evaluations as planned, every sample made.
    """
    figures: list[Figure] = []
    conditions: dict[str, Any] = {}
    for pool in QUICK if lab.is_quick else FULL:
        subject, dtype = lab.subjects[pool.subject], lab.dtypes[-1]
        name = f"{subject.name}, {subject.size} px, {dtype}, {pool.name}"
        if not budget.allows(10.0, name):
            continue
        with tempfile.TemporaryDirectory() as folder, lab.model(subject, dtype) as model:
            plan = _planned(lab, subject, pool, dtype, Path(folder))
            rows = {rows: per_row(lab, model, subject.size, rows) for rows in BEST[: lab.of(3, 1)]}
            best = min(rows.values())
            if not budget.allows(1.3 * plan.evaluations * best + 5.0, name):
                continue
            found, facts = _rendered(
                lab, model, plan, subject.memory(dtype), Path(folder) / "out", best
            )
            figures += [
                Figure(f"{name}: {f.name}", f.value, f.unit, f.target, f.sense) for f in found
            ]
            conditions[name] = facts
    if not figures:
        raise SkippedError("; ".join(budget.skipped))
    return Outcome(tuple(figures), conditions)


def _planned(lab: Lab, subject: Subject, pool: Pool, dtype: str, folder: Path) -> Plan:
    """The plan of a manifest over new pictures; features may take a third of the device's memory."""
    total = torch.cuda.get_device_properties(lab.device).total_memory if lab.is_cuda else 3 * 2**30
    pairing = {"mode": "sample", "per_content": pool.per_content} if pool.per_content else {}
    spec = workload.run_spec(
        folder, pool.contents, pool.styles, size=lab.of(SOURCE_PX, 32),
        model={"path": str(subject.folder), "dtype": dtype},
        method={"steps": pool.steps}, image={"size": subject.size}, pairing=pairing,
        engine={"feature_gb": total / 3 / 2**30},
    )  # fmt: skip
    return resolve(spec, conditions=Measurements(batch_gb=total / 2**31))


def _rendered(
    lab: Lab, model: StableDiffusion, plan: Plan, memory: Memory, output: Path, best: float
) -> tuple[list[Figure], dict[str, Any]]:
    """Every shard of the plan, timed; `best`: seconds of a row of the bare network."""
    shares, evaluations, made = Shares(lab), 0, 0
    lab.clean()
    held = torch.cuda.memory_allocated(lab.device) if lab.is_cuda else 0
    if lab.is_cuda:
        torch.cuda.reset_peak_memory_stats(lab.device)
    threads = usable_cores() if lab.is_cuda else 1
    with (
        Worker(plan, Folder.at(output), threads=threads, model=model) as worker,
        shares.watching(model),
    ):
        lab.wait()
        started = time.perf_counter()
        for shard in plan.shards:
            stats = worker.render(shard)
            evaluations += int(stats["evaluations"])
            made += int(stats["num_success"])
        lab.wait()
        wall = time.perf_counter() - started
    if (evaluations, made) != (plan.evaluations, plan.grid.num_samples):
        raise BenchmarkError(
            f"{evaluations} evaluations and {made} samples; the plan says {plan.evaluations} and {plan.grid.num_samples}"
        )
    network, coder = shares.seconds("network"), shares.seconds("autoencoder")
    bound = 0.9 if lab.is_cuda else None
    figures = [
        Figure("pairs", made / wall, "pairs/s"),
        Figure("evaluations per pair", evaluations / made, "evaluations"),
        Figure("evaluations x bare network / wall", evaluations * best / wall, "x", bound),
        Figure("device in network or autoencoder / wall", (network + coder) / wall, "x", bound),
        Figure("network / wall", network / wall, "x"),
        Figure("bare network, best batch", 1000 * best, "ms/row"),
    ]
    if lab.is_cuda:
        peak = torch.cuda.max_memory_allocated(lab.device) - held
        planned = _planned_bytes(plan, memory)
        figures.append(Figure("memory beyond weights", peak / 1e9, "GB"))
        figures.append(Figure("the same / planned", peak / planned, "x", 1.0, "<="))
    facts = {"wall_s": wall, "network_s": network, "autoencoder_s": coder, "batch": plan.batch}
    return figures, facts | {"block": list(plan.layout.sides), "features": str(plan.choice)}


def _planned_bytes(plan: Plan, memory: Memory) -> float:
    """Bytes of the features of a block's contents and held styles, and of a batch in the network or the autoencoder."""
    return float(
        plan.layout.kept_bytes.device + max(plan.batch * memory.row, plan.pictures * memory.picture)
    )


def features(lab: Lab, budget: Budget) -> Outcome:
    """One block with styles held, hosted, cached and recomputed. Claims: latents are equal, and near for those recomputed."""
    subject, dtype = lab.subjects[0], lab.dtypes[-1]
    steps, contents, styles = lab.of(20, 2), lab.of(8, 2), lab.of(4, 2)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, lab.model(subject, dtype) as model:
        method, codec = StyleID(steps=steps), Codec("x", _stored(dtype))
        pixels = [workload.picture(n, subject.size) for n in range(contents + styles)]
        clean = torch.cat([model.encode(to_tensor([one])) for one in pixels])
        queries = method.invert(model, clean[:contents], "query")
        bank = StyleBank(StyleCache(folder), codec, method, model, model_fingerprint="random")
        named = [bank.style(one, f"style {n}") for n, one in enumerate(pixels[contents:])]
        writing = workload.seconds(lambda: bank.inverted(named))
        kept = feature_codec(codec)

        def inverted(keep: Kept) -> Inverted:
            # batch 1 and the codec, as the bank inverts: else the last bits differ
            return method.invert(
                model, clean[contents:], "key_value", batch=1, codec=kept, keep=keep
            )

        kinds: tuple[Kept, ...] = ("held", "hosted", "recomputed")
        ways = {kind: inverted(kind) for kind in kinds} | {"cached": bank.inverted(named)}
        latents = {name: method.stylise(model, queries, way) for name, way in ways.items()}
        _require_equal(latents)
        works = {name: _stylising(lab, method, model, queries, way) for name, way in ways.items()}
        seconds = workload.medians(workload.alternated(works, lab.of(3, 1)))
        about = f"{subject.name}, {subject.size} px, {dtype}, {contents} x {styles}, {steps} steps"
        figures.append(Figure(f"{about}: inverting and writing a style", writing / styles, "s"))
        for name, value in seconds.items():
            figures.append(Figure(f"{about}, {name}", contents * styles / value, "pairs/s"))
        for name in ("hosted", "cached", "recomputed"):
            figures.append(Figure(f"{about}, {name} / held", seconds[name] / seconds["held"], "x"))
        off = workload.relative_l2(latents["recomputed"], latents["held"])
        figures.append(
            Figure(f"{about}: recomputed against held, relative L2", off, "", 1e-2, "<=")
        )
        if lab.is_cuda and budget.allows(3.0, "copies"):
            figures += _copies(lab)
    return Outcome(
        tuple(figures), {"codec": str(codec), "equal": "held, hosted and cached, bit for bit"}
    )


def _stored(dtype: str) -> Any:
    """The dtype in which a run's bank stores floats."""
    return "float16" if dtype == "float16" else "float32"


def _require_equal(latents: dict[str, torch.Tensor]) -> None:
    for name, found in latents.items():
        if not bool(found.isfinite().all()):
            raise BenchmarkError(f"{name}: latents are not finite")
    for name in ("cached", "hosted"):
        if not torch.equal(latents["held"], latents[name]):
            off = workload.relative_l2(latents[name], latents["held"])
            raise BenchmarkError(
                f"held and {name} features give latents {off:.2e} apart; expected: equal"
            )


def _stylising(
    lab: Lab, method: StyleID, model: StableDiffusion, queries: Inverted, styles: Inverted
) -> Callable[[], None]:
    def work() -> None:
        method.stylise(model, queries, styles)
        lab.wait()

    return work


COPIED_BYTES = 96 << 20
"""Bytes of eight styles' features at a timestep, SD 1.5 at 512 px, `x` in float16."""


def _copies(lab: Lab) -> list[Figure]:
    """Bytes per second from main memory to the device: pageable, as cached features go today, and pinned."""
    plain = torch.zeros(COPIED_BYTES, dtype=torch.uint8)
    places = {"pageable": plain, "pinned": plain.pin_memory()}
    found: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(5):
        for name, source in places.items():
            lab.wait()
            started = time.perf_counter()
            source.to(lab.device, non_blocking=True)
            lab.wait()
            found[name].append(time.perf_counter() - started)
    return [
        Figure(
            f"copies to the device, {name}", COPIED_BYTES / statistics.median(times) / 1e9, "GB/s"
        )
        for name, times in found.items()
    ]
