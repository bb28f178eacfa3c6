"""Plots outputs by style and structure, with the front of those that no other beats in both."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from stylebatch.evaluation.evaluate import Evaluation, Figure
from stylebatch.evaluation.resampling import interval
from stylebatch.reports.lettering import legible, line_picture

STYLE = ("fid_art", "fid_efficientnet_lite0", "histogram_loss", "color_distance")
STRUCTURE = ("lpips", "perceptual_distance_efficientnet_lite0", "structure")
"""Measures of an axis: the first that all outputs have."""
HIGHER = ("structure",)
Point = tuple[float, float]
_LABEL_PX = 32
"""Four times the size of the labels, so that they are sharp."""


def shared_measure(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str | None:
    """The first of `names` that every output has."""
    return next((name for name in names if all(one.value(name) for one in evaluations)), None)


def front(points: Sequence[Point]) -> list[int]:
    """Places of the points that no other beats: none is lower in one and as low in the other; by the first coordinate."""
    kept = [
        place
        for place, one in enumerate(points)
        if not any(
            all(b <= a for a, b in zip(one, other, strict=True)) and other != one
            for other in points
        )
    ]
    return sorted(kept, key=lambda place: points[place])


def plot(evaluations: Sequence[Evaluation]) -> bytes | None:
    """A PNG; None where the outputs share no measure of style or none of structure. Raises ModuleNotFoundError without matplotlib."""
    # here: it is in the extra `evaluate` alone
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    style, structure = (shared_measure(evaluations, names) for names in (STYLE, STRUCTURE))
    if style is None or structure is None:
        return None
    canvas = Canvas(figsize=(7.2, 5.4), dpi=150, layout="constrained")
    axes = canvas.subplots()
    found = [(_figure(one, style), _figure(one, structure)) for one in evaluations]
    is_paired = len(evaluations) > 1 and len({one.samples for one in evaluations}) == 1
    _draw(axes, [_label(one, place) for place, one in enumerate(evaluations)], found, is_paired)
    axes.set_xlabel(f"{style}  (style; lower is nearer)")
    better = "higher keeps more" if structure in HIGHER else "lower keeps more"
    axes.set_ylabel(f"{structure}  (structure; {better})")
    bars = "of differences between the outputs" if is_paired else "of each output"
    axes.set_title(
        f"Dashed: outputs that no other beats in both. Bars: 95 % intervals {bars}", fontsize=9
    )
    axes.margins(0.15)
    axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _draw(
    axes: Any, labels: Sequence[str], found: Sequence[tuple[Figure, Figure]], is_paired: bool
) -> None:
    """The outputs by style and structure, and their front."""
    # lower is better in both; structure kept is turned round to find the front
    sign = -1.0 if found[0][1].name in HIGHER else 1.0
    points = [(x.value or 0.0, sign * (y.value or 0.0)) for x, y in found]
    best = front(points)
    line = [(points[place][0], sign * points[place][1]) for place in best]
    axes.plot(*zip(*line, strict=True), "--", color="#999999", lw=1)
    for place, (x, y) in enumerate(found):
        at = (points[place][0], sign * points[place][1])
        axes.errorbar(
            *at,
            xerr=_bars(x, [one for one, _ in found], is_paired),
            yerr=_bars(y, [other for _, other in found], is_paired),
            fmt="o",
            color="#1b5e9c" if place in best else "#a0a0a0",
            capsize=2,
            lw=0.8,
        )
        _name(axes, labels[place], at)


def _name(axes: Any, label: str, at: Point) -> None:
    """Write a label beside a point; one of letters that matplotlib's font may lack is drawn as in the other pictures."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    if label.isascii():
        # a dollar would begin a formula
        shown = label.replace("$", r"\$")
        axes.annotate(shown, at, (6, 6), textcoords="offset points", fontsize=8)
        return
    picture = OffsetImage(np.asarray(line_picture(label, _LABEL_PX)), zoom=0.25, dpi_cor=True)
    box = AnnotationBbox(
        picture, at, (6, 6),
        boxcoords="offset points", box_alignment=(0, 0), frameon=False, pad=0,
    )  # fmt: skip
    axes.add_artist(box)


def _figure(one: Evaluation, name: str) -> Figure:
    found = one.value(name)
    assert found is not None, "every output has it"
    return found


def _bars(
    figure: Figure, all_outputs: Sequence[Figure], is_paired: bool
) -> list[list[float]] | None:
    """Lengths below and above the value: of outputs of the same samples, less what draws do to all of them alike."""
    found = figure.interval
    drawn = [one.drawn for one in all_outputs]
    if figure.value is not None and is_paired and len({len(one) for one in drawn}) == 1:
        found = interval(figure.value, figure.drawn - np.mean(drawn, axis=0))
    if found is None or figure.value is None:
        return None
    return [[max(0.0, figure.value - found.low)], [max(0.0, found.high - figure.value)]]


def _label(one: Evaluation, place: int) -> str:
    last = one.output.rstrip("/").rpartition("/")[2]
    shown = last if len(last) <= 40 else f"{last[:37]}..."
    return f"{place + 1} {legible(shown)}"
