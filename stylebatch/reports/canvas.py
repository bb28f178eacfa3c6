"""Draws pictures and text: a white canvas, cells of one size, labels that fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from PIL import Image, ImageDraw, ImageOps

from stylebatch.reports.committed import Row
from stylebatch.reports.lettering import Lettering, clusters, legible
from stylebatch.reports.pictures import CONTROL


class Font(Protocol):
    """What text is measured by."""

    def getlength(self, text: str) -> float: ...


WHITE, PLACEHOLDER, INK, MUTED = "#ffffff", "#ececec", "#222222", "#777777"
TARGET_WIDTH = 2048
"""Pixels; no sheet is made wider than this to show more."""
LONGEST_LABEL = 400
"""Characters; the middle of a longer one is not even measured."""


@dataclass(frozen=True)
class SheetLayout:
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


class Canvas:
    """A white picture with the drawing verbs of the sheets."""

    def __init__(self, layout: SheetLayout, width: int, height: int) -> None:
        self.layout = layout
        self.image = Image.new("RGB", (width, height), WHITE)
        self.draw = ImageDraw.Draw(self.image)
        self.font = Lettering(layout.font_size)

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
            shown = [elide(legible(line), self.font, width - 8) for line in text.split("\n")]
            middle = (x + width // 2, y + height // 2)
            self.font.draw_lines(self.draw, middle, shown, MUTED, "m")
        else:
            fitted = ImageOps.contain(image, (width, height), Image.Resampling.BICUBIC)
            at = (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2)
            self.image.paste(fitted, at)

    def paragraph(self, origin: tuple[int, int], text: str) -> None:
        """Text in a white cell, broken into lines, at its foot."""
        x, y = origin
        cell, pad = self.layout.cell, self.layout.cell // 16
        lines = list(broken(legible(CONTROL.sub(" ", text)), self.font, cell - 2 * pad))
        most = max(1, int((cell - pad) / (self.layout.font_size * 1.5)))
        if len(lines) > most:
            lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
        shown = [elide(line, self.font, cell - 2 * pad) for line in lines]
        foot = (x + cell // 2, y + cell - pad)
        self.font.draw_lines(self.draw, foot, shown, INK, "d")

    def label(
        self, at: tuple[int, int], text: str, width: int, anchor: str, ink: str = INK
    ) -> None:
        shown = elide(legible(CONTROL.sub(" ", text)), self.font, width)
        self.font.draw(self.draw, at, shown, ink, anchor)

    def caption(self, at: tuple[int, int], kind: str, text: str, width: int) -> None:
        """`kind` in grey and `text`, centred below a picture."""
        text = legible(CONTROL.sub(" ", text))
        if kind and text:
            kind += " "
        taken = self.font.getlength(kind)
        text = elide(text, self.font, max(0, int(width - taken))) if text else ""
        start = at[0] - (taken + self.font.getlength(text)) / 2
        self.font.draw(self.draw, (start, at[1]), kind, MUTED, "la")
        self.font.draw(self.draw, (start + taken, at[1]), text, INK, "la")


def failure(row: Row) -> str:
    """What stands instead of a result."""
    if row["status"] == "rejected":
        # the code is the same for all; the rule says more
        return f"rejected:\n{row['error_message'].partition(' (')[0]}"
    return f"failed:\n{row['error_code']}"


def broken(text: str, font: Font, width: int) -> Iterator[str]:
    """Lines of whole words, each at most `width` pixels where its words allow."""
    line = ""
    for word in _words(text[:LONGEST_LABEL], font, width):
        longer = f"{line}{word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            longer = word.strip()
        line = longer
    yield line


def _words(text: str, font: Font, width: int) -> Iterator[str]:
    """Words with the space before them; those of scripts without spaces that are longer than a line in pieces."""
    for word in text.split():
        whole = not word.isascii() and font.getlength(word) > width
        first, *others = clusters(word) if whole else [word]
        yield f" {first}"
        yield from others


def elide(text: str, font: Font, width: int) -> str:
    """Text that fits `width` pixels: its middle is replaced by an ellipsis, so numbers at the end stay."""
    if len(text) > LONGEST_LABEL:
        text = text[: LONGEST_LABEL // 2] + text[-LONGEST_LABEL // 2 :]
    # a text that was cut is shortened further, whatever it measures: its middle is gone
    elif font.getlength(text) <= width:
        return text
    pieces = list(text) if text.isascii() else clusters(text)
    for kept in range(len(pieces) - 1, 1, -1):
        head, tail = pieces[: math.ceil(kept / 2)], pieces[len(pieces) - kept // 2 :]
        shown = f"{''.join(head)}…{''.join(tail)}"
        if font.getlength(shown) <= width:
            return shown
    return "…"


def label_width(names: Iterable[str], cell: int) -> int:
    """Pixels of the longest name, at most one cell."""
    font = Lettering(SheetLayout(cell).font_size)
    return min(cell, math.ceil(max(font.getlength(name) for name in names)))
