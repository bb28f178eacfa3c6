"""Finds a font for a character: Pillow's own, those of the extra `fonts`, those of this machine; the first that has a glyph.

Which fonts there are decides how labels in other scripts look, never what a dataset holds.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from PIL import ImageFont, features

Font = ImageFont.FreeTypeFont
PACKAGES = ("manimgx-fonts", "manimgx-fonts-cjk")
"""Of the extra `fonts`: Noto Sans for some thirty scripts, and emoji."""
FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
SUFFIXES = (".ttf", ".otf", ".ttc")
MOST_FILES = 1000
PLAIN = ("NotoSans", "DejaVuSans", "Arial", "Segoe")
"""How names of fonts begin that are looked at before others."""
DECORATED = (
    *("Bold", "Italic", "Oblique", "Black", "Thin", "Light", "Medium", "Condensed", "Mono"),
    *("Serif", "Display", "Kufi", "Nastaliq", "UI", "Math", "Looped"),
)
OWN = ""
"""Stands for the font that Pillow carries."""
REGULAR = 400
_TRIED_SIZE = 16
_NOBODYS = "\U0010ffff"
"""A character that no font has."""


def can_shape() -> bool:
    """Whether Pillow joins letters and orders them from right to left, by libraqm."""
    return bool(features.check("raqm"))


@cache
def font_at(path: str, size: int) -> Font:
    """The font of a file, or Pillow's own, in pixels. Raises OSError for a file that is no font of outlines."""
    if path == OWN:
        own = ImageFont.load_default(size)
        assert isinstance(own, Font), "Pillow is built with FreeType"
        return own
    font = ImageFont.truetype(path, size)
    try:
        axes = font.get_variation_axes()
    except OSError:  # it has one weight
        return font
    weight = {b"Weight": REGULAR}
    font.set_variation_by_axes(
        [float(weight.get(axis["name"] or b"", axis["default"] or 0)) for axis in axes]
    )
    return font


@cache
def font_for(character: str) -> str | None:
    """The file of a font that has a glyph of it, OWN before others, None where none has."""
    return next((path for path in (OWN, *font_files()) if has_glyph(path, character)), None)


@cache
def has_glyph(path: str, character: str) -> bool:
    """Whether a font has a glyph of its own for a character, not the box that stands for all others."""
    try:
        font, box = _tried(path)
        mask = font.getmask(character)
    except (OSError, ValueError):  # no font, or one of coloured bitmaps alone
        return False
    if unicodedata.category(character) in ("Zs", "Cf"):
        return True
    found = mask.size, bytes(mask)
    return any(found[1]) and found != box


@cache
def _tried(path: str) -> tuple[Font, tuple[tuple[int, int], bytes]]:
    """A font that lays out letter by letter, and the box that it has for what it lacks."""
    font = font_at(path, _TRIED_SIZE).font_variant(layout_engine=ImageFont.Layout.BASIC)
    box = font.getmask(_NOBODYS)
    return font, (box.size, bytes(box))


@cache
def font_files() -> tuple[str, ...]:
    """Files of fonts: those of the extra, then the machine's, plain ones first."""
    of_machine = sorted({*_of_folders()}, key=_plainness)
    return (*dict.fromkeys([*_of_packages(), *of_machine[:MOST_FILES]]),)


def _of_packages() -> Iterator[str]:
    for package in PACKAGES:
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            continue
        found = sorted(str(file.locate()) for file in files if file.suffix in SUFFIXES)
        yield from sorted(found, key=_plainness)


def _of_folders() -> Iterator[str]:
    for folder in FOLDERS:
        for place, _, names in os.walk(Path(folder).expanduser()):
            yield from (os.path.join(place, n) for n in names if n.lower().endswith(SUFFIXES))


def _plainness(path: str) -> tuple[int, int, str]:
    name = Path(path).stem
    decorations = sum(word in name for word in DECORATED)
    family = next((rank for rank, start in enumerate(PLAIN) if name.startswith(start)), len(PLAIN))
    return decorations, family, name
