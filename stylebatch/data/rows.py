"""The requested crossings of a run's two axes, where they are listed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import overload

Texts = tuple[tuple[str, str], ...]
"""Further cells of a row, by column."""


@dataclass(frozen=True, slots=True)
class Cell:
    """By index into rows and columns; label and caption override those of the inputs. `number`: of its row in a list, from 1;
    `extra`: what further columns of that row hold.
    """

    row: int
    column: int
    label: str = ""
    caption: str = ""
    number: int = 0
    extra: Texts = ()


UNLISTED = Cell(0, 0)
"""Tells nothing of a sample that stands in no list."""


@dataclass(frozen=True)
class Diagonal(Sequence[Cell]):
    """The first row with the first column, the second with the second: the cells at `places`, of which none is held."""

    places: range

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Cell]:
        return (Cell(place, place) for place in self.places)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> Diagonal: ...
    def __getitem__(self, index: int | slice) -> Cell | Diagonal:
        if isinstance(index, slice):
            return Diagonal(self.places[index])
        place = self.places[index]
        return Cell(place, place)


@dataclass(frozen=True)
class ListedCells(Sequence[Cell]):
    """Cells of a list as columns of int64, of which a million take 24 MB. `labels`, `captions`, `extras`: empty where no cell has any."""

    rows: array[int]
    columns: array[int]
    numbers: Sequence[int]
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    extras: tuple[Texts, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Cell]:
        texts = (self.labels or repeat(""), self.captions or repeat(""))
        extras = self.extras or repeat(())
        return map(Cell, self.rows, self.columns, *texts, self.numbers, extras)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> ListedCells: ...
    def __getitem__(self, index: int | slice) -> Cell | ListedCells:
        labels, captions = self.labels, self.captions
        if isinstance(index, slice):
            numbers = (self.rows[index], self.columns[index], self.numbers[index])
            return ListedCells(*numbers, labels[index], captions[index], self.extras[index])
        return Cell(
            self.rows[index],
            self.columns[index],
            labels[index] if labels else "",
            captions[index] if captions else "",
            self.numbers[index],
            self.extras[index] if self.extras else (),
        )


def facts_of(cells: Sequence[Cell]) -> Iterator[tuple[int, int, str, str]]:
    """Row, column, label and caption of each."""
    if isinstance(cells, ListedCells):
        yield from zip(
            cells.rows,
            cells.columns,
            cells.labels or repeat(""),
            cells.captions or repeat(""),
            strict=False,
        )
    else:
        yield from ((cell.row, cell.column, cell.label, cell.caption) for cell in cells)


def with_texts(cells: Sequence[Cell] | None) -> Sequence[Cell]:
    """Those of the cells that may have a label or a caption of their own: none of a diagonal."""
    if cells is None or isinstance(cells, Diagonal):
        return ()
    is_bare = isinstance(cells, ListedCells) and not (cells.labels or cells.captions)
    return () if is_bare else cells
