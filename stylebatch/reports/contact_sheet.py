"""Draws an output directory as one picture.

Rows are contents and columns are styles. Where few of the shown pairs exist, triplets content | style | result are drawn instead.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image, ImageDraw, ImageFont, ImageOps

from stylebatch.reports.records import (
    INPUTS,
    Row,
    committed_shards,
    read_rows,
    read_samples,
    read_tables,
    result_member,
)
from stylebatch.store.commit import write_bytes

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

DRAWN_COLUMNS = ("key", "shard", "content_id", "style_id", "width", "status", "error_code")
WHITE, PLACEHOLDER, INK, MUTED = "#ffffff", "#ececec", "#222222", "#777777"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
TARGET_WIDTH = 2048
"""Pixels; the default cell grows from 128 to 256 while the sheet stays narrower than this."""


def spread_indices(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spaced, the first included."""
    return (
        [place * count // limit for place in range(limit)] if count > limit else list(range(count))
    )


def short_names(ids: Iterable[str]) -> dict[str, str]:
    """File stem of each id, or the id where a stem is shared. Control characters become spaces."""
    stems = {name: PurePosixPath(name).stem for name in ids}
    shared = Counter(stems.values())
    names = {name: stem if shared[stem] == 1 else name for name, stem in stems.items()}
    return {name: CONTROL.sub(" ", shown) for name, shown in names.items()}


@dataclass
class Pictures:
    """Images to draw, scaled to the cell: results by key, inputs by kind and id (absent when the output stores none)."""

    results: dict[str, Image.Image] = field(default_factory=dict)
    inputs: dict[str, dict[str, Image.Image]] = field(
        default_factory=lambda: {kind: {} for kind, _, _ in INPUTS}
    )


def load_pictures(
    output: Path, rows: Sequence[Row], side: int, *, wide: int | None = None
) -> Pictures:
    """Images of the successful rows, scaled down (never up) to fit `side` pixels; every input is decoded once.

    `wide`: how wide they may be, where that is more than `side`.
    """
    by_key = {row["key"]: row for row in rows if row["status"] == "success"}
    box, pictures = (wide or side, side), Pictures()
    for key, members in read_samples(output, by_key):
        pictures.results[key] = _thumbnail(result_member(members), box)
        for kind, column, member in INPUTS:
            name, into = by_key[key].get(column), pictures.inputs[kind]
            if name is not None and name not in into and member in members:
                into[name] = _thumbnail(members[member], box)
    return pictures


def _thumbnail(data: bytes, box: tuple[int, int]) -> Image.Image:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail(box, Image.Resampling.LANCZOS)
    return image


@dataclass(frozen=True)
class Layout:
    """Geometry in pixels. Row 0 and column 0 hold the inputs; `left` and `top` are the label margins before them."""

    cell: int
    label_width: int = 0

    @property
    def gutter(self) -> int:
        return self.cell // 32

    @property
    def margin(self) -> int:
        return self.cell // 8

    @property
    def left(self) -> int:
        return self.margin + self.label_width + self.cell // 16

    @property
    def top(self) -> int:
        return self.margin + round(self.cell * 0.2)

    @property
    def font_size(self) -> int:
        return max(11, round(self.cell * 0.095))

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """Left and top pixel of a cell; results stand one margin away from the inputs."""
        step, apart = self.cell + self.gutter, self.margin - self.gutter
        x = self.left + column * step + apart * (column > 0)
        return x, self.top + row * step + apart * (row > 0)

    def triplet_origin(self, row: int, column: int, image: int) -> tuple[int, int]:
        """Left and top pixel of image 0, 1 or 2 of a triplet."""
        step, width = self.cell + self.gutter, 3 * self.cell + 2 * self.gutter + 2 * self.margin
        y = self.top + row * (round(self.cell * 1.2) + self.margin)
        return self.margin + column * width + image * step, y


def contact_sheet(
    output: Path, *, max_rows: int = 16, max_columns: int = 16, cell: int | None = None
) -> Path:
    """Write OUTPUT/contact_sheet.png from the committed shards; the same records give the same bytes.

    Shows the first contents and styles in key order. A pair that failed is a grey cell with its error code; a pair that is not
    committed is blank. When under half of the shown pairs exist, draws up to max_rows rows of triplets, evenly spaced over all.
    `cell` is in pixels; by default 128, and up to 256 where the images are larger and the columns few.
    """
    contents, styles = _axes(output, max_rows, max_columns)
    pairs = _pairs(output, contents, styles)
    if 2 * len(pairs) < len(contents) * len(styles):
        sheet = _draw_triplets(output, max_rows, max(1, max_columns // 3), cell)
    else:
        layout = grid_layout(cell or _default_cell(pairs.values(), len(styles) + 1), contents)
        sheet = _draw_grid(output, layout, contents, styles, pairs)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    path = output / "contact_sheet.png"
    write_bytes(path, buffer.getvalue())
    return path


def _axes(output: Path, max_rows: int, max_columns: int) -> tuple[list[str], list[str]]:
    """First distinct content ids and style ids in key order."""
    contents, styles = dict[str, None](), dict[str, None]()
    for table in read_tables(output, ("content_id", "style_id")):
        contents |= dict.fromkeys(table["content_id"].to_pylist())
        styles |= dict.fromkeys(table["style_id"].to_pylist())
        if len(contents) >= max_rows and len(styles) >= max_columns:
            break
    return list(contents)[:max_rows], list(styles)[:max_columns]


def _pairs(
    output: Path, contents: Sequence[str], styles: Sequence[str]
) -> dict[tuple[str, str], Row]:
    """The first row of each shown pair."""
    pairs: dict[tuple[str, str], Row] = {}
    shown_contents, shown_styles = set(contents), set(styles)
    for row in read_rows(output, DRAWN_COLUMNS):
        if row["content_id"] in shown_contents and row["style_id"] in shown_styles:
            pairs.setdefault((row["content_id"], row["style_id"]), row)
        if len(pairs) == len(contents) * len(styles):
            break
    return pairs


def grid_layout(cell: int, contents: Sequence[str]) -> Layout:
    """Geometry of the grid: the label margin fits the longest content name, at most one cell."""
    font = ImageFont.load_default(Layout(cell).font_size)
    longest = max(font.getlength(name) for name in short_names(contents).values())
    return Layout(cell, min(cell, math.ceil(longest)))


def _default_cell(rows: Iterable[Row], columns: int) -> int:
    width = max((row["width"] for row in rows if row["status"] == "success"), default=128)
    return max(128, min(256, width, TARGET_WIDTH // columns))


class Canvas:
    """A white picture with the drawing verbs of the sheets."""

    def __init__(self, layout: Layout, width: int, height: int) -> None:
        self.layout = layout
        self.image = Image.new("RGB", (width, height), WHITE)
        self.draw = ImageDraw.Draw(self.image)
        self.font: Font = ImageFont.load_default(layout.font_size)

    def picture(self, origin: tuple[int, int], image: Image.Image | None, text: str = "") -> None:
        """An image scaled into the cell, or a light grey cell with centred text."""
        self.framed((*origin, self.layout.cell, self.layout.cell), image, text)

    def framed(
        self, box: tuple[int, int, int, int], image: Image.Image | None, text: str = ""
    ) -> None:
        """As `picture`, in a box: left, top, width, height."""
        x, y, width, height = box
        if image is None:
            self.draw.rectangle((x, y, x + width - 1, y + height - 1), fill=PLACEHOLDER)
            shown = "\n".join(elide(line, self.font, width - 8) for line in text.split("\n"))
            middle = (x + width // 2, y + height // 2)
            self.draw.multiline_text(middle, shown, MUTED, self.font, "mm", align="center")
        else:
            fitted = ImageOps.contain(image, (width, height), Image.Resampling.BICUBIC)
            at = (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2)
            self.image.paste(fitted, at)

    def label(
        self, at: tuple[int, int], text: str, width: int, anchor: str, ink: str = INK
    ) -> None:
        self.draw.text(at, elide(text, self.font, width), ink, self.font, anchor)


def elide(text: str, font: Font, width: int) -> str:
    """Text that fits `width` pixels: its middle is replaced by an ellipsis, so numbers at the end stay."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shown = f"{text[: math.ceil(kept / 2)]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(shown) <= width:
            return shown
    return "…"


def _failure(row: Row) -> str:
    return f"failed:\n{row['error_code']}"


def _draw_grid(
    output: Path,
    layout: Layout,
    contents: Sequence[str],
    styles: Sequence[str],
    pairs: Mapping[tuple[str, str], Row],
) -> Image.Image:
    pictures = load_pictures(output, list(pairs.values()), layout.cell)
    right, bottom = layout.origin(len(contents) + 1, len(styles) + 1)
    rim = layout.margin - layout.gutter
    canvas = Canvas(layout, right + rim, bottom + rim)
    cell, pad = layout.cell, layout.cell // 16
    names = short_names(styles)
    for column, style in enumerate(styles, 1):
        x, y = layout.origin(0, column)
        canvas.picture((x, y), pictures.inputs["style"].get(style), "style")
        canvas.label((x + cell // 2, y - pad), names[style], cell, "ms")
    names = short_names(contents)
    for row, content in enumerate(contents, 1):
        x, y = layout.origin(row, 0)
        canvas.picture((x, y), pictures.inputs["content"].get(content), "content")
        canvas.label((x - pad, y + cell // 2), names[content], layout.label_width, "rm")
        for column, style in enumerate(styles, 1):
            pair = pairs.get((content, style))
            if pair is not None:
                result = pictures.results.get(pair["key"])
                canvas.picture(layout.origin(row, column), result, _failure(pair))
    return canvas.image


def _draw_triplets(output: Path, max_rows: int, max_per_row: int, cell: int | None) -> Image.Image:
    count = sum(shard.num_samples for shard in committed_shards(output))
    per_row = max(1, min(max_per_row, round(math.sqrt(0.6 * count))))
    chosen = set(spread_indices(count, max_rows * per_row))
    rows = [row for index, row in enumerate(read_rows(output, DRAWN_COLUMNS)) if index in chosen]
    layout = Layout(cell or _default_cell(rows, 3 * per_row))
    pictures = load_pictures(output, rows, layout.cell)
    contents = short_names(row["content_id"] for row in rows)
    styles = short_names(row["style_id"] for row in rows)
    right, bottom = layout.triplet_origin(math.ceil(len(rows) / per_row), per_row, 0)
    canvas = Canvas(layout, right - layout.margin, bottom - layout.margin // 2)
    half, pad = layout.cell // 2, layout.cell // 24
    for index, row in enumerate(rows):
        content, style, key = row["content_id"], row["style_id"], row["key"]
        triplet = (
            ("content", pictures.inputs["content"].get(content), "content", contents[content]),
            ("style", pictures.inputs["style"].get(style), "style", styles[style]),
            ("result", pictures.results.get(key), _failure(row), key),
        )
        for place, (heading, picture, instead, name) in enumerate(triplet):
            x, y = layout.triplet_origin(index // per_row, index % per_row, place)
            canvas.picture((x, y), picture, instead)
            canvas.label((x + half, y + layout.cell + pad), name, layout.cell, "ma")
            if index < per_row:
                canvas.label((x + half, y - pad), heading, layout.cell, "ms", MUTED)
    return canvas.image
