"""Evaluations as a terminal, Markdown and JSON have them."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from stylebatch.evaluation.evaluate import Evaluation, Figure
from stylebatch.words import aligned, counted

FORMAT = "stylebatch evaluation"
_BRACKETS = "In brackets: the middle 95 % when contents and styles are drawn anew."
_MARK = "*: the same of the difference from output 1, draw by draw, does not hold 0."


def lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """For a terminal: a column for each output, what is unavailable with its reason, traps and faults."""
    shown = [_head(number, one) for number, one in enumerate(evaluations, 1)]
    heads = ["measure", "better", *(str(number) for number, _ in enumerate(evaluations, 1))]
    shown += ["", *aligned([heads, *_rows(evaluations)])]
    if _has_marks(evaluations):
        shown += ["", f"{_BRACKETS} {_MARK}"]
    missing = _unavailable(evaluations)
    if missing:
        shown += ["", "unavailable:", *(f"  {line}" for line in missing)]
    notes = _notes(evaluations)
    if notes:
        shown += ["", "to know:", *(f"  {note}" for note in notes)]
    return shown


def markdown(evaluations: Sequence[Evaluation], *, has_plot: bool) -> str:
    """As evaluation.md holds it."""
    shown = ["# Evaluation", ""]
    shown += [f"- {_escaped(_head(number, one))}" for number, one in enumerate(evaluations, 1)]
    columns = [str(number) for number, _ in enumerate(evaluations, 1)]
    shown += ["", f"| measure | better | {' | '.join(columns)} |"]
    shown += [f"|---|---|{'---|' * len(columns)}"]
    shown += [f"| {' | '.join(map(_escaped, row))} |" for row in _rows(evaluations)]
    shown += ["", _BRACKETS]
    if _has_marks(evaluations):
        shown.append(_MARK.replace("*", "\\*"))
    if has_plot:
        shown += ["", "![style against structure](pareto.png)"]
    says = {f.name: f.says for one in evaluations for f in one.figures if f.value is not None}
    shown += [
        "",
        "## Measures",
        "",
        *(f"- `{name}`: {_escaped(text)}" for name, text in says.items()),
    ]
    for title, found in (
        ("Unavailable", _unavailable(evaluations)),
        ("To know", _notes(evaluations)),
    ):
        if found:
            shown += ["", f"## {title}", "", *(f"- {_escaped(line)}" for line in found)]
    return "\n".join(shown) + "\n"


def document(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """As evaluation.json holds it."""
    return {
        "format": FORMAT,
        "outputs": [
            {
                "output": one.output,
                "name": one.name,
                "num_samples": one.num_samples,
                "num_styles": one.num_looks,
                "reference": one.reference,
                "measures": {figure.name: _as_dict(figure) for figure in one.figures},
                "notes": list(one.notes),
                "faults": list(one.faults),
            }
            for one in evaluations
        ],
    }


def as_json(evaluations: Sequence[Evaluation]) -> str:
    """`document` as text."""
    return json.dumps(document(evaluations), indent=1, ensure_ascii=False, allow_nan=False)


def _as_dict(figure: Figure) -> dict[str, Any]:
    found: dict[str, Any] = {"value": figure.value}
    if figure.value is None:
        found["unavailable"] = figure.unavailable
    if figure.interval is not None:
        found |= {"low": figure.interval.low, "high": figure.interval.high}
    if figure.difference is not None:
        gap = figure.difference
        found["difference_from_first"] = {"low": gap.low, "high": gap.high}
    return found | {
        "better": figure.better,
        "role": figure.role,
        "published_definition": figure.is_published,
        "says": figure.says,
    }


def _head(number: int, one: Evaluation) -> str:
    of = f", {counted(one.num_looks, 'style')}" if one.num_looks else ""
    return f"{number}  {one.output} ({one.name}): {counted(one.num_samples, 'sample')}{of}, against {one.reference}"


def _rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Of every measure that some output has."""
    names = dict.fromkeys(f.name for one in evaluations for f in one.figures if f.value is not None)
    rows = []
    for name in names:
        found = [one.value(name) for one in evaluations]
        better = next(f.better for f in found if f is not None)
        rows.append([name, better, *("-" if f is None else _shown(f) for f in found)])
    return rows


def _shown(figure: Figure) -> str:
    assert figure.value is not None
    mark = "*" if figure.is_other else ""
    if figure.interval is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g}{mark} [{figure.interval.low:.4g}, {figure.interval.high:.4g}]"


def _has_marks(evaluations: Sequence[Evaluation]) -> bool:
    return any(figure.is_other for one in evaluations for figure in one.figures)


def _unavailable(evaluations: Sequence[Evaluation]) -> list[str]:
    """`NAME: reason`, once for all outputs that have the same reason."""
    found: dict[str, list[str]] = {}
    for number, one in enumerate(evaluations, 1):
        for figure in one.figures:
            if figure.value is None:
                found.setdefault(f"{figure.name}: {figure.unavailable}", []).append(str(number))
    return [
        line if len(of) == len(evaluations) else f"{line} (output {', '.join(of)})"
        for line, of in found.items()
    ]


def _notes(evaluations: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(note for one in evaluations for note in one.notes))


def _escaped(text: str) -> str:
    """Names of files and runs stay text."""
    shown = html.escape(" ".join(text.split()), quote=False)
    # names of measures and brackets of intervals are read as text anyway; backslashes first
    for mark in "\\`*|":
        shown = shown.replace(mark, f"\\{mark}")
    return shown
