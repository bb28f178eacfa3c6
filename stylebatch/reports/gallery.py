"""Writes an output as one self-contained HTML page to look through.

Each input is embedded once, as a CSS background that every card of it shares. The page loads nothing and its policy forbids it to.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from stylebatch.folder import Folder, Place
from stylebatch.masking import printable
from stylebatch.methods.input_kinds import GROUPS, TEXT, InputKind, kinds_of
from stylebatch.quality.asked import TABLE
from stylebatch.reports.chosen import SpreadOfSuccess
from stylebatch.reports.committed import Committed, Row, ShardRows
from stylebatch.reports.parameters import parameters
from stylebatch.reports.pictures import Pictures, Wanted, load_pictures, short_names
from stylebatch.reports.templating import filled
from stylebatch.words import counted

RESULT_SIDE = 256
INPUT_SIDE = 160
PAGE = "gallery.html"
MAX_SAMPLES = 400
MAX_FAILURES = 500


def gallery(output: Place, *, max_samples: int = MAX_SAMPLES) -> str:
    """Write OUTPUT/gallery.html from the committed shards; returns its place. The same records give the same bytes.

    Shows up to `max_samples` successful samples, evenly spaced in key order, and the first 500 failed or rejected ones as a table.
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
        self.columns: Sequence[str] = ()
        self.num_shards = self.num_success = self.num_failed = self.num_rejected = 0

    def add(self, shard: ShardRows) -> None:
        self.columns = shard.table.column_names
        self.num_shards += 1
        self.num_success += shard.shard.stats.num_success
        self.num_failed += shard.shard.stats.num_failed
        self.num_rejected += shard.shard.stats.num_rejected
        self.chosen.add(shard)

    def wanted(self) -> Iterator[Wanted]:
        return (Wanted(row, (RESULT_SIDE, RESULT_SIDE)) for row in self.chosen.rows)


def write_gallery(committed: Committed, rows: GalleryRows, pictures: Pictures) -> str:
    shown, columns = rows.chosen.rows, rows.columns
    axes = kinds_of(columns)
    inputs = [PageInputs.of(axis, pictures, (row[axis.column] for row in shown)) for axis in axes]
    group = next((column for column in GROUPS if column in columns), "")
    groups = short_names(row[group] for row in shown) if group else {}
    # numbers: a name in a CSS class would need escapes of its own
    classes = {name: f"s{number}" for number, name in enumerate(groups)}
    common, rest = parameters(shown, committed.run.option_names)
    is_part = len(shown) < rows.num_success
    values = {
        "name": committed.run.name,
        "summary": list(_summary(committed, rows)),
        "shown": f"Shows {len(shown):,} of {counted(rows.num_success, 'sample')}, evenly spaced in key order."
        if is_part
        else "",
        "inputs": inputs,
        "kinds": [axis.name for axis in axes],
        "groups": sorted(((classes[id_], name) for id_, name in groups.items()), key=_by_name),
        "labels": sorted({row["label"] for row in shown} - {""}),
        "measures": [measure for measure in TABLE if measure.column in columns],
        "parameters": common,
        "cards": [
            Card.of(row, pictures, axes, classes[row[group]] if group else "", other)
            for row, other in zip(shown, rest, strict=True)
        ],
        "failed": rows.chosen.failed,
        "num_failed": rows.num_failed + rows.num_rejected,
        "failed_title": _failed_title(rows),
        "failed_columns": _failed_columns(columns),
    }
    committed.output.write(PAGE, filled(PAGE, values, plain=escaped).encode())
    return committed.output.where(PAGE)


def escaped(text: str) -> str:
    """Text of an element or a quoted attribute; characters that turn the direction of what follows are spelt out."""
    return html.escape(printable(text))


def _by_name(group: tuple[str, str]) -> str:
    return group[1]


def _summary(committed: Committed, rows: GalleryRows) -> Iterator[str]:
    run, plan = committed.run, committed.run.plan
    yield f"{rows.num_success:,} of {counted(plan.num_samples, 'sample')} rendered"
    if rows.num_failed:
        yield f"{rows.num_failed:,} failed"
    if rows.num_rejected:
        yield f"{rows.num_rejected:,} rejected"
    if rows.num_shards < plan.num_shards:
        yield f"{rows.num_shards:,} of {counted(plan.num_shards, 'shard')} committed"
    counts = {
        "content": plan.num_contents,
        "style": plan.num_styles,
        "image": plan.num_images,
        "prompt": plan.num_prompts,
        "set": plan.num_sets,
    }
    yield from (counted(count, noun) for noun, count in counts.items() if count is not None)
    yield f"model {run.model}"
    yield f"plan {run.digest[:12]}"


@dataclass(frozen=True)
class PageInputs:
    """The contents, styles, ... of a page by id: pictures as data, CSS classes that show them, short names."""

    axis: InputKind
    pictures: dict[str, str]
    classes: dict[str, str]
    names: dict[str, str]

    @classmethod
    def of(cls, axis: InputKind, pictures: Pictures, ids: Iterable[str]) -> PageInputs:
        names = short_names(ids)
        found = pictures.inputs[axis.name]
        return cls(
            axis,
            {name: _data_uri(found[name], INPUT_SIDE) for name in names if name in found},
            {name: f"{axis.name}-{number}" for number, name in enumerate(names)},
            names,
        )


@dataclass(frozen=True)
class Card:
    """A sample of the page. `text`: what the search looks through; `group`: the class that the filter chooses.

    `parameters`: those that not all samples have in common.
    """

    row: Row
    picture: str
    alt: str
    text: str
    group: str
    parameters: str

    @classmethod
    def of(
        cls, row: Row, pictures: Pictures, axes: Sequence[InputKind], group: str, parameters: str
    ) -> Card:
        named = [row[axis.column] for axis in axes]
        made = [axis.words.format(name) for axis, name in zip(axes, named, strict=True) if name]
        text = row.get(TEXT, "")
        searched = [row["key"], *named, row["label"], row["caption"], text]
        return cls(
            row,
            _data_uri(pictures.results[row["key"]], RESULT_SIDE),
            " ".join([text, *made] if text else made),
            " ".join(searched).lower(),
            group,
            parameters,
        )

    @property
    def label(self) -> str:
        return str(self.row["label"])


def _failed_columns(columns: Sequence[str]) -> dict[str, str]:
    """Headings of the table of failed samples, by column."""
    inputs = {axis.column: axis.name.capitalize() for axis in kinds_of(columns)}
    text = {TEXT: TEXT.capitalize()} if TEXT in columns else {}
    return {"key": "Key"} | inputs | text | {"error_code": "Code", "error_message": "Reason"}


def _failed_title(rows: GalleryRows) -> str:
    kinds = [("Failed", rows.num_failed), ("Rejected", rows.num_rejected)]
    return f"{' and '.join(name for name, count in kinds if count)} samples".capitalize()


def _data_uri(picture: Image.Image, side: int) -> str:
    """JPEG of the picture, at most `side` pixels."""
    # thumbnail works in place, and the sheet draws the same picture
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
