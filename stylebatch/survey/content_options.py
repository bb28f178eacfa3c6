"""Options of contents that a manifest needs beside their path: annotations that are there, splits, folders that are no classes."""

from __future__ import annotations

import os
from typing import Any

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.places import entries_of
from stylebatch.data.sources.holdings import kind_within
from stylebatch.data.sources.kinds import kind_of, open_source
from stylebatch.data.sources.layouts import IMAGE_FOLDERS
from stylebatch.data.sources.splitting import EVERY
from stylebatch.data.sources.unused import annotations_of_folder
from stylebatch.errors import ManifestError
from stylebatch.paths import is_address
from stylebatch.survey.image_survey import FIELD, listed, split_names
from stylebatch.survey.roles import Part, Places
from stylebatch.survey.wishes import Wishes


def content_options(place: str, places: Places, wishes: Wishes) -> tuple[dict[str, Any], bool]:
    """Options of the contents, `path` among them, and whether their splits shall be kept."""
    parts: tuple[Part, ...] = ("masks", "segmentation", "annotations")
    given: dict[str, str] = {
        part: found for part in parts if (found := places.get(part)) is not None
    }
    options: dict[str, Any] = {"path": place, **dict(given)}
    if not given.keys() - {"masks"} and not is_address(place):
        options = _with_annotations(options)
        if "annotations" not in options and "kind" not in options and _is_of_no_class(place):
            options["label_from"] = 0
    is_split = has_splits(ContentSpec.model_validate(options))
    keeps = is_split and wishes.split in (None, "source")
    if is_split and not keeps:
        options["split"] = EVERY
    return options, keeps


def _with_annotations(options: dict[str, Any]) -> dict[str, Any]:
    """With annotations that lie in the folder or beside it, where these can be read with it."""
    found = annotations_of_folder(options["path"])
    if found is None or kind_of(options["path"]) != "folder":
        return options
    annotated = {**options, **found.options}
    try:
        listed(ContentSpec.model_validate(annotated))
    except ManifestError:
        return options
    return annotated


def _is_of_no_class(place: str) -> bool:
    """Whether all images of a folder lie in one within it, whose name says that it holds images and is no class."""
    if kind_of(place) != "folder":
        return False
    folders = [name for name, is_dir in entries_of(place).items() if is_dir]
    holding = [n for n in folders if kind_within(os.path.join(place, n), tuple(IMAGE_SUFFIXES))]
    return len(holding) == 1 and holding[0].lower() in IMAGE_FOLDERS


def has_splits(spec: ContentSpec) -> bool:
    """Whether what `spec` names lies in splits."""
    return bool(split_names(open_source(spec.path, FIELD, spec)))
