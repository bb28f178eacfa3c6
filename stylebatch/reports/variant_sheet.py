"""Draws a comparison: a line for each sample, with its inputs at the left and a column for each variant."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import REFERENCE, TEXT, InputKind, kinds_of
from stylebatch.quality.measures import Measure
from stylebatch.reports.canvas import INK, MUTED, Canvas, SheetLayout, failure
from stylebatch.reports.chosen import spread_indices
from stylebatch.reports.committed import Row
from stylebatch.reports.pair_grid import default_cell
from stylebatch.reports.pictures import Pictures, Wanted, load_pictures, short_names
from stylebatch.reports.variant_records import Name, VariantRecords

MOST_LINES = 24
"""Samples that are drawn; of more, evenly spaced ones."""
MOST_MEASURES = 2
"""Below each picture."""


def draw_variants(folder: Folder, records: VariantRecords) -> str:
    """Write comparison.png; returns its place. The same records give the same bytes."""
    places = spread_indices(len(records.names), MOST_LINES)
    sheet = _Sheet.of(records, [records.names[place] for place in places])
    buffer = io.BytesIO()
    sheet.draw(sheet.load()).save(buffer, "PNG")
    folder.write("comparison.png", buffer.getvalue())
    return folder.where("comparison.png")


@dataclass(frozen=True)
class _Sheet:
    """`kinds`: of the inputs that are shown; `cell`: pixels of a picture's side."""

    records: VariantRecords
    names: Sequence[Name]
    kinds: tuple[InputKind, ...]
    has_text: bool
    cell: int

    @classmethod
    def of(cls, records: VariantRecords, names: Sequence[Name]) -> _Sheet:
        shown = [records.shown(name) for name in names]
        ids = {row.get("id") for row in shown}
        # a reference that was rendered differs by variant, and is a sample of its own
        kinds = tuple(
            kind
            for kind in kinds_of(shown[0])
            if any(row[kind.column] for row in shown)
            and (kind is not REFERENCE or not all(row[kind.column] in ids for row in shown))
        )
        has_text = TEXT in shown[0]
        columns = len(kinds) + has_text + len(records.variants)
        rows = [one[name] for one in records.rows for name in names if name in one]
        return cls(records, names, kinds, has_text, default_cell(rows, columns))

    def load(self) -> list[Pictures]:
        """Of each variant."""
        box = (self.cell, self.cell)
        return [
            load_pictures(variant.output, [Wanted(rows[n], box) for n in self.names if n in rows])
            for variant, rows in zip(self.records.variants, self.records.rows, strict=True)
        ]

    def draw(self, pictures: Sequence[Pictures]) -> Image.Image:
        num_inputs = len(self.kinds) + self.has_text
        layout = _Layout(self.cell, num_inputs=num_inputs)
        width, height = layout.origin(num_inputs + len(self.records.variants), len(self.names))
        foot = round(layout.font_size * 2.5) if self._measures else 0
        canvas = Canvas(layout, width + layout.margin, height + foot)
        heads = ["prompt"] * self.has_text + [kind.name for kind in self.kinds]
        heads += [variant.name for variant in self.records.variants]
        for column, head in enumerate(heads):
            x, y = layout.origin(column, 0)
            at = (x + self.cell // 2, y - layout.font_size // 2)
            canvas.label(at, head, self.cell, "ms", MUTED if column < num_inputs else INK)
        for line, name in enumerate(self.names):
            self._draw_inputs(canvas, line, self.records.shown(name), pictures)
            for place, rows in enumerate(self.records.rows):
                at = layout.origin(num_inputs + place, line)
                self._draw_result(canvas, at, rows.get(name), pictures[place])
        if self._measures:
            told = " · ".join(
                f"{measure.name} ({measure.unit})" if measure.unit else measure.name
                for measure in self._measures
            )
            text = f"Below each result: {told}"
            canvas.label((layout.margin, height), text, width - layout.margin, "la", MUTED)
        return canvas.image

    @property
    def _measures(self) -> list[Measure]:
        return self.records.measures[:MOST_MEASURES]

    def _draw_inputs(
        self, canvas: Canvas, line: int, row: Row, pictures: Sequence[Pictures]
    ) -> None:
        layout = canvas.layout
        assert isinstance(layout, _Layout)
        if self.has_text:
            canvas.paragraph(layout.origin(0, line), row[TEXT])
        for place, kind in enumerate(self.kinds, int(self.has_text)):
            x, y = layout.origin(place, line)
            name = row[kind.column]
            # of the first variant whose output has it: where a sample failed there is none
            of_all = (one.inputs[kind.name].get(name) for one in pictures)
            canvas.picture((x, y), next(filter(None, of_all), None), kind.name if name else "")
            shown = self._short[kind.name].get(name, "")
            canvas.caption(layout.below(x, y), "", shown, self.cell)

    @property
    def _short(self) -> dict[str, dict[str, str]]:
        rows = [self.records.shown(name) for name in self.names]
        return {k.name: short_names(filter(None, (r[k.column] for r in rows))) for k in self.kinds}

    def _draw_result(
        self, canvas: Canvas, at: tuple[int, int], row: Row | None, pictures: Pictures
    ) -> None:
        layout = canvas.layout
        assert isinstance(layout, _Layout)
        if row is None:
            canvas.picture(at, None, "not rendered")
            return
        canvas.picture(at, pictures.results.get(row["key"]), failure(row))
        values = ((m, row.get(m.column)) for m in self._measures)
        shown = " · ".join("-" if value is None else m.shown(value) for m, value in values)
        if row["status"] == "success":
            canvas.caption(layout.below(*at), "", shown, self.cell)


@dataclass(frozen=True)
class _Layout(SheetLayout):
    """Columns of inputs, a margin, columns of variants; below each picture a line of text."""

    num_inputs: int = 0

    def origin(self, column: int, row: int) -> tuple[int, int]:  # type: ignore[override]
        """Left and top pixel of a cell."""
        step = self.cell + self.gutter
        below = round(self.font_size * 1.8)
        x = self.margin + column * step + (self.margin if column >= self.num_inputs else 0)
        return x, self.top + row * (step + below)

    def below(self, x: int, y: int) -> tuple[int, int]:
        """Where the text below a picture stands."""
        return x + self.cell // 2, y + self.cell + self.font_size // 4
