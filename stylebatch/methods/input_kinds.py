"""Kinds of inputs that samples are made from, with the words that people read of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class InputKind:
    """Pictures that samples share: `column` of the records holds the id, `member` of a sample the picture.

    `words`: how a sample says that it was made from this input.
    """

    name: str
    column: str
    member: str
    words: str


CONTENT = InputKind("content", "content_id", "content.jpg", "{}")
STYLE = InputKind("style", "style_id", "style.jpg", "in the style of {}")
IMAGE = InputKind("image", "image", "image.jpg", "from {}")
MASK = InputKind("mask", "mask", "mask.jpg", "within {}")
REFERENCE = InputKind("reference", "reference", "reference.jpg", "in the style of {}")
INPUT_KINDS = (CONTENT, STYLE, IMAGE, MASK, REFERENCE)
PADDING = ("pad_left", "pad_top", "pad_right", "pad_bottom")
"""Columns of the pixels beside a content or image that was laid into a larger picture."""
TEXT = "prompt"
"""Column with the text of a sample."""
# the name of a set, which for people is a style; pairs have `style_id` in its place
SET = "style"
"""Column with the name of the set that a sample was made in."""
GROUPS = ("style_id", SET)
"""Columns that a reader filters by, besides the label: the first that records have."""


def kinds_of(columns: Collection[str]) -> tuple[InputKind, ...]:
    """The kinds of inputs that records with these columns name."""
    return tuple(kind for kind in INPUT_KINDS if kind.column in columns)
