"""Which styles a content meets in a run, so that another one can be found for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stylebatch.data.rows import Cell, ListedCells
from stylebatch.planning.layout import Layout

Numbers = NDArray[np.int64]


class MetStyles:
    """Of a layout whose pairs are sampled or listed."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def of(self, content: int) -> frozenset[int]:
        """Columns that the content meets."""
        if self.layout.work.listed is None:
            return frozenset(self.layout.styles_of(content))
        contents, styles = self._listed
        first, end = np.searchsorted(contents, [content, content + 1])
        return frozenset(styles[first:end].tolist())

    @cached_property
    def _listed(self) -> tuple[Numbers, Numbers]:
        """Contents of all listed cells, ascending, and their styles."""
        listed = self.layout.work.listed
        assert listed is not None, "asked for a list alone"
        contents, styles = _numbers(listed)
        order = np.argsort(contents, kind="stable")
        return contents[order], styles[order]


def _numbers(listed: Sequence[Cell]) -> tuple[Numbers, Numbers]:
    if isinstance(listed, ListedCells):
        return np.frombuffer(listed.rows, np.int64), np.frombuffer(listed.columns, np.int64)
    cells = [(cell.row, cell.column) for cell in listed]
    rows, columns = np.array(cells, np.int64).reshape(-1, 2).T
    return rows, columns
