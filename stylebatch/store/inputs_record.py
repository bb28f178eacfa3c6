"""Remembers the inputs of an output in `inputs/contents.parquet`, `inputs/styles.parquet`, ...: what its plans were made of.

A row holds the facts of one item of an axis, in plan order; `inputs/cells.parquet` has the cells where they are listed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import PlanChangedError, UnansweredError
from stylebatch.folder import Folder
from stylebatch.planning.growth import History
from stylebatch.planning.plan import Plan
from stylebatch.planning.work import Extent
from stylebatch.store.ledger import CELLS, Ledger, axis_file
from stylebatch.store.output_record import RunRecord, find_run

COLUMN = "facts"
MOST_BYTES = 1 << 34


def remember(output: Folder, plan: Plan) -> None:
    """Write the lists, where they are not there already."""
    ids = []
    for axis in plan.axes:
        facts = list(axis.facts())
        ids.append([one[0] for one in facts])
        _write(output, axis_file(axis.name), facts)
    listed = plan.layout.work.listed
    if listed is not None:
        cells = ((ids[0][c.row], ids[1][c.column], c.label, c.caption) for c in listed)
        _write(output, CELLS, cells)


def _write(output: Folder, path: str, rows: Iterable[Sequence[str]]) -> None:
    table = pa.table({COLUMN: pa.array(rows, pa.list_(pa.string()))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    try:
        # not written again: in a store each start would make a new version of a large object
        same = output.read(path, MOST_BYTES) == buffer.getvalue()
    except UnansweredError:
        raise
    except OSError:
        same = False
    if not same:
        output.write(path, buffer.getvalue())


def history(output: Folder) -> History | None:
    """What the output's plans were made of, or None where no shard is committed or nothing was remembered.

    Raises ManifestError for a run.json that is not ours or damaged, PlanChangedError for an output that grew and whose
    inputs are not remembered.
    """
    run = find_run(output)
    if run is None or not run.generations or run.limit is not None:
        return None
    has_grown = len(run.generations) > 1
    if not has_grown and not Ledger(output).has_commits:
        return None
    paths = [axis_file(name) for name in run.axes]
    last = run.generations[-1]
    counts = [last.num_rows, last.num_columns][: len(paths)]
    if last.num_cells:
        paths, counts = [*paths, CELLS], [*counts, last.num_cells]
    found = [_rows(output, path, count) for path, count in zip(paths, counts, strict=True)]
    rows = [one for one in found if one is not None]
    if len(rows) == len(found):
        return _history(run, rows)
    if has_grown:
        damaged = next(path for path, one in zip(paths, found, strict=True) if one is None)
        raise PlanChangedError(
            f"{output.where(damaged)}: missing or damaged; an output that grew is continued by it.\nNext: copy the folder inputs/ of this "
            "output again, or render into another directory with --output DIR."
        )
    return None


def _history(run: RunRecord, rows: Sequence[tuple[tuple[str, ...], ...]]) -> History:
    cells = None
    if len(rows) > len(run.axes):
        cells = tuple((one[0], one[1], one[2], one[3]) for one in rows[-1])
    extents = tuple(
        Extent(part.num_rows, part.num_columns, part.num_cells) for part in run.generations
    )
    classes = tuple(
        None
        if run.labels is None or part.num_classes is None
        else tuple(run.labels[: part.num_classes])
        for part in run.generations
    )
    return History(tuple(rows[: len(run.axes)]), cells, extents, classes)


def _rows(output: Folder, path: str, count: int) -> tuple[tuple[str, ...], ...] | None:
    """The first `count` rows, None where they are missing or damaged."""
    try:
        data = output.read(path, MOST_BYTES)
        table = pq.read_table(pa.BufferReader(data), columns=[COLUMN])
    except UnansweredError:
        raise
    except (OSError, ValueError, pa.ArrowException):
        return None
    # more is fine: a start that was killed before its run.json had written a longer list
    if len(table) < count or table.schema.field(COLUMN).type != pa.list_(pa.string()):
        return None
    rows = table[COLUMN].slice(0, count).to_pylist()
    if any(not row or None in row for row in rows):
        return None
    if path == CELLS and any(len(row) != 4 for row in rows):
        return None
    return tuple(tuple(row) for row in rows)
