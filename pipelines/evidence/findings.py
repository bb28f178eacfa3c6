"""What the classifiers said as a table, a figure and a recommendation, all with the intervals of `intervals.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.evidence.corruptions import CORRUPTIONS
from pipelines.evidence.experiment import Findings
from pipelines.evidence.intervals import Interval, interval
from pipelines.evidence.mixtures import MIDDLE, Mixture

TARGETS = ("conflict", "unseen styles", *CORRUPTIONS)
"""Tests that stylised data is to help in; `clean` is the one that it must not harm."""


def gain(found: Findings, mixture: Mixture, test: str, over: Mixture | None = None) -> Interval:
    """What a mixture gains over another, or originals alone: differences of the same seed on the same image."""
    return interval(found.hits[mixture][test] - found.hits[over or found.mixtures[0]][test])


def tests_of(found: Findings) -> list[str]:
    present = found.hits[found.mixtures[0]]
    return [test for test in ("clean", *TARGETS) if test in present]


def table(found: Findings) -> Iterator[str]:
    """Markdown: accuracies in per cent; bold where the gain over originals parts from zero upwards, italic downwards."""
    tests = tests_of(found)
    seeds = len(found.hits[found.mixtures[0]]["clean"])
    yield (
        f"{found.num_images} training images of {len(found.images.classes)} classes, {found.steps} steps, {seeds} seeds; test images: "
        + ", ".join(f"{test} {found.hits[found.mixtures[0]][test].shape[1]}" for test in tests)
        + "."
    )
    yield ""
    texture = ["conflict, by texture"] if "conflict" in tests else []
    yield f"| training images | {' | '.join([*tests, *texture])} |"
    yield "|---" * (1 + len(tests) + len(texture)) + "|"
    for mixture in found.mixtures:
        cells = [_cell(found, mixture, test) for test in tests]
        cells += [_percent(interval(found.misled[mixture])) for _ in texture]
        yield f"| {mixture.name} | {' | '.join(cells)} |"


def gains(found: Findings) -> Iterator[str]:
    """Markdown: gains over originals alone, in points; at the end those of rendering over colours alone."""
    tests = tests_of(found)
    yield f"| gain over originals, points | {' | '.join(tests)} |"
    yield "|---" * (1 + len(tests)) + "|"
    for mixture in found.mixtures[1:]:
        cells = (_points(gain(found, mixture, test)) for test in tests)
        yield f"| {mixture.name} | {' | '.join(cells)} |"
    for cheap in found.mixtures:
        rendered = replace(cheap, guise="stylised")
        if cheap.guise == "colours" and rendered in found.hits:
            cells = (_points(gain(found, rendered, test, cheap)) for test in tests)
            yield f"| {rendered.name}, over {cheap.ratio:g} colours | {' | '.join(cells)} |"


def recommended(found: Findings) -> dict[float, list[str]]:
    """Ratio -> targets that it helps in, for ratios that help in one at least and harm nothing, as far as intervals part."""
    most = max(mixture.num_styles for mixture in found.mixtures)
    good = {}
    for mixture in found.mixtures[1:]:
        if mixture.guise != "stylised" or mixture.num_styles != most:
            continue
        by_test = {test: gain(found, mixture, test) for test in tests_of(found)}
        parted = {test: one.mean for test, one in by_test.items() if one.parts_from_zero}
        helps = [test for test, mean in parted.items() if mean > 0 and test in TARGETS]
        if helps and all(mean > 0 for mean in parted.values()):
            good[mixture.ratio] = helps
    return good


def advice(found: Findings) -> str:
    """One sentence."""
    good = recommended(found)
    if not good:
        return "No ratio is recommended: none helps in a test without harm in another beyond its interval."
    named = "; ".join(f"{ratio:g} ({', '.join(tests)})" for ratio, tests in good.items())
    return f"Ratios that help beyond the interval and harm nothing beyond it: {named}."


def _percent(one: Interval) -> str:
    return f"{100 * one.mean:.1f} ± {100 * one.half:.1f}"


def _cell(found: Findings, mixture: Mixture, test: str) -> str:
    text = _percent(interval(found.hits[mixture][test]))
    return text if mixture == found.mixtures[0] else _emphasis(text, gain(found, mixture, test))


def _points(one: Interval) -> str:
    return _emphasis(f"{100 * one.mean:+.1f} ± {100 * one.half:.1f}", one)


def _emphasis(text: str, one: Interval) -> str:
    mark = "" if not one.parts_from_zero else "**" if one.mean > 0 else "*"
    return f"{mark}{text}{mark}"


def figure(every: Sequence[Findings], path: Path) -> None:
    """One row a set: accuracy over the ratio, and at `MIDDLE` over the number of styles, as PNG."""
    drawing = Figure(figsize=(9.5, 3.8 * len(every)), dpi=90, layout="constrained")
    rows = drawing.subplots(len(every), 2, squeeze=False, sharey="row", width_ratios=(3, 2))
    for axes, found in zip(rows, every, strict=True):
        stylised = [m for m in found.mixtures if m.guise == "stylised"]
        most = max(mixture.num_styles for mixture in stylised)
        over_ratio = [(m.ratio, m) for m in stylised if m.num_styles == most]
        over_styles = [(float(m.num_styles), m) for m in stylised if m.ratio == MIDDLE]
        for axis, points in zip(axes, (over_ratio, sorted(over_styles, key=_first)), strict=True):
            for test in tests_of(found):
                _curve(axis, points, [found.hits[m][test] for _, m in points], test)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("accuracy, %")
        axes[0].set_title(f"{found.images.name}: {most} styles", fontsize=10)
        axes[1].set_title(f"{found.images.name}: ratio {MIDDLE:g}", fontsize=10)
        axes[0].set_xlabel("mixing ratio")
        axes[1].set_xlabel("styles")
        axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    drawing.savefig(path)


def _first(point: tuple[float, Mixture]) -> float:
    return point[0]


def _curve(
    axis: object,
    points: Sequence[tuple[float, Mixture]],
    hits: Sequence[NDArray[np.float64]],
    test: str,
) -> None:
    if not points:
        return
    number = ("clean", *TARGETS).index(test)
    found = [interval(one) for one in hits]
    width = max(x for x, _ in points) or 1
    places = [x + 0.006 * width * (number - 2.5) for x, _ in points]
    axis.errorbar(  # type: ignore[attr-defined]
        places, [100 * one.mean for one in found], [100 * one.half for one in found],
        marker="os^vDP*"[number], markersize=4, linewidth=1.4, capsize=2, label=test, color=f"C{number}",
    )  # fmt: skip
