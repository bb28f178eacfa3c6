"""Writes an output as one self-contained HTML page to look through: the viewer's page, with its samples in it as JSON.

Each input is embedded once. The page loads nothing and its policy forbids it to.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from stylebatch.folder import Folder, Place
from stylebatch.masking import printable
from stylebatch.methods.input_kinds import kinds_of
from stylebatch.planning.shard_names import parsed_name
from stylebatch.reports.chosen import SpreadOfSuccess
from stylebatch.reports.committed import Committed, Row, ShardRows
from stylebatch.reports.page_columns import SEARCHED, Coder, PageColumns, plain
from stylebatch.reports.page_state import facts, marks_head, reasons_told, summary
from stylebatch.reports.parameters import parameters
from stylebatch.reports.pictures import Pictures, Wanted, load_pictures
from stylebatch.reports.reasons import Reasons
from stylebatch.reports.templating import filled
from stylebatch.reports.verdicts import REJECTED
from stylebatch.spec.splits import REST
from stylebatch.words import counted

RESULT_SIDE = 256
INPUT_SIDE = 160
PAGE = "gallery.html"
SCRIPTS = ("table.js", "histogram.js", "grid.js", "sample.js", "page.js", "embedded.js")
MAX_SAMPLES = 400
MAX_FAILURES = 500
_MARKUP = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def gallery(output: Place, *, max_samples: int = MAX_SAMPLES) -> str:
    """Write OUTPUT/gallery.html from the committed shards; returns its place. The same records give the same bytes.

    Shows up to `max_samples` successful samples, evenly spaced in key order, and the first 500 failed or rejected ones.
    """
    output = Folder.at(output)
    committed = Committed(output)
    rows = GalleryRows(committed.num_success, max_samples)
    for shard in committed.read():
        rows.add(shard)
    return write_gallery(committed, rows, load_pictures(output, rows.wanted()))


class GalleryRows:
    """Collects the rows of a gallery while the shards are read."""

    def __init__(self, num_success: int, max_samples: int = MAX_SAMPLES) -> None:
        self.chosen = SpreadOfSuccess(num_success, max_samples, MAX_FAILURES)
        self.schema = pa.schema([])
        self.num_shards = 0
        self.counts = Counter[str]()

    def add(self, shard: ShardRows) -> None:
        self.schema = shard.table.schema
        self.num_shards += 1
        stats = shard.shard.stats
        self.counts["success"] += stats.num_success
        self.counts["failed"] += stats.num_failed
        self.counts[REJECTED] += stats.num_rejected
        self.chosen.add(shard)

    def wanted(self) -> Iterator[Wanted]:
        return (Wanted(row, (RESULT_SIDE, RESULT_SIDE)) for row in self.chosen.rows)

    @property
    def table(self) -> pa.Table:
        """What is shown: successes, then the others. `shard` would be a name here, and is left out."""
        kept = pa.schema([field for field in self.schema if field.name != "shard"])
        return pa.Table.from_pylist([*self.chosen.rows, *self.chosen.failed], schema=kept)


def write_gallery(committed: Committed, rows: GalleryRows, pictures: Pictures) -> str:
    shown, run = [*rows.chosen.rows, *rows.chosen.failed], committed.run
    columns = PageColumns.of(rows.schema)
    common, others = _divided([plain(row) for row in shown])
    held = {
        "state": _state(committed, rows, columns),
        "head": marks_head(run),
        "count": len(shown),
        **_coded(rows.table, columns, shown),
        "common": common,
        "rows": others,
        "searched": [name for name in SEARCHED if name in rows.schema.names],
        "lineage": [[["made with", printable(one)]] if one else [] for one in parameters(shown, run.option_names)[1]],
        "results": [_result(pictures, row) for row in shown],
        "inputs": _inputs(pictures, rows.schema.names, shown),
    }  # fmt: skip
    values = {"name": run.name, "scripts": SCRIPTS, "samples": script_json(held)}
    page = filled(PAGE, values, plain=escaped, filters={"raw": str})
    committed.output.write(PAGE, page.encode())
    return committed.output.where(PAGE)


def escaped(text: str) -> str:
    """Text of an element or a quoted attribute; characters that turn the direction of what follows are spelt out."""
    return html.escape(printable(text))


def script_json(value: Any) -> str:
    """JSON in ASCII that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for mark, spelt in _MARKUP.items():
        text = text.replace(mark, spelt)
    return text


def _state(committed: Committed, rows: GalleryRows, columns: PageColumns) -> dict[str, Any]:
    run, num_shown, num_success = committed.run, len(rows.chosen.rows), rows.counts["success"]
    num_others = sum(rows.counts.values()) - num_success
    told = list(summary(run, rows.counts, rows.num_shards))
    if num_shown < num_success:
        told.append(
            f"Shows {num_shown:,} of {counted(num_success, 'sample')}, evenly spaced in key order"
        )
    if len(rows.chosen.failed) < num_others:
        told.append(
            f"and {len(rows.chosen.failed):,} of {num_others:,} that failed or were rejected"
        )
    reasons = Reasons()
    if rows.chosen.failed:
        reasons.add(rows.table.slice(num_shown))
    common, _ = parameters(rows.chosen.rows, run.option_names)
    return {
        "version": "0", "name": printable(run.name), "num_rows": num_shown + len(rows.chosen.failed), "num_chunks": 1,
        "num_planned": run.plan.num_samples, "is_loading": False, "live": False, "activity": "", "trouble": "", "problems": [],
        "newest": [], "with_pictures": ["success"], "marks": "keys.txt", "unmarked": "", "summary": told,
        "reasons": reasons_told(reasons.sorted()),
        "facts": [*([["made with", printable(common)]] if common else []), *facts(run)],
        **columns.described(rows.schema.names),
    }  # fmt: skip


def _coded(table: pa.Table, columns: PageColumns, shown: Sequence[Row]) -> dict[str, Any]:
    """Columns as lists: numbers, None for null, and codes of names."""
    found = [parsed_name(row["shard"]) for row in shown]
    splits = [REST if name is None else name.split for name in found]
    names, arrays = Coder(columns).coded(table, splits)
    count = len(columns.numbers)
    numbers = [[None if one != one else float(f"{one:.6g}") for one in a.tolist()] for a in arrays[:count]]  # fmt: skip
    return {
        "names": names,
        "numbers": numbers,
        "codes": [array.tolist() for array in arrays[count:]],
    }


def _divided(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all rows have in common, but for what a page searches, and the rest of each."""
    first = rows[0] if rows else {}
    common = {
        name: value
        for name, value in first.items()
        if name not in SEARCHED and all(name in row and row[name] == value for row in rows)
    }
    return common, [{n: v for n, v in row.items() if n not in common} for row in rows]


def _result(pictures: Pictures, row: Row) -> str:
    found = pictures.results.get(row["key"])
    return "" if found is None else _data_uri(found, RESULT_SIDE)


def _inputs(pictures: Pictures, columns: Sequence[str], shown: Sequence[Row]) -> dict[str, dict[str, str]]:  # fmt: skip
    """Pictures by kind and id, each once."""
    found: dict[str, dict[str, str]] = {}
    for kind in kinds_of(columns):
        names = dict.fromkeys(row[kind.column] for row in shown)
        there = pictures.inputs[kind.name]
        of_kind = {printable(n): _data_uri(there[n], INPUT_SIDE) for n in names if n in there}
        found[kind.name] = of_kind
    return found


def _data_uri(picture: Image.Image, side: int) -> str:
    """JPEG of the picture, at most `side` pixels."""
    # thumbnail works in place, and the sheet draws the same picture
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
