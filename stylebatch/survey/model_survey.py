"""What a folder or file of weights is, by its configs and headers; no weights are read."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Any

from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.models.families import title_of_weights
from stylebatch.models.model_section import ModelSpec
from stylebatch.survey.finding import Finding

MARKS = ("model_index.json", "unet/config.json", "transformer/config.json")


def is_pipeline(place: str) -> bool:
    """Whether the folder is one of a pipeline, as `save_pretrained` writes it."""
    return any(os.path.isfile(os.path.join(place, mark)) for mark in MARKS)


def pipeline_finding(place: str) -> Finding:
    kind = "pipeline folder"
    try:
        checkpoint = find_checkpoint(ModelSpec(path=place))
        family = checkpoint.family
        about, sizes = family.about(), family.sizes
    except ManifestError as error:
        return Finding(place, kind, problems=(str(error),))
    lacking = [part for part, count in about.parameters.items() if not count]
    facts: dict[str, Any] = {
        "family": about.title,
        "predicts": about.predicts,
        "network_of": list(about.published),
        "size": f"{sizes.native} px, sides in multiples of {sizes.multiple}",
        "weights": dict(about.parameters),
        "sites": list(checkpoint.sites),
    }
    problems = (
        [
            f"{place}: found no weights of {', '.join(lacking)}; accepted: .safetensors files in the folder of each part"
        ]
        if lacking
        else []
    )
    notes = tuple(f"{doubt}; {step}" for doubt, step in about.doubts)
    step = f"`stylebatch doctor {quote(place)}` checks and times it; `model: {{path: {place}}}` renders with it"
    return Finding(place, kind, facts, notes=notes, problems=tuple(problems), next_step=step)


def weights_finding(place: str) -> Finding:
    """Of a .safetensors file."""
    facts: dict[str, Any] = {"bytes": os.path.getsize(place)}
    try:
        title, counts = title_of_weights(Path(place))
    except ManifestError as error:
        return Finding(place, "safetensors file", facts, problems=(str(error),))
    added = {"layers": f"lora: [{{path: {place}}}]", "vectors": f"embeddings: [{{path: {place}}}]"}
    fields = [field for what, field in added.items() if what in counts]
    fields += [f"vae: {place}"] * (list(counts) == ["vae"])
    step = (
        f"`model: {{name: sd15, {fields[0]}}}` adds it"
        if fields
        else f"`model: {{path: {place}, config: FOLDER}}` renders with it, FOLDER with the configs and tokenizers of its family"
    )
    return Finding(place, title, facts | {"weights": dict(counts)}, next_step=step)
