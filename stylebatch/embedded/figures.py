"""The plot of the ablations: what each option of StyleID trades."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from stylebatch.embedded.evaluate import Row


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
