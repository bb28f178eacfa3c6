"""Draws samples as a grid: rows are the ids of one axis, columns those of another, or texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import Image

from stylebatch.methods.input_kinds import TEXT, InputKind
from stylebatch.reports.canvas import TARGET_WIDTH, Canvas, SheetLayout, failure, label_width
from stylebatch.reports.chosen import FirstPairs
from stylebatch.reports.committed import Row
from stylebatch.reports.pictures import Pictures, Wanted, short_names


@dataclass(frozen=True)
class PairGrid:
    """Rows are the ids of the first axis, columns those of the second, or texts."""

    axes: tuple[InputKind, ...]
    pairs: FirstPairs
    given_cell: int | None

    @property
    def cell(self) -> int:
        if self.given_cell is not None:
            return self.given_cell
        return default_cell(self.pairs.pairs.values(), len(self.pairs.ids[1]) + 1)

    def wanted(self) -> Iterator[Wanted]:
        cell = self.cell
        return (Wanted(row, (cell, cell)) for row in self.pairs.pairs.values())

    def draw(self, pictures: Pictures) -> Image.Image:
        rows, columns = self.pairs.ids
        layout = grid_layout(self.cell, rows)
        right, bottom = layout.origin(len(rows) + 1, len(columns) + 1)
        rim = layout.margin - layout.gutter
        canvas = Canvas(layout, right + rim, bottom + rim)
        self._draw_heads(canvas, pictures, columns)
        names, axis = short_names(rows), self.axes[0]
        for place, one in enumerate(rows, 1):
            x, y = layout.origin(place, 0)
            canvas.picture((x, y), pictures.inputs[axis.name].get(one), axis.name)
            at = (x - layout.cell // 16, y + layout.cell // 2)
            canvas.label(at, names[one], layout.label_width, "rm")
            for column, other in enumerate(columns, 1):
                row = self.pairs.pairs.get((one, other))
                if row is not None:
                    result = pictures.results.get(row["key"])
                    canvas.picture(layout.origin(place, column), result, failure(row))
        return canvas.image

    def _draw_heads(self, canvas: Canvas, pictures: Pictures, ids: Iterable[str]) -> None:
        layout = canvas.layout
        if self.pairs.columns[1] == TEXT:
            for place, text in enumerate(ids, 1):
                canvas.paragraph(layout.origin(0, place), text)
            return
        names, axis = short_names(ids), self.axes[1]
        for place, (one, name) in enumerate(names.items(), 1):
            x, y = layout.origin(0, place)
            canvas.picture((x, y), pictures.inputs[axis.name].get(one), axis.name)
            at = (x + layout.cell // 2, y - layout.cell // 16)
            canvas.label(at, name, layout.cell, "ms")


def grid_layout(cell: int, rows: Iterable[str]) -> SheetLayout:
    """Geometry of the grid: the label margin fits the longest name of a row, at most one cell."""
    return SheetLayout(cell, label_width(short_names(rows).values(), cell))


def default_cell(rows: Iterable[Row], columns: int) -> int:
    """As large as the pictures, from 128 to 256, while `columns` of them fit."""
    width = max((row["width"] for row in rows if row["status"] == "success"), default=128)
    # 128 wins over the target width: smaller cells show nothing
    return max(128, min(256, width, TARGET_WIDTH // columns))
