"""Plots outputs by style and structure, with the front of those that no other beats in both."""

from __future__ import annotations

import io
from collections.abc import Sequence

from stylebatch.evaluation.evaluate import Evaluation, Figure

STYLE = ("fid_art", "fid_efficientnet_lite0", "histogram_loss", "color_distance")
STRUCTURE = ("lpips", "perceptual_distance_efficientnet_lite0", "structure")
"""Measures of an axis: the first that all outputs have."""
HIGHER = ("structure",)
Point = tuple[float, float]


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
    # lower is better in both; structure kept is turned round to find the front
    sign = -1.0 if structure in HIGHER else 1.0
    points = [(x.value or 0.0, sign * (y.value or 0.0)) for x, y in found]
    best = front(points)
    axes.plot(
        [points[p][0] for p in best],
        [sign * points[p][1] for p in best],
        "--",
        color="#999999",
        lw=1,
    )
    for place, (one, (x, y)) in enumerate(zip(evaluations, found, strict=True)):
        colour = "#1b5e9c" if place in best else "#a0a0a0"
        assert x.value is not None
        assert y.value is not None
        axes.errorbar(
            x.value, y.value, xerr=_bars(x), yerr=_bars(y), fmt="o", color=colour, capsize=2, lw=0.8
        )
        # a dollar would begin a formula
        label = _label(one, place).replace("$", r"\$")
        axes.annotate(label, (x.value, y.value), (6, 6), textcoords="offset points", fontsize=8)
    axes.set_xlabel(f"{style}  (style; lower is nearer)")
    better = "higher keeps more" if structure in HIGHER else "lower keeps more"
    axes.set_ylabel(f"{structure}  (structure; {better})")
    axes.set_title(
        "Style against structure; dashed: outputs that no other beats in both", fontsize=9
    )
    axes.margins(0.15)
    axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _figure(one: Evaluation, name: str) -> Figure:
    found = one.value(name)
    assert found is not None, "every output has it"
    return found


def _bars(figure: Figure) -> list[list[float]] | None:
    """Lengths below and above the value."""
    if figure.interval is None or figure.value is None:
        return None
    low, high = figure.interval.low, figure.interval.high
    return [[max(0.0, figure.value - low)], [max(0.0, high - figure.value)]]


def _label(one: Evaluation, place: int) -> str:
    last = one.output.rstrip("/").rpartition("/")[2]
    shown = last if len(last) <= 40 else f"{last[:37]}..."
    return f"{place + 1} {shown}".encode("ascii", "replace").decode()
