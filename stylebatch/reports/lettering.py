"""Writes text of any script on pictures: in the fonts that have its characters, else transliterated; never as empty boxes.

1. A text is cut into clusters: a letter with its marks, an emoji with what modifies it.
2. Each gets a font that has it. What no font has, or what needs a shaping that Pillow lacks here, is written in ASCII, or as U+1234.
3. Clusters of one font and direction are a run. Runs are put in the order of the eye, from left to right.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import chain, groupby
from typing import Literal

from anyascii import anyascii
from PIL import Image, ImageDraw

from stylebatch.reports.fonts import OWN, Font, can_shape, font_at, font_for, has_glyph

Direction = Literal["ltr", "rtl"]
SHAPED = {
    *("ARABIC", "SYRIAC", "THAANA", "NKO", "HEBREW", "MONGOLIAN", "TIBETAN", "MYANMAR", "KHMER"),
    *("DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA"),
    *("MALAYALAM", "SINHALA"),
}
"""First words of the names of letters that cannot be read unless they are joined, stacked or turned round."""
JOINERS = "\u200c\u200d"
"""They change the letters beside them, and have no glyph."""


@dataclass(frozen=True)
class Run:
    """Text in one font and direction."""

    text: str
    path: str
    direction: Direction


@dataclass(frozen=True)
class Lettering:
    """Text of a `size` in pixels."""

    size: int

    @cached_property
    def own(self) -> Font:
        """The font of Latin letters, which places lines."""
        return font_at(OWN, self.size)

    def getlength(self, text: str) -> float:
        """Pixels of a line."""
        return sum(self._width(run) for run in runs(text))

    def draw(
        self, on: ImageDraw.ImageDraw, at: tuple[float, float], text: str, ink: str, anchor: str
    ) -> None:
        """Write a line; `anchor` as Pillow has it."""
        parts = runs(text)
        if all(run.path == OWN and run.direction == "ltr" for run in parts):
            on.text(at, "".join(run.text for run in parts), ink, self.own, anchor)
            return
        across, down = anchor[0], anchor[1]
        x, y = at
        x -= self.getlength(text) * {"l": 0.0, "m": 0.5, "r": 1.0}[across]
        above, below = self.own.getmetrics()
        y += {"a": above, "s": 0, "m": (above - below) / 2, "d": -below}[down]
        for run in parts:
            on.text((x, y), run.text, ink, font_at(run.path, self.size), "ls", direction=_told(run))
            x += self._width(run)

    def draw_lines(
        self,
        on: ImageDraw.ImageDraw,
        at: tuple[int, int],
        lines: Sequence[str],
        ink: str,
        down: str,
    ) -> None:
        """Write lines that are centred across; `down`: m, centred at that height, or d, above it."""
        if all(run.path == OWN for line in lines for run in runs(line)):
            shown = "\n".join("".join(run.text for run in runs(line)) for line in lines)
            on.multiline_text(at, shown, ink, self.own, f"m{down}", align="center")
            return
        step = round(self.size * 1.3)
        first = at[1] - step * (len(lines) - 1) / (2 if down == "m" else 1)
        for number, line in enumerate(lines):
            self.draw(on, (at[0], first + number * step), line, ink, f"m{down}")

    def _width(self, run: Run) -> float:
        return font_at(run.path, self.size).getlength(run.text, direction=_told(run))


def line_picture(text: str, size: int) -> Image.Image:
    """A line in black, RGBA, on nothing."""
    letters = Lettering(size)
    height, width = round(size * 1.8), max(1, math.ceil(letters.getlength(text)))
    image = Image.new("RGBA", (width, height))
    letters.draw(ImageDraw.Draw(image), (0, height / 2), text, "black", "lm")
    return image


def _told(run: Run) -> Direction | None:
    """The direction, where Pillow takes one: its own font is laid out letter by letter."""
    return run.direction if can_shape() and run.path != OWN else None


@lru_cache(4096)
def clusters(text: str) -> tuple[str, ...]:
    """Pieces that are not to be cut: a letter with its marks, an emoji with what modifies it."""
    found: list[str] = []
    for one in text:
        goes_on = bool(found) and (
            unicodedata.category(one)[0] == "M"
            or one in JOINERS
            or "\U0001f3fb" <= one <= "\U0001f3ff"
            or found[-1].endswith("\u200d")
        )
        if goes_on:
            found[-1] += one
        else:
            found.append(one)
    return tuple(found)


@lru_cache(4096)
def runs(text: str) -> tuple[Run, ...]:
    """The runs of a line, in the order in which they stand from left to right."""
    if text.isascii():
        return (Run(text, OWN, "ltr"),)
    found = _all_lettered(text)
    directions = [_direction_of(shown) for shown, _ in found]
    base = _base(directions)
    pieces = zip(found, _resolved(directions, base), strict=True)
    parts = [
        Run(_turned("".join(shown for (shown, _), _ in some), path, direction), path, direction)
        for (path, direction), some in groupby(pieces, key=lambda one: (one[0][1], one[1]))
    ]
    return tuple(_as_seen(parts, base))


def _base(directions: Sequence[Direction | Literal["before"] | None]) -> Direction:
    """The direction of the first letter."""
    for one in directions:
        if one == "ltr" or one == "rtl":
            return one
    return "ltr"


def legible(text: str) -> str:
    """The text with what no font here has in ASCII."""
    return text if text.isascii() else "".join(shown for shown, _ in _all_lettered(text))


def _all_lettered(text: str) -> list[tuple[str, str]]:
    """Each cluster as it is written, and its font."""
    found, around = [], OWN
    for part in chain.from_iterable(map(_parts, clusters(_tidy(text)))):
        shown, path = _lettered(part, around)
        found.append((shown, path))
        if unicodedata.category(part[0])[0] == "L":
            around = path if _direction_of(part) == "rtl" else OWN
    return found


def _parts(cluster: str) -> list[str]:
    """The cluster, or what its joiners join where the font of the first has not all of it."""
    joined = [part for part in re.split(f"[{JOINERS}]", cluster) if part]
    if cluster[0] in JOINERS:
        return joined
    path = font_for(cluster[0]) or OWN
    lacks = any(
        not has_glyph(path, one)
        for one in "".join(joined)
        if unicodedata.category(one)[0] != "M"  # left out where it is written
    )
    return joined if lacks else [cluster]


def _tidy(text: str) -> str:
    """Letters and marks as one where there is such a character; no marks of direction; bytes of odd file names as escapes."""
    return unicodedata.normalize("NFC", "".join(map(_tidied, text)))


def _tidied(one: str) -> str:
    kind = unicodedata.category(one)
    if kind == "Cs":
        return f"\\x{ord(one) & 0xFF:02x}"
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return "" if kind == "Cf" and one not in JOINERS else one


def _lettered(cluster: str, path: str) -> tuple[str, str]:
    """A cluster as it is written, and the font; `path`: that of letters from right to left around it, else OWN."""
    first = cluster[0]
    is_sign = unicodedata.category(first)[0] not in "LZ"
    if first.isascii() or not (_is_shaped(first) and not can_shape()):
        # brackets are mirrored with the letters around them
        for chosen in (path, OWN) if is_sign else (OWN, path):
            if all(has_glyph(chosen, one) for one in cluster if one not in JOINERS):
                return cluster, chosen
        # a mark that the font of its letter lacks is left out
        chosen = font_for(first) or ""
        if chosen or has_glyph(OWN, first):
            return cluster, chosen
    return anyascii(cluster) or " ".join(f"U+{ord(one):04X}" for one in cluster), OWN


@cache
def _is_shaped(letter: str) -> bool:
    return unicodedata.name(letter, "").partition(" ")[0] in SHAPED


def _direction_of(text: str) -> Direction | Literal["before"] | None:
    """That of its first letter with one; of digits that of the letters before them; None of signs and spaces."""
    for one in text:
        kind = unicodedata.bidirectional(one)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
        if kind in ("EN", "AN"):
            return "before"
    return None


def _resolved(
    directions: Sequence[Direction | Literal["before"] | None], base: Direction
) -> Iterator[Direction]:
    """Signs and spaces between letters of one direction have that, others the line's."""
    known: list[Direction | None] = []
    last = base
    for one in directions:
        last = last if one is None or one == "before" else one
        known.append(None if one is None else last)
    before = base
    for place, found in enumerate(known):
        after = next((other for other in known[place:] if other is not None), base)
        yield found or (before if before == after else base)
        before = found or before


def _turned(text: str, path: str, direction: Direction) -> str:
    """Digits in Pillow's own font, which turns nothing round, with the spaces around them on the other side."""
    if path != OWN or direction == "ltr":
        return text
    inner = text.strip()
    before, _, after = text.partition(inner) if inner else (text, "", "")
    return after + inner + before


def _as_seen(parts: Sequence[Run], base: Direction) -> Iterator[Run]:
    """Runs from left to right: those of the other direction than the line's keep their own order."""
    ordered = parts if base == "ltr" else parts[::-1]
    for direction, some in groupby(ordered, key=lambda run: run.direction):
        group = list(some)
        yield from group if direction == base else group[::-1]
