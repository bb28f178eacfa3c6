"""Some rows of a table by columns; rows that were read one by one come in such batches too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from stylebatch.errors import StylebatchError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, str]
Cells = Union["pa.Array", list[str | None]]
"""Texts of a column: of Arrow, without nulls, or with None for cells that their rows lack."""
MOST_ROWS = 1024
MOST_CHARACTERS = 1 << 24


@dataclass(frozen=True)
class Batch:
    """Neighbouring rows; `numbers`: of each, from 1."""

    numbers: Sequence[int]
    columns: Mapping[str, Cells]

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[int, Row]]) -> Batch:
        names = dict.fromkeys(name for _, row in rows for name in row)
        columns = {name: [row.get(name) for _, row in rows] for name in names}
        return cls([number for number, _ in rows], columns)

    def __len__(self) -> int:
        return len(self.numbers)

    def listed(self, name: str) -> list[str | None]:
        """The texts of a column that is there, None for cells that their rows lack."""
        cells = self.columns[name]
        return cells if isinstance(cells, list) else cells.to_pylist()

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Number and texts of each row."""
        names, cells = tuple(self.columns), map(self.listed, self.columns)
        for number, *texts in zip(self.numbers, *cells, strict=True):
            yield number, {n: t for n, t in zip(names, texts, strict=True) if t is not None}

    def head(self, count: int) -> Batch:
        """The first rows."""
        return Batch(self.numbers[:count], {n: cells[:count] for n, cells in self.columns.items()})


def batched(rows: Iterator[tuple[int, Row]]) -> Iterator[Batch]:
    """Rows in batches. An error comes behind those before it."""
    kept: list[tuple[int, Row]] = []
    size = 0
    try:
        for number, row in rows:
            kept.append((number, row))
            size += sum(map(len, row.values()))
            if len(kept) == MOST_ROWS or size > MOST_CHARACTERS:
                yield Batch.of_rows(kept)
                kept, size = [], 0
    except (StylebatchError, OSError, UnicodeError):
        # the first fault of a table is told, and what was read may have one
        if kept:
            yield Batch.of_rows(kept)
        raise
    if kept:
        yield Batch.of_rows(kept)
