"""Plots: the trade-offs of StyleID's options, and the price of fewer evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed
from matplotlib import pyplot as plt

from pipelines.embedded.beyond import Measured
from pipelines.embedded.evaluate import Row


def ablations(rows: Sequence[Row], path: Path) -> None:
    """Two panels: texture distance over edge correlation along gamma and tau; colour distance of every row.

    The second row holds the defaults, which are a point of both lines.
    """
    named = {row.name: row for row in rows}
    default = rows[1]
    lines = {
        "gamma": [("0.3", "gamma 0.3"), ("0.5", "gamma 0.5"), ("0.75", default.name), ("1.0", "gamma 1.0")],
        "tau": [("1.0", "tau 1.0"), ("1.5", default.name), ("2.0", "tau 2.0")],
    }  # fmt: skip
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for option, points in lines.items():
        chosen = [(value, named[name]) for value, name in points]
        xs = [row.structure for _, row in chosen]
        ys = [row.texture_distance for _, row in chosen]
        left.plot(xs, ys, marker="o", label=option)
        for (value, row), x, y in zip(chosen, xs, ys, strict=True):
            if row is not default:
                left.annotate(value, (x, y), textcoords="offset points", xytext=(4, 4))
    for name in ("own k, v", "wrong style's k, v", "without injection"):
        left.plot(named[name].structure, named[name].texture_distance, "x", label=name)
    left.set_xlabel("edge correlation with the content")
    left.set_ylabel("texture distance to the style")
    left.legend(fontsize=8)
    right.barh([row.name for row in rows][::-1], [row.color_distance for row in rows][::-1])
    right.set_xlabel("Lab colour distance to the style")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def evaluations(measured: Sequence[Measured], path: Path) -> None:
    """Three panels: change of each measure against the first row, over the evaluations of a pair, a line per solver."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    names = ("colour distance", "texture distance", "edge correlation")
    lines = dict.fromkeys((one.method.solver, one.method.grid) for one in measured[1:])
    for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
        panel.axhspan(-2.0, 2.0, color="0.9")  # within 2 % of the paper counts as equal
        for solver, grid in lines:
            points = [
                (one.method.num_reverse_evaluations, one.change[number])
                for one in measured[1:]
                if (one.method.solver, one.method.grid) == (solver, grid)
            ]
            panel.plot(*zip(*points, strict=True), marker="o", label=f"{solver}, grid {grid}")
        panel.axvline(measured[0].method.num_reverse_evaluations / 3, color="0.6", linestyle=":")
        panel.set_xlabel("evaluations of a pair")
        panel.set_title(f"{name}, % from 50 steps", fontsize=10)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)
