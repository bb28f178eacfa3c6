"""What is to be laid out in blocks: inputs as counts, the cells that are listed, what earlier generations rendered, splits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from stylebatch.data.rows import Cell
from stylebatch.methods.method import BlockSize, MethodOptions
from stylebatch.planning.split_axes import Portion
from stylebatch.spec import RunSpec


@dataclass(frozen=True)
class Extent:
    """How much of the inputs a plan covers: rows, columns, and cells where these are listed."""

    rows: int = 0
    columns: int = 0
    cells: int = 0


NOTHING = Extent()


@dataclass(frozen=True)
class Work:
    """What is to be laid out. `counts`: rows and columns; `size`: of one sample, with the batch that memory allows.

    `axes`: their names. `listed`: cells that no arithmetic knows. `set_of`: the set of each row, and `references`: rows whose style
    their set takes. `column_parts`: what each column is prepared from (the images of a blend; nothing for a set whose
    reference is a row); without it each column is one image. `feature_bytes`: one image's queries over all timesteps.
    `buckets`: number of each row's size, where they have several; a block is of one. `former`: what earlier generations
    rendered. `portions`: the splits, none where a run makes none.
    """

    spec: RunSpec
    axes: tuple[str, ...]
    counts: tuple[int, int]
    size: BlockSize
    feature_bytes: int = 0
    listed: Sequence[Cell] | None = None
    set_of: tuple[int, ...] | None = None
    references: frozenset[int] = frozenset()
    column_parts: tuple[tuple[Hashable, ...], ...] = ()
    buckets: tuple[int, ...] = ()
    former: Extent = NOTHING
    portions: tuple[Portion, ...] = ()

    @cached_property
    def options(self) -> MethodOptions:
        """Of the method."""
        return self.spec.options

    def __getstate__(self) -> dict[str, Any]:
        return without_options(self)

    @property
    def most_parts(self) -> int:
        """Images of the column that has most; blocks are cut as if all had as many."""
        return max((len(parts) for parts in self.column_parts), default=1)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to render."""
        (rows, columns), former = self.counts, self.former
        if self.listed is not None:
            return len(self.listed) <= former.cells
        if self.set_of is not None or self.spec.pairing.mode == "sample":
            return rows <= former.rows
        return rows * columns <= former.rows * former.columns

    def of(self, portion: Portion) -> Work:
        """What a split has of it, with rows and columns counted from its own first; listed cells and sets keep their numbers."""
        rows, columns, former = portion.rows, portion.columns, self.former
        # places ascend, so that what earlier generations rendered comes first here too
        former_rows = int(np.searchsorted(rows, former.rows))
        former_columns, num_columns, parts = former.columns, self.counts[1], self.column_parts
        buckets = self.buckets
        if columns is not None:
            former_columns, num_columns = (
                int(np.searchsorted(columns, former.columns)),
                len(columns),
            )
        listed, former_cells = self.listed, 0
        if listed is not None:
            # a set: a list of a million rows is asked for each cell
            within = set(rows.tolist())
            former_cells = sum(cell.row in within for cell in listed[: former.cells])
            listed = tuple(cell for cell in listed if cell.row in within)
        else:
            buckets = tuple(buckets[row] for row in rows.tolist()) if buckets else ()
            if columns is not None and parts:
                parts = tuple(parts[place] for place in columns.tolist())
        set_of, references = self.set_of, self.references
        if set_of is not None:
            set_of = tuple(set_of[row] for row in rows.tolist())
            references = frozenset(i for i, row in enumerate(rows.tolist()) if row in references)
        return replace(
            self,
            counts=(len(rows), num_columns),
            listed=listed,
            set_of=set_of,
            references=references,
            column_parts=parts,
            buckets=buckets,
            former=Extent(former_rows, former_columns, former_cells),
            portions=(),
        )


def without_options(plan: Any) -> dict[str, Any]:
    """The state of a plan, or of a part, as another process is given it: the class of a user's method is loaded there anew."""
    return {name: value for name, value in vars(plan).items() if name != "options"}
