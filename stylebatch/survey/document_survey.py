"""What a YAML or JSON file says: a manifest, a training config, a description of a YOLO data set, annotations."""

from __future__ import annotations

import json
import os
from collections import Counter
from shlex import quote
from typing import Any

from stylebatch.data.places import opened
from stylebatch.data.sources.kinds import kind_of
from stylebatch.data.sources.layouts import DESCRIPTIONS, KEYS
from stylebatch.documents import MAX_BYTES, DocumentError, parse
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.manifest import load_document, load_spec
from stylebatch.spec import RunSpec
from stylebatch.store.output_record import find_run
from stylebatch.survey.finding import Finding
from stylebatch.training.spec import TrainSpec, join_inputs

LARGEST_JSON = 1 << 30
COCO_LISTS = ("images", "annotations", "categories")


def document_finding(place: str) -> Finding:
    """Of a YAML file. Raises ManifestError for what is no document of ours."""
    with opened(place) as file:
        data = file.read(MAX_BYTES + 1)
    try:
        found = parse(data)
    except DocumentError as error:
        return Finding(place, "YAML file", problems=(f"{place}: {error}",))
    keys = set(found) if isinstance(found, dict) else set()
    if "names" in keys and keys.intersection(KEYS) and os.path.basename(place) in DESCRIPTIONS:
        folder = os.path.dirname(place) or os.curdir
        facts = {"names": found["names"], **{key: found[key] for key in KEYS if key in found}}
        return Finding(
            place,
            "description of a YOLO data set",
            facts,
            next_step=f"`stylebatch inspect {quote(folder)}`, the data set itself",
        )
    if keys and keys <= TrainSpec.model_fields.keys() | {"batch"} and {"stage", "data"} & keys:
        return _training(place)
    if keys & RunSpec.model_fields.keys():
        return _manifest(place)
    raise ManifestError(
        f"{place}: found {', '.join(map(str, list(found)[:6])) if keys else type(found).__name__} at the top; accepted: a manifest, "
        "with contents, styles or prompts, and output; a training config; the data.yaml of a YOLO data set"
    )


def _training(place: str) -> Finding:
    try:
        spec = load_document(place, (), TrainSpec, join_inputs)
    except ManifestError as error:
        return Finding(place, "training config", problems=(str(error),))
    facts = {
        "name": spec.name,
        "stage": spec.stage,
        "data": spec.data.path,
        "steps": spec.steps,
        "output": spec.output,
    }
    return Finding(place, "training config", facts, next_step=f"`stylebatch train {quote(place)}`")


def _manifest(place: str) -> Finding:
    try:
        spec = load_spec(place)
    except ManifestError as error:
        return Finding(place, "manifest", problems=(str(error),))
    facts: dict[str, Any] = {"name": spec.name, "method": spec.method.name}
    model = spec.model
    facts["model"] = model.name or model.path or model.id
    for field in ("contents", "styles"):
        section = getattr(spec, field)
        if section is not None:
            facts[field] = f"{section.path} (kind {kind_of(section.path, section)})"
    if spec.prompts is not None:
        facts["prompts"] = spec.prompts.path or spec.prompts.template
    if spec.prompts is None:
        facts["pairing"] = spec.pairing.mode
    facts["output"] = _output(spec.output.path)
    return Finding(
        place,
        "manifest",
        facts,
        next_step=f"`stylebatch plan {quote(place)}`, then `stylebatch run {quote(place)}`",
    )


def _output(path: str) -> str:
    try:
        record = find_run(Folder.at(path))
    except ManifestError:
        return f"{path} (its record cannot be read)"
    return path if record is None else f"{path} (begun)"


def annotations_finding(place: str) -> Finding:
    """Of a JSON file. Raises ManifestError for one that holds no annotations of COCO."""
    try:
        with opened(place) as file:
            found = json.loads(file.read(LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        return Finding(place, "JSON file", problems=(f"{place}: not whole JSON ({error})",))
    lists = found if isinstance(found, dict) else {}
    if not all(isinstance(lists.get(name), list) for name in COCO_LISTS[:2]):
        keys = ", ".join(list(lists)[:6]) or type(found).__name__
        raise ManifestError(
            f"{place}: found JSON of {keys}; accepted: annotations of COCO, with lists images and annotations; rows are .jsonl"
        )
    names = {one.get("id"): str(one.get("name")) for one in _dicts(lists.get("categories"))}
    objects = Counter(
        names.get(one.get("category_id"), "?")
        for one in _dicts(lists["annotations"])
        if "category_id" in one
    )
    facts = {
        "num_images": len(lists["images"]),
        "num_annotations": len(lists["annotations"]),
        "objects": objects,
        "captions": sum("caption" in one for one in _dicts(lists["annotations"])) or "",
    }
    step = (
        f"`stylebatch init IMAGES STYLES --annotations {quote(place)}` writes a manifest with them"
    )
    return Finding(place, "COCO annotations", facts, next_step=step)


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
