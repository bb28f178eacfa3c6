"""Draws an output as one picture, by the axes that its records have.

Each set begins a new line, with its reference first. Two axes of which most pairs exist make a grid. Anything else is a row
of groups: the inputs of a sample, then its result.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from stylebatch.folder import Folder, Place
from stylebatch.methods.input_kinds import SET, TEXT, InputKind, kinds_of
from stylebatch.reports.chosen import FirstOfSets, FirstPairs, Spread
from stylebatch.reports.committed import Committed, ShardRows
from stylebatch.reports.pair_grid import PairGrid
from stylebatch.reports.pictures import Pictures, Wanted, load_pictures
from stylebatch.reports.sample_lines import Lines

MAX_OF_A_SET = 12


@dataclass(frozen=True)
class Limits:
    """How much a sheet shows; `cell` in pixels, None: as large as the pictures, from 128 to 256."""

    rows: int = 16
    columns: int = 16
    cell: int | None = None

    @property
    def samples(self) -> int:
        return max(1, self.rows * self.columns // 4)


class Sheet(Protocol):
    """What a sheet draws: `wanted` pictures."""

    def wanted(self) -> Iterator[Wanted]: ...
    def draw(self, pictures: Pictures) -> Image.Image: ...


def contact_sheet(
    output: Place, *, max_rows: int = 16, max_columns: int = 16, cell: int | None = None
) -> str:
    """Write OUTPUT/contact_sheet.png from the committed shards; returns its place. The same records give the same bytes.

    A grid shows the first ids of its axes in key order; a sample that is not committed is blank there. Other samples are
    evenly spaced over all. One that failed is a grey cell with its error code.
    """
    output = Folder.at(output)
    committed = Committed(output)
    rows = SheetRows(committed.num_samples, Limits(max_rows, max_columns, cell))
    for shard in committed.read():
        rows.add(shard)
    sheet = rows.sheet()
    return write_sheet(output, sheet, load_pictures(output, sheet.wanted()))


def write_sheet(output: Folder, sheet: Sheet, pictures: Pictures) -> str:
    buffer = io.BytesIO()
    sheet.draw(pictures).save(buffer, "PNG")
    output.write("contact_sheet.png", buffer.getvalue())
    return output.where("contact_sheet.png")


class SheetRows:
    """Collects the rows of a sheet while the shards are read; `sheet` says how they are drawn."""

    def __init__(self, num_samples: int, limits: Limits) -> None:
        self.limits = limits
        self.axes: tuple[InputKind, ...] = ()
        self.sets: FirstOfSets | None = None
        self.pairs: FirstPairs | None = None
        self.spread = Spread(num_samples, limits.samples)
        self._is_new = True

    def add(self, shard: ShardRows) -> None:
        if self._is_new:
            self._choose(shard.table.column_names)
        if self.pairs is not None:
            self.pairs.add(shard)
        (self.sets or self.spread).add(shard)

    def _choose(self, columns: Sequence[str]) -> None:
        self._is_new, self.axes, limits = False, kinds_of(columns), self.limits
        crossed = [axis.column for axis in self.axes] + [TEXT] * (TEXT in columns)
        if SET in columns:
            self.sets = FirstOfSets(limits.rows, MAX_OF_A_SET)
        elif len(crossed) == 2:
            self.pairs = FirstPairs((crossed[0], crossed[1]), (limits.rows, limits.columns))

    def sheet(self) -> Sheet:
        if self.sets is not None:
            return Lines(self.axes, self.sets.rows, self.limits.cell, is_sets=True)
        if self.pairs is not None and self.pairs.is_mostly_there:
            has_text = self.pairs.columns[1] == TEXT
            # one image with many prompts, or many with one, read better as groups; variants of a pair are all worth showing
            if not has_text or (min(map(len, self.pairs.ids)) > 1 and not self.pairs.num_repeated):
                return PairGrid(self.axes, self.pairs, self.limits.cell)
        return Lines(self.axes, self.spread.rows, self.limits.cell)
