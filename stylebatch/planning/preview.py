"""Which samples a preview shows: a few that stand for all classes, rows and columns.

1. The classes share a preview equally; where it has not room for all, evenly spaced ones are shown.
2. The samples of a class, in their order, are cut into as many stretches as its share, so that a preview reaches from its first
   to its last.
3. Of each stretch the sample is shown whose style, content, ... were shown least so far; of several, one whose are rarest;
   of several, one at a place that differs from stretch to stretch, since lists repeat themselves at even distances.
A product has no list to walk through: rows are chosen by 1 and 2, and meet columns, chosen alike, along diagonals.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from stylebatch.data.rows import Cell
from stylebatch.data.sources.path_items import with_facts
from stylebatch.planning.axes import Axis, ImageAxis, PromptAxis
from stylebatch.planning.prompts import PromptRow
from stylebatch.planning.run_inputs import Inputs
from stylebatch.planning.split_axes import portions_of

_GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, less their whole parts, come close to no pattern."""


@dataclass(frozen=True)
class Shown:
    """What a sample shows: its class, and what else should vary, the most important first."""

    label: str
    facets: tuple[Hashable, ...] = ()


Drawn = Callable[[int], tuple[int, ...]]
"""The columns that a row meets, where the pairing is sampled."""


def previewed_inputs(inputs: Inputs, limit: int, drawn: Callable[[], Drawn] | None) -> Inputs:
    """The inputs of a preview of `limit` samples, or of all. `drawn`: where the pairing is sampled."""
    first = inputs.axes[0]
    if isinstance(first, PromptAxis):
        rows = _preview_of_prompts(first, inputs.set_of, limit)
        set_of = inputs.set_of
        if set_of is not None:
            set_of = tuple(set_of[row] for row in rows)
        return replace(inputs, axes=(first.chosen(rows), *inputs.axes[1:]), set_of=set_of)
    assert isinstance(first, ImageAxis)
    labels = [item.label for item in with_facts(first.items)] or [""] * len(first)
    if first.splits:  # as classes of their own, so that a preview shows each split
        labels = [f"{split}\0{label}" for split, label in zip(first.splits, labels, strict=True)]
    if inputs.listed is not None:
        listed, prompts = inputs.listed, _prompts_of(inputs)
        samples = [_shown_cell(cell, labels, prompts) for cell in listed]
        return replace(inputs, listed=tuple(listed[i] for i in preview_of_rows(samples, limit)))
    if drawn is not None:
        cells = preview_of_sample(labels, drawn(), limit)
    elif inputs.axes[1].splits:
        cells = _preview_of_disjoint(inputs, labels, limit)
    else:
        cells = preview_of_product(labels, _labels(inputs.axes[1]), limit)
    return replace(inputs, listed=tuple(Cell(row, column) for row, column in cells))


def _preview_of_disjoint(
    inputs: Inputs, labels: Sequence[str], limit: int
) -> list[tuple[int, int]]:
    """As `preview_of_product`, of each split, since rows and columns meet within one alone."""
    portions = [p for p in portions_of(inputs.axes) if p.columns is not None]
    sizes = [len(p.rows) * len(p.columns) for p in portions if p.columns is not None]
    cells: list[tuple[int, int]] = []
    for portion, share in zip(portions, _shares(sizes, limit), strict=True):
        rows = portion.rows.tolist()
        columns = [] if portion.columns is None else portion.columns.tolist()
        found = preview_of_product([labels[row] for row in rows], [""] * len(columns), share)
        cells += [(rows[row], columns[column]) for row, column in found]
    return sorted(cells)


def _prompts_of(inputs: Inputs) -> list[PromptRow]:
    """The prompts of the columns; none where these are images."""
    second = inputs.axes[1]
    return (
        [second.at(place) for place in range(len(second))] if isinstance(second, PromptAxis) else []
    )


def _shown_cell(cell: Cell, labels: Sequence[str], prompts: Sequence[PromptRow]) -> Shown:
    if not prompts:
        return Shown(cell.label or labels[cell.row], (cell.column, cell.row))
    row = prompts[cell.column]
    return Shown(row.label or labels[cell.row], (cell.row, row.number, row.prompt))


def _labels(axis: Axis) -> list[str]:
    if isinstance(axis, PromptAxis):
        return [axis.at(place).label for place in range(len(axis))]
    return [""] * len(axis)


def _preview_of_prompts(axis: PromptAxis, set_of: Sequence[int] | None, limit: int) -> list[int]:
    """`limit` of the prompts, spread over classes and prompts; the first prompt of each set before others.

    A set whose first prompt is left out is left out, since its prompts take their style from it.
    """
    rows = [axis.at(place) for place in range(len(axis))]
    shown = [Shown(row.label, (row.style, row.number, row.prompt)) for row in rows]
    if set_of is None:
        return preview_of_rows(shown, limit)
    starts = [
        place for place, column in enumerate(set_of) if not place or set_of[place - 1] != column
    ]
    firsts = starts if len(starts) > 1 or not rows[0].reference else []
    chosen = [firsts[i] for i in preview_of_rows([shown[row] for row in firsts], limit)]
    others = sorted(set(range(len(rows))) - set(chosen))
    more = preview_of_rows(
        [shown[row] for row in others], limit - len(chosen), [shown[row] for row in chosen]
    )
    return sorted([*chosen, *(others[i] for i in more)])


def preview_of_product(
    labels: Sequence[str], column_labels: Sequence[str], limit: int
) -> list[tuple[int, int]]:
    """`limit` crossings of rows and columns with these labels; every row and column where there is room."""
    rows = [stretch[0] for stretch in _stretches(labels, limit)]
    columns = sorted(stretch[0] for stretch in _stretches(column_labels, limit))
    walk = diagonals(len(rows), len(columns), limit)
    return sorted((rows[row], columns[column]) for row, column in walk)


def preview_of_sample(labels: Sequence[str], drawn: Drawn, limit: int) -> list[tuple[int, int]]:
    """`limit` pairs of those that are drawn for contents with these `labels`."""
    contents = sorted(stretch[0] for stretch in _stretches(labels, limit))
    pairs = [(content, style) for content in contents for style in drawn(content)]
    shown = [Shown(labels[content], (style, content)) for content, style in pairs]
    return sorted(pairs[index] for index in preview_of_rows(shown, limit))


def preview_of_rows(rows: Sequence[Shown], limit: int, before: Sequence[Shown] = ()) -> list[int]:
    """Ascending indices of `limit` of the `rows`, or all; `before`: what the preview shows already."""
    total = Counter(_facets(rows))
    uses = Counter(_facets(before))

    def need(index: int) -> tuple[int, ...]:
        facets = list(enumerate(rows[index].facets))
        return (*(uses[facet] for facet in facets), *(total[facet] for facet in facets))

    chosen: list[int] = []
    for stretch in _stretches([row.label for row in rows], limit):
        # another place in each stretch: a list that repeats itself would show one style again and again
        turn = int(len(chosen) * _GOLDEN % 1 * len(stretch))
        best = min([*stretch[turn:], *stretch[:turn]], key=need)
        uses.update(enumerate(rows[best].facets))
        chosen.append(best)
    return sorted(chosen)


def diagonals(num_rows: int, num_columns: int, limit: int) -> list[tuple[int, int]]:
    """The first `limit` crossings of a walk over a whole product that visits all rows and columns early.

    Every crossing comes exactly once in `num_rows * num_columns` steps.
    """
    # after a period the diagonal closes, and the next begins a column further
    period = math.lcm(num_rows, num_columns)
    count = min(limit, num_rows * num_columns)
    return [(i % num_rows, (i + i // period) % num_columns) for i in range(count)]


def _facets(rows: Sequence[Shown]) -> list[tuple[int, Hashable]]:
    """Facets of all rows, each with its place, since a content and a style may have one number."""
    return [facet for row in rows for facet in enumerate(row.facets)]


def _stretches(labels: Sequence[str], limit: int) -> list[list[int]]:
    """Indices of the labels in `limit` stretches, or one each: those of a class in as many as its share."""
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    shares = _shares([len(places) for places in members.values()], limit)
    return [
        places[i * len(places) // share : (i + 1) * len(places) // share]
        for places, share in zip(members.values(), shares, strict=True)
        for i in range(share)
    ]


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` dealt out as equally as can be, to none more than its size; of more sizes, to evenly spaced ones."""
    if count < len(sizes):
        chosen = set(_spaced(range(len(sizes)), count))
        return [int(index in chosen) for index in range(len(sizes))]
    # small classes first: what they cannot take is left for the others
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(order):
        shares[index] = min(sizes[index], count // (len(sizes) - place))
        count -= shares[index]
    return shares


def _spaced(items: Sequence[int], count: int) -> list[int]:
    """`count` of the items, or all, at even distances."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
