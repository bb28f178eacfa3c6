"""Curves over numbers of workers or samples, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]


def curves(
    lines: Mapping[str, Points],
    names: tuple[str, str],
    path: Path,
    *,
    target: float | None = None,
) -> None:
    """One line each, over a logarithmic axis; `target`: dashed. `names`: of the axes. Percents have their whole scale."""
    figure = Figure(figsize=(7.5, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    marks = "osd^vP*"
    for number, (label, points) in enumerate(lines.items()):
        axes.plot(*zip(*points, strict=True), marker=marks[number % len(marks)], label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    if target is not None:
        axes.axhline(target, linestyle="--", color="grey", linewidth=1)
        axes.set_ylim(0, 102)
    else:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)
