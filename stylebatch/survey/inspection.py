"""Says what a file, folder, pattern or address is. Kinds of sources are recognised by the code that plans recognise them with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from shlex import quote
from typing import Any

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.one_look import one_look
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.places import exists, is_file
from stylebatch.data.sources.hub_datasets import is_on_hub, local_copy
from stylebatch.data.sources.kinds import kind_of
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.outputs import commits_of, is_output, output_around
from stylebatch.data.sources.patterns import is_pattern
from stylebatch.data.sources.source import Item, Sources
from stylebatch.data.tables.reader import FORMATS
from stylebatch.data.tables.text_lines import suffix_of
from stylebatch.errors import ManifestError
from stylebatch.manifest import YAML_SUFFIXES
from stylebatch.models.model_section import PICKLED, SINGLE_FILE
from stylebatch.paths import is_address
from stylebatch.survey.document_survey import annotations_finding, document_finding
from stylebatch.survey.equal_files import equal_files
from stylebatch.survey.finding import Finding
from stylebatch.survey.image_survey import FIELD, ImageSurvey, survey_images, without_field
from stylebatch.survey.mixed_folders import (
    first_outputs,
    outputs_finding,
    weights_folder,
    with_strangers,
)
from stylebatch.survey.model_survey import is_pipeline, pipeline_finding, weights_finding
from stylebatch.survey.output_survey import cache_finding, is_cache, output_finding
from stylebatch.survey.picture_look import look_at
from stylebatch.survey.place_words import CONTENT_WORDS, STYLE_WORDS, words_of
from stylebatch.survey.presence import require_there
from stylebatch.survey.roles import named_parts
from stylebatch.survey.table_survey import WORDS, TableSurvey, facts_of, survey_table

MOST_FAULTS = 6
WORDS_OF_KINDS = {
    "folder": "image folder",
    "table": "table of images",
    "store": "image folder",
    "parquet": "Parquet with images",
    "webdataset": "WebDataset",
    "saved": "dataset saved by `datasets`",
    "coco": "images with COCO annotations",
    "voc": "images with Pascal VOC annotations",
    "yolo": "images with YOLO annotations",
    "files": "pictures of an output",
}
NEXT = {
    "pairs": "`stylebatch plan {place}` plans it as it is; `pairing: {{mode: explicit, path: {place}}}` in a manifest",
    "prompts": "`stylebatch init --prompts {place}` writes a manifest of it",
}


@one_look()
def inspect(place: str, most_rows: int) -> Finding:
    """What is at `place`, with at most so many of its records.

    What is damaged is told among its problems. Raises ManifestError for what is not there, or is nothing that this program reads,
    and StorageError for a store that does not answer.
    """
    require_there(place)
    if is_on_hub(place):
        return replace(_found(local_copy(place, FIELD), most_rows), place=place)
    return _found(place, most_rows)


def _found(place: str, most_rows: int) -> Finding:
    if is_pattern(place) or not is_file(place):
        return _folder(place, most_rows)
    suffix = suffix_of(place)
    if not is_address(place):
        if suffix in YAML_SUFFIXES:
            return document_finding(place)
        if suffix == SINGLE_FILE:
            return weights_finding(place)
    if suffix in PICKLED:
        raise ManifestError(
            f"{place}: found pickled weights ({suffix}), which may run any code when they are read; accepted: {SINGLE_FILE}, or a "
            "pipeline folder (docs/models.md says how to convert)"
        )
    if suffix in IMAGE_SUFFIXES:
        return _picture(place)
    if suffix == ".json":
        return _json(place)
    if kind_of(place) not in (None, "table"):
        return _within_output(_images(place, most_rows))
    if suffix in FORMATS:
        return _table(place, most_rows)
    raise ManifestError(
        f"{place}: found a {suffix or 'suffixless'} file; accepted: a manifest, a table ({', '.join(FORMATS)}), a .tar, a picture, COCO "
        f"annotations (.json), weights ({SINGLE_FILE}), or a folder"
    )


def _json(place: str) -> Finding:
    """Of an output's record, or of annotations."""
    folder, name = os.path.split(place)
    if name == "run.json" and is_output(folder or os.curdir):
        return _record(place, "record", folder or os.curdir)
    try:
        return annotations_finding(place)
    except ManifestError:
        around = None if is_address(place) else output_around(folder or os.curdir)
        if around is None:
            raise
        return _record(place, "part", around)


def _record(place: str, what: str, output: str) -> Finding:
    step = f"`stylebatch inspect {quote(output)}` tells of all of it"
    return Finding(place, f"{what} of the output {output}", next_step=step)


def _folder(place: str, most_rows: int) -> Finding:
    if not is_pattern(place):
        if is_output(place):
            return output_finding(place, most_rows)
        if is_cache(place):
            return cache_finding(place, most_rows)
        if not is_address(place) and is_pipeline(place):
            return pipeline_finding(place)
        around = "" if is_address(place) else output_around(place)
        if around and kind_of(place) in (None, "folder"):
            return _record(place, "part", around)
    is_plain = not (is_pattern(place) or is_address(place)) and kind_of(place) in (None, "folder")
    if is_plain and (found := weights_folder(place, most_rows)):
        return found
    outputs = first_outputs(place) if is_plain else []
    try:
        found = _images(place, most_rows)
    except ManifestError:
        if not outputs:
            raise
        return outputs_finding(place, outputs)
    parts = [] if is_pattern(place) else named_parts(place)
    if parts:
        names = ", ".join(map(os.path.basename, parts))
        step = f"`stylebatch init {quote(place)}` writes a manifest of {names}"
        found = replace(found, next_step=step)
    return _within_output(with_strangers(found, outputs, parts) if is_plain else found)


def _within_output(found: Finding) -> Finding:
    """With the output that it is a part of."""
    if is_address(found.place) or is_pattern(found.place):
        return found
    folder = found.place if os.path.isdir(found.place) else os.path.dirname(found.place)
    around = output_around(folder or os.curdir)
    if around is None:
        return found
    note = f"it is a part of the output {around}"
    stem = os.path.splitext(os.path.basename(found.place))[0]
    if os.path.basename(folder) == "data" and folder != found.place:
        note += (
            ", committed"
            if stem in commits_of(around)
            else ", not committed: a run renders it again"
        )
    return replace(found, notes=(*found.notes, note))


def _images(place: str, most_rows: int) -> Finding:
    try:
        survey = survey_images(ContentSpec(path=place))
    except ManifestError as error:
        above = os.path.dirname(os.path.abspath(place))
        if not is_address(place) and is_pipeline(above):
            raise ManifestError(
                f"{place}: is a part of the pipeline folder {above}; accepted: the whole. Next: `stylebatch inspect {quote(above)}`"
            ) from None
        raise ManifestError(without_field(str(error))) from None
    return image_finding(place, survey, most_rows)


def image_finding(place: str, found: ImageSurvey, most_rows: int) -> Finding:
    """What is known of a source of images."""
    items, look, classes = found.listing.items, found.look, found.classes
    without = classes.pop("", 0)
    facts: dict[str, Any] = {
        "num_images": len(items),
        "classes": classes,
        **({"without_class": without} if classes and without else {}),
        "splits": found.splits,
        "num_captioned": found.num_captioned or "",
        "objects": found.objects,
        "masks": sum(item.mask is not None for item in items) or "",
        "columns": dict(found.types),
        "sizes": _named(look.sizes),
        "sizes_known_of": look.sized,
        "decoded": look.looked_at + (f"; {len(look.faults)} cannot be read" if look.faults else ""),
    }
    problems = [found.problem] if found.problem else []
    problems += [f"{name}: {reason}" for name, reason in look.faults[:MOST_FAULTS]]
    if len(look.faults) > MOST_FAULTS:
        problems.append(f"{len(look.faults) - MOST_FAULTS} more pictures cannot be read")
    twice = equal_files(place, found.kind, items)
    kind = f"{WORDS_OF_KINDS.get(found.kind, 'images')} (kind {found.kind})"
    words = words_of(place)
    are_styles = bool(words & STYLE_WORDS) and not words & CONTENT_WORDS
    sides = f"PHOTOS {quote(place)}" if are_styles else f"{quote(place)} STYLES"
    return Finding(
        place,
        kind,
        facts,
        tuple(_sample(item, found.further(item)) for item in items[:most_rows]),
        # the first says the kind
        (*found.notes[1:], *filter(None, [twice])),
        tuple(problems),
        f"`stylebatch init {sides}` writes a manifest of it",
    )


def _sample(item: Item, further: Mapping[str, Any]) -> Mapping[str, Any]:
    cells = {
        "id": item.id,
        "label": item.label,
        "caption": item.caption,
        "license": item.license,
        "split": item.split,
        "objects": len(item.regions) or "",
        **further,
    }
    return {name: value for name, value in cells.items() if value not in ("", None)}


def _named(sizes: Counter[tuple[int, int]]) -> Counter[str]:
    return Counter({f"{width} x {height} px": count for (width, height), count in sizes.items()})


def _picture(place: str) -> Finding:
    files = LocalFiles("", FIELD)
    item = Item(place, replace(files.ref(place), source=FIELD))
    look = look_at([item], Sources.of(files))
    return Finding(
        place,
        "picture",
        {"sizes": _named(look.sizes)},
        problems=tuple(f"{name}: {reason}" for name, reason in look.faults),
    )


def _table(place: str, most_rows: int) -> Finding:
    found = survey_table(place, most_rows)
    if found.role == "paths" and not found.problem:
        told = _images(place, most_rows)
        return _within_output(replace(told, facts=facts_of(found) | dict(told.facts)))
    problems = [found.problem] if found.problem else _lost(place, found)
    step = NEXT.get(found.role, "").format(place=quote(place))
    if found.role == "other":
        step = "a table of images has a column path, one of pairs content and style, one of prompts prompt"
    return _within_output(
        Finding(
            place,
            WORDS[found.role],
            facts_of(found),
            found.rows,
            (),
            tuple(problems),
            next_step=step,
        )
    )


def _lost(place: str, found: TableSurvey) -> list[str]:
    """Paths of the first rows that lead nowhere."""
    if is_address(place):
        return []
    folder = os.path.dirname(place)
    names = ("content", "style") if found.role == "pairs" else ("image", "mask", "reference")
    paths = [row[name] for row in found.rows for name in names if row.get(name)]
    lost = [
        path for path in paths if not is_address(path) and not exists(os.path.join(folder, path))
    ]
    if found.role == "pairs" and len(lost) == len(paths):
        # they may be ids of contents and styles that a manifest names
        return []
    return [f"{place}: {path}: there is no such file" for path in lost]
