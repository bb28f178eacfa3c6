"""Folders that hold other things than images, or such beside images: outputs, weights, manifests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from shlex import quote
from typing import Any

from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.sources.holdings import kind_within
from stylebatch.manifest import YAML_SUFFIXES
from stylebatch.models.model_section import SINGLE_FILE
from stylebatch.survey.beneath import MOST_NAMED, entries_within, outputs_beneath
from stylebatch.survey.finding import Finding
from stylebatch.survey.model_survey import is_pipeline, weights_finding

MOST_CLASSES = 100
"""Folders of so many classes are looked into for manifests: more of them are classes."""


def first_outputs(place: str) -> list[str]:
    """Outputs that lie in a folder, one more than are named where there are more."""
    return list(islice(outputs_beneath(place), MOST_NAMED + 1))


def outputs_finding(place: str, outputs: Sequence[str]) -> Finding:
    """Of a folder that holds outputs and no images beside them."""
    first = quote(outputs[0])
    return Finding(
        place,
        "folder of outputs",
        {"outputs": list(outputs[:MOST_NAMED])},
        notes=("there are more outputs",) * (len(outputs) > MOST_NAMED),
        next_step=f"`stylebatch status {first}` says how far it is, `stylebatch inspect {first}` what it holds",
    )


def weights_folder(place: str, most_rows: int) -> Finding | None:
    """Of a folder of .safetensors files; None for one of a pipeline, and for one that holds images."""
    entries = entries_within(place)
    names = [name for name, is_dir in entries.items() if not is_dir and _ends(name, SINGLE_FILE)]
    above = os.path.dirname(os.path.abspath(place))
    if not names or is_pipeline(above) or kind_within(place, tuple(IMAGE_SUFFIXES)):
        return None
    found = [weights_finding(os.path.join(place, name)) for name in names]
    facts: dict[str, Any] = {
        "num_files": len(names),
        "bytes": sum(one.facts["bytes"] for one in found),
        "kinds": Counter(one.kind for one in found),
    }
    samples = [{"file": name, "kind": one.kind} for name, one in zip(names, found, strict=True)]
    problems = [problem for one in found for problem in one.problems]
    if len(problems) > MOST_NAMED:
        rest = f"{len(problems) - MOST_NAMED} more files cannot be used"
        problems = [*problems[:MOST_NAMED], rest]
    step = f"`stylebatch inspect {quote(found[0].place)}` says how a manifest names it"
    return Finding(
        place, "folder of weights", facts, tuple(samples[:most_rows]), (), tuple(problems), step
    )


def with_strangers(found: Finding, outputs: Sequence[str], parts: Sequence[str]) -> Finding:
    """What is known of a folder of images, told that some of its classes are none.

    `parts`: folders in it that are contents, styles and so on by their names.
    """
    classes = found.facts.get("classes") or {}
    holders = {os.path.relpath(output, found.place).split(os.sep)[0] for output in outputs}
    if classes and set(classes) <= holders and "without_class" not in found.facts:
        # contact sheets of comparisons, and the like
        return outputs_finding(found.place, outputs)
    told = {name: "outputs" for name in classes if name in holders}
    if len(classes) <= MOST_CLASSES:
        told |= {name: "manifests" for name in classes if _has_manifests(found.place, name)}
    notes = [
        f"{name} is counted as a class, and holds {what}" for name, what in sorted(told.items())
    ]
    named = [name for name in map(os.path.basename, parts) if name in classes]
    if len(named) > 1:
        step = f"`stylebatch inspect {quote(parts[0])}` tells of one of them"
        notes.append(f"{', '.join(named)} are counted as classes here; {step}")
    return replace(found, notes=(*found.notes, *notes))


def _has_manifests(place: str, name: str) -> bool:
    entries = entries_within(os.path.join(place, name))
    return any(_ends(entry, *YAML_SUFFIXES) for entry, is_dir in entries.items() if not is_dir)


def _ends(name: str, *suffixes: str) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")
