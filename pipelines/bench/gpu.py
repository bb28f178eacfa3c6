"""Benchmarks of one GPU: the bare networks, StyleID end to end, memory, and the tests that need a GPU; at most eight minutes.

    make bench-gpu          # python -m pipelines.bench.gpu; leaves OUT/bench_gpu.json and OUT/bench_gpu.md

Needs one CUDA device of 40 GB or more and no network: weights are random, at the published sizes. A part has a budget of seconds
and leaves out what would overrun it, with a note. Exit code 1 when a part did not run or a claim is wrong (counts, equality,
finite outputs, tests); a missed target is only marked. `--quick --device cpu` shows that the script works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipelines.bench.gpu_lab import Budget, Lab, device_facts, subjects
from pipelines.bench.gpu_network import autoencoder, compiled, memory, network
from pipelines.bench.gpu_styleid import features, pools
from pipelines.bench.record import (
    BenchmarkError,
    Figure,
    Outcome,
    Part,
    Size,
    SkippedError,
    measure,
)

ROOT = Path(__file__).resolve().parents[2]
TOTAL_S = 450.0
"""Of the eight minutes, less starting and loading libraries."""
TOO_LITTLE_S = 3.0
"""A part that has less is not begun."""


def tests(lab: Lab, budget: Budget) -> Outcome:
    """`tests/gpu` in a process of its own; without a GPU they are only collected."""
    chosen = ["-m", "gpu"] if lab.is_cuda else ["-m", "gpu", "--collect-only"]
    lab.clean()  # the tests are another process, and need the memory
    command = [sys.executable, "-m", "pytest", "tests/gpu", *chosen, "-W", "default", "-p", "no:cacheprovider"]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=max(1.0, budget.left) if lab.is_cuda else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchmarkError(
            f"tests/gpu did not end within {budget.seconds:.0f} s. Next: pytest -m gpu tests/gpu"
        ) from None
    counts = {word: int(count) for count, word in re.findall(r"(\d+)[\w/]* (passed|skipped|tests)", done.stdout)}  # fmt: skip
    if done.returncode:
        raise BenchmarkError(f"tests/gpu: exit code {done.returncode}\n{done.stdout[-3000:]}")
    name = "passed" if lab.is_cuda else "tests"
    if not counts.get(name):
        raise BenchmarkError(f"tests/gpu: nothing {name}\n{done.stdout[-1000:]}")
    return Outcome((Figure(f"tests/gpu: {name}", counts[name], "tests"),), counts)


Measuring = Callable[[Lab, Budget], Outcome]
PARTS: dict[str, tuple[Measuring, float]] = {
    "network": (network, 100.0),
    "pools": (pools, 110.0),
    "features": (features, 45.0),
    "memory": (memory, 30.0),
    "autoencoder": (autoencoder, 45.0),
    "tests": (tests, 90.0),
    "compiled": (compiled, 150.0),
}
"""By name, with seconds; what the parts before leave over goes to the last."""


def timed(parts: Mapping[str, tuple[Measuring, float]], lab: Lab, total: float) -> dict[str, Part]:
    """The parts as `measure` calls them, each within its budget (quick: none) and what is left of `total` seconds."""
    until = time.monotonic() + total

    def begin(work: Measuring, seconds: float) -> Part:
        def run(_: Size) -> Outcome:
            left = until - time.monotonic()
            if left < TOO_LITTLE_S:
                raise SkippedError(f"{max(0.0, left):.0f} of {total:.0f} s are left")
            budget = Budget(left if lab.is_quick else min(seconds, left))
            outcome = work(lab, budget)
            text = "\n".join(f"  left out: {line}" for line in budget.skipped)
            conditions = {**outcome.conditions, "left_out": budget.skipped}
            return replace(outcome, conditions=conditions, text=text)

        return run

    return {name: begin(work, seconds) for name, (work, seconds) in parts.items()}


def table(record: Mapping[str, Any]) -> str:
    """The record as Markdown."""
    machine = record["machine"]
    device = ", ".join(f"{key} {machine[key]}" for key in ("device", "memory_gb", "torch", "cuda") if machine.get(key))  # fmt: skip
    lines = [f"Device: {device}.", "", "| part | what | value | target |", "|---|---|---|---|"]
    left_out: list[str] = []
    for name, part in record["parts"].items():
        for figure in part.get("figures", ()):
            target = ""
            if figure["target"] is not None:
                verdict = "met" if figure["met"] else "**missed**"
                target = f"{figure['sense']} {figure['target']:g}, {verdict}"
            value = f"{figure['value']:.4g} {figure['unit']}".strip()
            lines.append(f"| {name} | {figure['name']} | {value} | {target} |")
        for kind in ("error", "skipped"):
            if kind in part:
                lines.append(f"| {name} | {kind} | {part[kind].splitlines()[0]} | |")
        left_out += [f"- {name}: {line}" for line in part.get("conditions", {}).get("left_out", ())]
    return "\n".join([*lines, *(["", "Left out:", "", *left_out] if left_out else []), ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 0 if all of them measured something and every claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--seconds", type=float, default=TOTAL_S, help="in all; default %(default)s"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("bench_gpu: torch sees no CUDA device; accepted without one: --quick --device cpu", file=sys.stderr)  # fmt: skip
        return 2
    if args.device == "cpu" and not args.quick:
        print(
            "bench_gpu: the published sizes are for a GPU; on a CPU give --quick", file=sys.stderr
        )
        return 2
    device, path = (
        torch.device("cuda:0" if args.device == "cuda" else "cpu"),
        args.out / "bench_gpu.json",
    )
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(device, subjects(Path(folder), args.quick), args.quick)
        parts = timed({name: PARTS[name] for name in args.parts}, lab, args.seconds)
        failures = measure(
            parts, Size(args.quick), path, about=device_facts(device),
            say=lambda text: print(text, flush=True),
        )  # fmt: skip
    text = table(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ""
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    for failure in failures:
        print(f"bench_gpu: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
