"""Remembers the inputs of an output in `inputs/contents.parquet` and `inputs/styles.parquet`: id, label, caption, in plan order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.data.generations import History
from stylebatch.data.sources import ImageRow
from stylebatch.store.commit import atomic_file
from stylebatch.store.ledger import read_json

COLUMNS = ("id", "label", "caption")


def remember(output: Path, contents: Sequence[ImageRow], styles: Sequence[ImageRow]) -> None:
    """Write the lists."""
    for name, rows in (("contents", contents), ("styles", styles)):
        table = pa.table({column: [getattr(row, column) for row in rows] for column in COLUMNS})
        with atomic_file(output / "inputs" / f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd")


def history(output: Path) -> History | None:
    """What the output's plans were made of, or None where no shard is committed or nothing was remembered."""
    run = read_json(output / "run.json")
    if run is None or "generations" not in run:
        return None
    if not any((output / "metadata").glob("*_stats.json")):
        return None
    sizes = tuple((int(g["num_contents"]), int(g["num_styles"])) for g in run["generations"])
    try:
        contents, styles = (
            _rows(output / "inputs" / f"{name}.parquet") for name in ("contents", "styles")
        )
    except (OSError, pa.ArrowException):
        return None
    num_contents, num_styles = sizes[-1]
    if len(contents) < num_contents or len(styles) < num_styles:
        return None
    return History(contents[:num_contents], styles[:num_styles], sizes)


def _rows(path: Path) -> tuple[ImageRow, ...]:
    table = pq.read_table(path, columns=list(COLUMNS))
    columns = [table[column].to_pylist() for column in COLUMNS]
    return tuple(
        ImageRow(id=id, path="", label=label, caption=caption)
        for id, label, caption in zip(*columns, strict=True)
    )
