"""Draws samples as lines of pictures of one height: inputs and result side by side, or a reference and its set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from stylebatch.methods.input_kinds import SET, TEXT, InputKind
from stylebatch.reports.canvas import TARGET_WIDTH, Canvas, SheetLayout, failure
from stylebatch.reports.committed import Row
from stylebatch.reports.pictures import Pictures, Wanted, short_names

WIDEST = 1100
"""Pixels of one picture in a line."""
CELL = 192
REFERENCE = "reference"
"""Kind of the axis that stands first in the line of a set."""

Names = Mapping[str, Mapping[str, str]]
"""Short names by kind and id."""


@dataclass(frozen=True)
class Figure:
    """A picture, or what is said instead, with its caption: what kind of input it is, and its name."""

    picture: Image.Image | None
    kind: str
    caption: str
    instead: str

    def width(self, cell: int) -> int:
        if self.picture is None:
            return cell
        return max(1, round(self.picture.width * cell / self.picture.height))


Group = Sequence[Figure]
"""Pictures that stay side by side."""


@dataclass(frozen=True)
class Lines:
    """Rows in the order given. `is_sets`: each set begins a new line, with its reference first."""

    axes: tuple[InputKind, ...]
    rows: Sequence[Row]
    given_cell: int | None
    is_sets: bool = False

    @property
    def cell(self) -> int:
        if self.given_cell is not None:
            return self.given_cell
        height = max((row["height"] for row in self.rows), default=CELL)
        return max(128, min(CELL, height))

    def wanted(self) -> Iterator[Wanted]:
        cell = self.cell
        return (Wanted(row, (max(WIDEST, cell), cell)) for row in self.rows)

    def draw(self, pictures: Pictures) -> Image.Image:
        layout = SheetLayout(self.cell)
        names = {
            axis.name: short_names(row[axis.column] for row in self.rows) for axis in self.axes
        }
        if self.is_sets:
            sets = self._sets(pictures, names)
            lines = [line for one in sets for line in wrapped(one, layout, TARGET_WIDTH)]
        else:
            groups = [self._sample(row, pictures, names, self.axes) for row in self.rows]
            lines = list(wrapped(groups, layout, _about_square(groups, layout)))
        return _drawn(lines, layout)

    def _sample(
        self, row: Row, pictures: Pictures, names: Names, axes: Sequence[InputKind]
    ) -> list[Figure]:
        """The inputs of a row by these axes, then its result."""
        figures = []
        for kind, name in ((axis.name, row[axis.column]) for axis in axes):
            figures.append(Figure(pictures.inputs[kind].get(name), kind, names[kind][name], kind))
        caption = str(row.get(TEXT, row["key"]))
        return [*figures, Figure(pictures.results.get(row["key"]), "", caption, failure(row))]

    def _sets(self, pictures: Pictures, names: Names) -> list[list[Group]]:
        sets: dict[str, list[Group]] = {}
        axes = [axis for axis in self.axes if axis.name != REFERENCE]
        for row in self.rows:
            picture = pictures.inputs[REFERENCE].get(row["reference"])
            reference = Figure(picture, REFERENCE, row[SET], REFERENCE)
            groups = sets.setdefault(row[SET], [[reference]])
            # a prompt that is the reference stands first already
            if row["id"] != row["reference"]:
                groups.append(self._sample(row, pictures, names, axes))
        return list(sets.values())


def _width(group: Group, layout: SheetLayout) -> int:
    return sum(figure.width(layout.cell) + layout.gutter for figure in group) - layout.gutter


def _gap(layout: SheetLayout, group: Group) -> int:
    """Pixels between groups: more than within one."""
    return layout.margin if len(group) > 1 else layout.gutter


def _about_square(groups: Sequence[Group], layout: SheetLayout) -> int:
    """Pixels of a line with which the sheet is somewhat wider than high, to half a group."""
    total = sum(_width(group, layout) + _gap(layout, group) for group in groups)
    # area of all pictures = total x cell; width 1.6 times the height
    ideal = math.sqrt(1.6 * total * layout.cell)
    return min(TARGET_WIDTH, round(ideal + total / len(groups) / 2))


def wrapped(groups: Sequence[Group], layout: SheetLayout, limit: int) -> Iterator[list[Group]]:
    """Groups side by side while they fit `limit` pixels."""
    line: list[Group] = []
    used = 0
    for group in groups:
        width = _width(group, layout) + _gap(layout, group)
        if line and used + width > limit:
            yield line
            line, used = [], 0
        line.append(group)
        used += width
    yield line


def _drawn(lines: Sequence[Sequence[Group]], layout: SheetLayout) -> Image.Image:
    cell, margin, below = layout.cell, layout.margin, round(layout.font_size * 1.6)
    widths = [
        sum(_width(group, layout) + _gap(layout, group) for group in line) - _gap(layout, line[-1])
        for line in lines
    ]
    height = len(lines) * (cell + below + layout.gutter) - layout.gutter
    canvas = Canvas(layout, max(widths) + 2 * margin, height + 2 * margin)
    y = margin
    for line in lines:
        x = margin
        for group in line:
            for figure in group:
                wide = figure.width(cell)
                canvas.framed((x, y, wide, cell), figure.picture, figure.instead)
                at = (x + wide // 2, y + cell + below // 4)
                canvas.caption(at, figure.kind, figure.caption, wide)
                x += wide + layout.gutter
            x += _gap(layout, group) - layout.gutter
        y += cell + below + layout.gutter
    return canvas.image
