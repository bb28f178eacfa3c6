"""Tells of what is added to a model: embeddings that no prompt names, what has no effect, LoRA weights that are given twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylebatch.data.sources.source import Item
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.learned_tokens import Embedding
from stylebatch.models.model_section import LoraSpec
from stylebatch.models.pipeline_files import hash_of_file
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


def notes_on_loras(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A line for LoRA weights that change nothing, and for those that are given more than once, be it under several names."""
    nothing = [one.path for one in checkpoint.loras if one.scale == 0]
    none = (
        f"model.lora: {', '.join(nothing)}: scale 0 has no effect: nothing of these weights is added",
    ) * bool(nothing)
    same: dict[str, list[LoraSpec]] = {}
    for lora in checkpoint.loras if checkpoint.is_here else ():
        same.setdefault(hash_of_file(Path(lora.path), "model.lora"), []).append(lora)
    twice = tuple(
        f"model.lora: {' and '.join(dict.fromkeys(one.path for one in loras))}: found the same weights {len(loras)} times; they "
        f"count with the sum of their scales, {sum(one.scale for one in loras):g}"
        for loras in same.values()
        if len(loras) > 1
    )
    return none + twice


def _is_in(embedding: Embedding, row: PromptRow) -> bool:
    return any(embedding.is_in(text) for column in COLUMNS if (text := getattr(row, column)))
