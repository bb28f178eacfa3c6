"""Efficiency, tail and storage traffic of jobs of real size on 1 to 4,096 workers, simulated; writes OUT/bench_scaling.json and plots.

    python -m pipelines.bench.scaling --parts workers sources --out outputs/bench

Plans, queue and cost model are those of a run; time is virtual. Exit code 1 when a part did not run; a missed target is only marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.bench.record import Figure, Outcome, Part, Size, measure
from pipelines.bench.scaling_jobs import Rendering, phases, planned
from pipelines.bench.scaling_plots import curves
from pipelines.bench.simulated_cluster import Conditions, Result, Simulation

WORKERS = (1, 4, 16, 64, 256, 1024, 4096)
MANY = 1024
ENOUGH_SHARDS = 100
"""A worker has so many shards or more: then it must be busy."""
TARGET = 95.0
DIGITS = {"workers": 0, "samples": 0, "hours": 2, "tail, s": 0, "worker hours": 0}
INPUTS = {"contents": {"path": "contents"}, "styles": {"path": "styles"}}
SAMPLED = {**INPUTS, "pairing": {"mode": "sample", "per_content": 1, "pool": "block"}}
PROMPTS = {"prompts": {"path": "rows.csv"}, "method": {"name": "text2img"}}
CACHE = {"source": "cached", "cache": "cache"}
JOBS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "Stylized-ImageNet": ((1_281_167, 10_000), SAMPLED),
    "50,000 x 1,000": ((50_000, 1_000), INPUTS),
    "10^6 prompts": ((1_000_000, 1), PROMPTS),
}
IMAGENET, PRODUCT, OF_PROMPTS = JOBS
WAYS: dict[str, dict[str, Any]] = {
    "held, 8 GiB": {},
    "held, 24 GiB": {"engine": {"feature_gb": 24}},
    "recomputed": {"features": {"source": "recomputed"}},
    "cached x": {"features": {**CACHE, "codec": "x"}},
    "cached x8": {"features": {**CACHE, "codec": "x8"}},
}
"""Where styles come from. With a cache all are inverted first, once."""
USUAL = Conditions()
ROUGH: dict[str, Conditions] = {
    "as assumed": USUAL,
    "one machine in four is taken away each hour": Conditions(preempted_per_hour=0.25),
    "speeds spread by 20 %, one in twenty half as fast": Conditions(
        speed_spread=0.2, slow_share=0.05
    ),
    "machines come after 10 min on average": Conditions(placed_s=600.0),
    "storage of 2 GB/s": Conditions(storage_bytes_s=2e9),
    "a commit takes 5 s": Conditions(commit_s=5.0),
}


@cache
def job(name: str, scale: int, changes: str = "") -> Rendering:
    """A job, with 1 / `scale` of its inputs. `changes`: a way or a shard size."""
    (rows, columns), manifest = JOBS[name]
    more: dict[str, Any] = WAYS.get(changes, {})
    if changes.isdecimal():
        more = {"output": {"path": "out", "shard_size": int(changes)}}
    return Rendering(planned((rows // scale, max(1, columns // scale)), **manifest, **more))


def simulated(rendering: Rendering, workers: int, given: Conditions = USUAL) -> Result:
    """One run."""
    return Simulation(workers, given).run(phases(rendering))


def row(found: Result, rendering: Rendering) -> dict[str, Any]:
    """The figures of a run: percent of the time of all workers, hours, terabytes."""
    lost = {what: found.share(what) for what in ("start", "idle", "read", "write", "again", "lost")}
    return {
        "workers": found.workers,
        "shards each": len(rendering.numbers) / found.workers,
        "hours": found.took_s / 3600,
        "efficiency": 100 * found.efficiency,
        # rounded: that of no wait is a rounding error, of either sign
        **{what: abs(round(100 * share, 6)) for what, share in lost.items()},
        "tail, s": found.tail_s,
        "read, TB": found.read_bytes / 1e12,
        "written, TB": found.written_bytes / 1e12,
        "worker hours": sum(found.spent.values()) / 3600,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For Markdown."""
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    for one in rows:
        cells = (v if isinstance(v, str) else f"{v:,.{DIGITS.get(k, 1)}f}" for k, v in one.items())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(label: str, one: Mapping[str, Any]) -> Figure:
    is_long = one["workers"] <= MANY and one["shards each"] >= ENOUGH_SHARDS
    return Figure(f"{label}: efficiency", one["efficiency"], "%", TARGET if is_long else None)


def workers(size: Size, out: Path) -> Outcome:
    """The three jobs as planned by default on 1 to 4,096 workers."""
    figures, rows, lines = [], [], {}
    for name in JOBS:
        rendering = job(name, size.of(1, 100))
        found = [row(simulated(rendering, count), rendering) for count in WORKERS[: size.of(7, 3)]]
        figures += [_figure(f"{name}, {one['workers']} workers", one) for one in found]
        rows += [{"job": name, **one} for one in found]
        lines[name] = [(one["workers"], one["efficiency"]) for one in found]
    curves(lines, ("workers", "efficiency, %"), out / "scaling_workers.png", target=TARGET)
    return Outcome(tuple(figures), _conditions(rows), table(rows))


def sources(size: Size, out: Path) -> Outcome:
    """The product with styles held, recomputed and cached: hours of workers, and what the storage must bear."""
    figures, rows = [], []
    lines: dict[str, list[tuple[float, float]]] = {}
    for way in WAYS:
        rendering = job(PRODUCT, size.of(1, 100), way)
        for count in WORKERS[: size.of(7, 3)][::2]:
            one = row(simulated(rendering, count), rendering)
            figures.append(Figure(f"{way}, {count} workers: all", one["worker hours"], "h"))
            rows.append({"styles": way, **one})
            lines.setdefault(way, []).append((count, one["worker hours"]))
    curves(lines, ("workers", "hours of all workers"), out / "scaling_sources.png")
    return Outcome(tuple(figures), _conditions(rows), table(rows))


def shard_sizes(size: Size, out: Path) -> Outcome:
    """Samples per shard: the product on 1,024 workers, the sampled job on 64."""
    figures, rows = [], []
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, count in ((PRODUCT, size.of(MANY, 16)), (IMAGENET, size.of(64, 4))):
        for samples in (32, 64, 128, 256, 512, 1024, 4096):
            rendering = job(name, size.of(1, 100), str(samples))
            one = row(simulated(rendering, count), rendering)
            label = f"{name}, {count} workers"
            figures.append(_figure(f"{label}, shards of {samples}", one))
            per_sample = rendering.plan.evaluations / rendering.plan.grid.num_samples
            rows.append({"job": label, "samples": samples, "evaluations": per_sample, **one})
            lines.setdefault(label, []).append((samples, one["efficiency"]))
    curves(lines, ("samples per shard", "efficiency, %"), out / "scaling_shards.png", target=TARGET)
    return Outcome(tuple(figures), _conditions(rows), table(rows))


def rough(size: Size, out: Path) -> Outcome:
    """The product on 1,024 workers where machines and storage are worse."""
    figures, rows = [], []
    rendering = job(PRODUCT, size.of(1, 100))
    for label, given in ROUGH.items():
        one = row(simulated(rendering, size.of(MANY, 16), given), rendering)
        figures.append(_figure(label, one))
        rows.append({"condition": label, **one})
    return Outcome(tuple(figures), _conditions(rows), table(rows))


def _conditions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"conditions": asdict(USUAL), "rows": list(rows)}


PARTS: dict[str, Callable[[Size, Path], Outcome]] = {
    "workers": workers,
    "sources": sources,
    "shard_sizes": shard_sizes,
    "rough": rough,
}


def _part(name: str, out: Path) -> Part:
    return lambda size: PARTS[name](size, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 0 if all of them were simulated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny jobs, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Part] = {name: _part(name, args.out) for name in args.parts}
    path = args.out / "bench_scaling.json"
    failures = measure(chosen, Size(args.quick), path, say=lambda text: print(text, flush=True))
    for failure in failures:
        print(f"bench_scaling: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
