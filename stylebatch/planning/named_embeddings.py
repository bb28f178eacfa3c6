"""Tells which prompts name no textual inversion of the manifest, and what of a model takes part in prompts alone."""

from __future__ import annotations

from collections.abc import Sequence

from stylebatch.data.sources.source import Item
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.embeddings import Embedding
from stylebatch.planning.axes import PromptAxis
from stylebatch.planning.long_prompts import COLUMNS, PART, Rows
from stylebatch.planning.prompts import PromptRow
from stylebatch.words import counted


def notes_on_embeddings(
    checkpoint: Checkpoint, axis: PromptAxis, images: Sequence[Item]
) -> tuple[str, ...]:
    """A line on prompts that name no embedding, and on embeddings that no prompt names; none where all are used.

    `images`: those that prompts go with.
    """
    known = checkpoint.family.embeddings
    if not known:
        return ()
    rows, without, unnamed = Rows(axis, images), 0, list(known)
    for start in range(0, len(rows), PART):
        for row in rows[start : start + PART]:
            named = [one for one in known if _is_in(one, row)]
            without += not named
            unnamed = [one for one in unnamed if one not in named]
    tokens = ", ".join(one.token for one in known)
    found = [f"{counted(without, 'row')} of {len(rows):,} name no embedding ({tokens})"] * bool(
        without
    )
    found += [f"no row names {', '.join(one.token for one in unnamed)}"] * bool(unnamed)
    return (f"model.embeddings: {'; '.join(found)}",) if found else ()


def note_without_prompts(checkpoint: Checkpoint, method: str) -> tuple[str, ...]:
    """A line on what takes part in prompts alone, for a method that has none; none where nothing is given."""
    given = ["model.embeddings"] * bool(checkpoint.embeddings)
    given += ["model.clip_skip"] * bool(checkpoint.clip_skip)
    if not given:
        return ()
    change = "changes" if len(given) == 1 and checkpoint.clip_skip else "change"
    return (f"{' and '.join(given)} {change} nothing: method {method} takes no prompts",)


def _is_in(embedding: Embedding, row: PromptRow) -> bool:
    return any(embedding.is_in(text) for column in COLUMNS if (text := getattr(row, column)))
