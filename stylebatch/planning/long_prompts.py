"""Prompts that are longer than the text encoder takes: counted by their tokens, refused where the manifest says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stylebatch.data.sources.source import Item
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.learned_tokens import names_for
from stylebatch.models.tokens import ENDS, WordCounts, load_tokenizer
from stylebatch.planning.axes import PromptAxis
from stylebatch.planning.prompts import PromptRow

COLUMNS = ("prompt", "negative_prompt", "reference_prompt")
PART = 50_000
"""Rows that are counted at a time."""
MAX_COUNTED = 2_000_000
"""Rows that are counted at all, where texts of images are in the prompts."""


def note_on_long_prompts(
    checkpoint: Checkpoint, axis: PromptAxis, images: Sequence[Item]
) -> tuple[str, ...]:
    """A line on how many prompts have a text beyond the context, and what becomes of it; none where all fit.

    `images`: those that prompts go with. Raises ManifestError, naming the first, where the manifest refuses long prompts.
    """
    num, first, longest = 0, "", 0
    mode, rows = axis.prompts.source.long_prompts, Rows(axis, images)
    for encoder in checkpoint.family.tokenizers.items():
        length = checkpoint.context_length(*encoder)
        found = _long(checkpoint, encoder, length, rows)
        if found and (not num or len(found) > num):
            row, column, _ = found[0]
            num, first = len(found), f"{axis.prompts.place(row.number)}, {column}"
            longest = max(count for *_, count in found)
            if mode == "refuse":
                raise ManifestError(
                    f"prompts: {first}: found {found[0][2]} tokens; accepted: up to {length}, begin and end among them. Next: "
                    "shorten it, or set prompts.long_prompts to truncate or chunk"
                )
    if not num:
        return ()
    what = {
        "truncate": "what is beyond is left out (prompts.long_prompts: chunk keeps it)",
        "chunk": "they are encoded in windows",
        "refuse": "",
    }[mode]
    verb = "s have" if num > 1 else " has"
    return (
        f"{num} row{verb} a text of more tokens than the text encoder's {length}, up to {longest}: {what}; the first: {first}",
    )


class Rows(Sequence[PromptRow]):
    """Prompts over images that give them different texts; over the longest of these where there would be too many."""

    def __init__(self, axis: PromptAxis, images: Sequence[Item]) -> None:
        self.axis = axis
        used = axis.prompts.names_of_images if axis.prompts.over_images else set()
        different = {tuple(getattr(image, name) for name in used): image for image in images}
        longest = sorted(different, key=lambda texts: -sum(map(len, texts)))
        most = max(1, MAX_COUNTED // len(axis))
        self.images = [different[texts] for texts in longest[:most]] if used else [None]

    def __len__(self) -> int:
        return len(self.axis) * len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index >= len(self):
            raise IndexError(index)
        image, place = divmod(index, len(self.axis))
        return self.axis.prompts.texts_at(self.axis.places[place], self.images[image])


def _long(
    checkpoint: Checkpoint, tokenizer: tuple[str, str], length: int, rows: Sequence[PromptRow]
) -> list[tuple[PromptRow, str, int]]:
    """Rows with a text of more tokens than `length`: the row, its first such column, tokens."""
    counts: WordCounts | None = None
    # a token of these may have more vectors than characters
    added = names_for(checkpoint.family.embeddings, tokenizer[1])
    found: dict[int, tuple[PromptRow, str, int]] = {}
    for start in range(0, len(rows), PART):  # rows are made when asked for: a part of them stays
        part = rows[start : start + PART]
        for column in COLUMNS:
            long = [
                (start + i, row, text)
                for i, row in enumerate(part)
                if (text := getattr(row, column)) and (added or not _is_short(text, length))
            ]
            if long and counts is None:
                folder, encoder = checkpoint.folder / tokenizer[0], checkpoint.fields(tokenizer[1])
                counts = WordCounts(load_tokenizer(folder, encoder, added))
            if (
                counts is None
            ):  # no text was long enough to need the tokenizer, which is slow to load
                continue
            for (number, row, _), count in zip(
                long, counts.count(text for *_, text in long), strict=True
            ):
                if count > length:
                    found.setdefault(number, (row, column, count))
    return [found[number] for number in sorted(found)]


def _is_short(text: str, length: int) -> bool:
    """Whether a text fits for certain: a token has a character at least."""
    # beyond ASCII a character may be several tokens
    return text.isascii() and len(text) <= length - ENDS
