"""Measures that were added to a finished output: where their columns stand, and how a shard's records get them.

A shard changes in three writes, each whole or not at all, so that one of two states holds after a kill between any two:
1. its marker names the sha256 of the records to come beside that of those that are there (`pending_sha256`);
2. the records are replaced: the marker commits them as well as the former ones;
3. the marker names the new records alone, and by what they were measured (`measured`).
The payload is never touched. Shards that a run renders later, or again, lack the columns until they are measured: readers find null.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.faults import passing
from stylebatch.folder import Folder
from stylebatch.quality.asked import MEASURES_ASKED, asked_columns
from stylebatch.quality.measures import MEASURES
from stylebatch.spec import canonical_json
from stylebatch.store.names import marker, metadata_file
from stylebatch.store.output_record import MeasuredBy, ShardStats


def commits(stats: ShardStats, metadata: bytes) -> bool:
    """Whether these are the records of the shard."""
    found = hashlib.sha256(metadata).hexdigest()
    return found in (stats.metadata_sha256, stats.pending_sha256)


def columns_of_measured(measured: MeasuredBy | None) -> list[str]:
    """Columns that were added."""
    return [] if measured is None else [one.column for one in asked_columns(measured.measures)]


def digest_of(measured: MeasuredBy) -> str:
    """Another one where other columns are asked for, or another classifier."""
    text = canonical_json(measured.model_dump(mode="json"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_columns(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """With these columns, null where the table lacks them."""
    lacking = [name for name in names if name not in table.column_names]
    nothing = pa.nulls(len(table), pa.float64())
    return _placed(table, {name: nothing for name in lacking}) if lacking else table


def with_values(table: pa.Table, values: Mapping[str, Sequence[float | None]]) -> pa.Table:
    """With these columns; those of such names make way."""
    former = [name for name in values if name in table.column_names]
    arrays = {name: pa.array(column, pa.float64()) for name, column in values.items()}
    return _placed(table.drop_columns(former), arrays)


def _placed(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """With further columns behind the measures, in the order of the table of measures."""
    order = [one.column for one in (*MEASURES, *MEASURES_ASKED)]
    for name in sorted(columns, key=order.index):
        before = set(order[: order.index(name)])
        places = [place for place, one in enumerate(table.column_names) if one in before]
        place = places[-1] + 1 if places else table.num_columns
        table = table.add_column(place, pa.field(name, pa.float64()), columns[name])
    return table


def replace_records(
    output: Folder, name: str, stats: ShardStats, table: pa.Table, measured: str
) -> ShardStats:
    """Put `table` in the place of a shard's records; `measured`: what they were measured by. Returns the new stats."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    _write(output, name, stats.model_copy(update={"pending_sha256": sha256}))
    passing("before metadata")
    output.write(metadata_file(name), data)
    passing("after metadata")
    done = stats.model_copy(
        update={"metadata_sha256": sha256, "pending_sha256": "", "measured": measured}
    )
    passing("before marker")
    _write(output, name, done)
    passing("after marker")
    return done


def _write(output: Folder, name: str, stats: ShardStats) -> None:
    told = stats.model_dump(mode="json", exclude_unset=True)
    if not told.get("pending_sha256"):
        told.pop("pending_sha256", None)
    output.write(marker(name), json.dumps(told, indent=1).encode())
