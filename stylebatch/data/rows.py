"""The requested crossings of a run's two axes, where they are listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


def with_texts(cells: Sequence[Cell] | None) -> Sequence[Cell]:
    """Those of the cells that may have a label or a caption of their own: none of a diagonal."""
    return () if cells is None or isinstance(cells, Diagonal) else cells
