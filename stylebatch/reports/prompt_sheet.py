"""Draws the output of a run of prompts as one picture: lines of pictures of one height, each with its prompt.

Sets get a line each, the reference first. Where rows have inputs (an image, a mask), these stand before the result.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stylebatch.reports.contact_sheet import CONTROL, Canvas, Layout, load_pictures, spread_indices
from stylebatch.reports.records import (
    Row,
    columns_of,
    committed_shards,
    inputs_of,
    read_rows,
)
from stylebatch.store.commit import write_bytes

CELL = 192
"""Height of the pictures in pixels."""
WIDEST = 1100
WIDTH = 2048
MAX_SAMPLES = 60
MAX_SETS, MAX_OF_A_SET = 16, 12


@dataclass(frozen=True)
class Figure:
    """A picture, or what is said instead, with its caption."""

    picture: Image.Image | None
    caption: str
    instead: str = ""

    def width(self, cell: int) -> int:
        if self.picture is None:
            return cell
        return max(1, round(self.picture.width * cell / self.picture.height))


def prompt_sheet(output: Path, *, cell: int | None = None) -> Path:
    """Write OUTPUT/contact_sheet.png from the committed shards; the same records give the same bytes.

    Shows up to 60 samples, evenly spaced in key order, or the first 12 of the first 16 sets. A sample that failed is a grey
    cell with its error code.
    """
    columns = columns_of(output)
    rows = list(_shown(output, columns))
    height = cell or min(CELL, max((row["height"] for row in rows), default=CELL))
    height = max(height, 128)
    pictures = load_pictures(output, rows, height, wide=WIDEST)
    groups: dict[str, list[Figure]] = {}
    for row in rows:
        own = []
        for kind, column, _ in inputs_of(columns):
            if kind != "reference":
                own.append(Figure(pictures.inputs[kind].get(row[column]), kind, kind))
        result = pictures.results.get(row["key"])
        own.append(Figure(result, row["prompt"], f"failed:\n{row['error_code']}"))
        if "style" not in columns:
            groups[row["key"]] = own
            continue
        name, reference = row["style"], pictures.inputs["reference"].get(row["reference"])
        line = groups.setdefault(name, [Figure(reference, f"{name or 'set'}: reference")])
        if row["id"] != row["reference"]:
            line += own
    buffer = io.BytesIO()
    lines = list(groups.values())
    if "style" not in columns:
        lines = list(_wrapped(lines, height))
    _draw(lines, height).save(buffer, "PNG")
    path = output / "contact_sheet.png"
    write_bytes(path, buffer.getvalue())
    return path


def _shown(output: Path, columns: Sequence[str]) -> Iterator[Row]:
    wanted = ["key", "id", "prompt", "status", "error_code", "width", "height"]
    wanted += [column for _, column, _ in inputs_of(columns)]
    if "style" not in columns:
        count = sum(shard.num_samples for shard in committed_shards(output))
        chosen = set(spread_indices(count, MAX_SAMPLES))
        yield from (row for i, row in enumerate(read_rows(output, wanted)) if i in chosen)
        return
    counts: dict[str, int] = {}
    for row in read_rows(output, [*wanted, "style"]):
        if row["style"] not in counts and len(counts) == MAX_SETS:
            return
        counts[row["style"]] = counts.get(row["style"], 0) + 1
        if counts[row["style"]] <= MAX_OF_A_SET:
            yield row


def _wrapped(groups: Sequence[Sequence[Figure]], cell: int) -> Iterator[list[Figure]]:
    """Groups put side by side while they fit; about as wide as high, at most `WIDTH`."""
    widths = [sum(figure.width(cell) for figure in group) for group in groups]
    limit = min(WIDTH, max(*widths, round((1.6 * sum(widths) * cell) ** 0.5)))
    line: list[Figure] = []
    used = 0
    for group, width in zip(groups, widths, strict=True):
        if line and used + width > limit:
            yield line
            line, used = [], 0
        line += group
        used += width
    yield line


def _draw(lines: Sequence[Sequence[Figure]], cell: int) -> Image.Image:
    layout = Layout(cell)
    gap, margin, below = layout.gutter, layout.margin, round(layout.font_size * 1.6)
    width = max(sum(figure.width(cell) + gap for figure in line) for line in lines) - gap
    height = len(lines) * (cell + below + gap)
    canvas = Canvas(layout, width + 2 * margin, height + 2 * margin - gap)
    y = margin
    for line in lines:
        x = margin
        for figure in line:
            wide = figure.width(cell)
            canvas.framed((x, y, wide, cell), figure.picture, figure.instead)
            text = CONTROL.sub(" ", figure.caption)
            canvas.label((x + wide // 2, y + cell + below // 4), text, wide, "ma")
            x += wide + gap
        y += cell + below + gap
    return canvas.image
