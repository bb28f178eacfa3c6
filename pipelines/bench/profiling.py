"""Profiles the stylise phase, and tries other settings of torch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity

from pipelines.bench import workload
from pipelines.bench.efficiency import bare_evaluation
from pipelines.bench.record import Figure, Outcome, Size
from stylebatch.engine.measure import network_threads

NUM_OPERATORS = 20


def profile(size: Size) -> Outcome:
    """Share of the network in a few steps of 8 x 8, and the operators by their own CPU time."""
    side = size.of(8, 2)
    with network_threads(size.threads):
        model, method = workload.loaded(), workload.method(4)
        contents = method.invert(model, workload.latents(model, side, first_seed=0), "query")
        styles = method.invert(model, workload.latents(model, side, first_seed=9), "key_value")

        def stylise() -> object:
            return method.stylise(model, contents, styles)

        stylise()  # warms up
        started, inside = 0.0, 0.0

        def before(*_: object) -> None:
            nonlocal started
            started = time.perf_counter()

        def after(*_: object) -> None:
            nonlocal inside
            inside += time.perf_counter() - started

        hooks = [
            model.unet.register_forward_pre_hook(before),
            model.unet.register_forward_hook(after),
        ]
        wall = workload.seconds(stylise)
        for hook in hooks:
            hook.remove()
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as seen:
            stylise()
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    lines = [
        f"  {row.key:<44} {100 * row.self_cpu_time_total / total:5.1f} % {row.count:>6} calls"
        for row in rows[:NUM_OPERATORS]
    ]
    return Outcome(
        (Figure("share of the network (edits included) in the stylise phase", inside / wall, "x"),),
        {"contents": side, "styles": side, "evaluations": side * side * 3, "operators": lines},
        "\n".join(lines),
    )


def trials(size: Size) -> Outcome:
    """Seconds of a bare evaluation under other settings / as it is, alternating; below 1 is faster."""
    rows, rounds = size.of(16, 2), size.of(7, 2)
    figures: list[Figure] = []
    with network_threads(size.threads):
        base = bare_evaluation(workload.loaded(), rows)
        for name, other in _others(rows).items():
            base()
            other()
            found = workload.medians(workload.alternated({"base": base, "other": other}, rounds))
            figures.append(Figure(f"{name} / as it is", found["other"] / found["base"], "x"))
    return Outcome(tuple(figures), {"batch": rows, "threads": size.threads})


def _others(rows: int) -> dict[str, Callable[[], object]]:
    last = workload.loaded()
    last.unet.to(memory_format=torch.channels_last)
    plain = bare_evaluation(workload.loaded(), rows)

    def on_one_thread() -> object:
        with network_threads(1):
            return plain()

    def on_two_threads() -> object:
        with network_threads(2):
            return plain()

    others: dict[str, Callable[[], object]] = {
        "channels_last weights": bare_evaluation(last, rows),
        "1 thread": on_one_thread,
        "2 threads": on_two_threads,
        "no_grad in place of inference_mode": bare_evaluation(
            workload.loaded(), rows, mode=torch.no_grad
        ),
    }
    # torch.compile needs a compiler for its C++ kernels
    if shutil.which("g++") or shutil.which("clang++"):
        compiled = workload.loaded()
        compiled.unet = torch.compile(compiled.unet)
        others["torch.compile"] = bare_evaluation(compiled, rows)
    return others
