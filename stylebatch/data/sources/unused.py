"""Annotations in a folder that is read without them: what a manifest says to have them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from stylebatch.data.places import entries_of, is_file
from stylebatch.data.sources.holdings import ANNOTATION_SUFFIXES, SPLITS, kind_within
from stylebatch.data.sources.layouts import COCO_FILE, IMAGE_FOLDERS
from stylebatch.paths import is_address

BESIDE = "_annotations.coco.json"
"""What Roboflow puts beside the images of each split."""
_FOLDERS = re.compile(r"annotations?|labels?", re.I)


class Unused(NamedTuple):
    """Annotations that nothing names: `found`, for people; the options that would have them read."""

    found: str
    options: Mapping[str, str]

    @property
    def text(self) -> str:
        said = " and ".join(f"`{name}: {value}`" for name, value in self.options.items())
        return f"{self.found} is there and not used; for its objects say {said}, and without it `kind: folder`"


def unused_annotations(root: str) -> str:
    """For people; "" where nothing looks like annotations."""
    found = annotations_of_folder(root)
    return "" if found is None else found.text


def annotations_of_folder(root: str) -> Unused | None:
    """What looks like annotations of a folder's images, in it or beside it."""
    try:
        return _within(root) or _beside(root.rstrip("/"))
    except OSError:
        return None


def _within(root: str) -> Unused | None:
    found = entries_of(root)
    images = next((n for n, is_dir in found.items() if is_dir and n.lower() in IMAGE_FOLDERS), "")
    for name, is_dir in found.items():
        named = _annotations(root, name) if is_dir and _FOLDERS.fullmatch(name) else ""
        named = named or (name if not is_dir and COCO_FILE.fullmatch(name) else "")
        if named:
            path = os.path.join(root, images) if images else root
            return Unused(named, {"path": path, "annotations": os.path.join(root, named)})
        beside = f"{name}/{BESIDE}"
        if is_dir and name.lower() in SPLITS and is_file(os.path.join(root, beside)):
            return Unused(beside, {"kind": "coco"})
    return None


def _beside(root: str) -> Unused | None:
    """Of a folder that is `images`, or one in it, and has annotations next to that."""
    if is_address(root):  # all of the folder above would be listed
        return None
    (above, name), inner = os.path.split(root), ""
    if name.lower() not in IMAGE_FOLDERS:  # yolo/images/train and yolo/labels/train
        (above, name), inner = os.path.split(above), name
    if name.lower() not in IMAGE_FOLDERS:
        return None
    above = above or os.curdir
    for folder, is_dir in entries_of(above).items():
        place = os.path.join(above, folder, inner) if inner else os.path.join(above, folder)
        if is_dir and _FOLDERS.fullmatch(folder) and kind_within(place, ANNOTATION_SUFFIXES):
            return Unused(place, {"annotations": place})
    return None


def _annotations(root: str, folder: str) -> str:
    """What in a folder is meant: one file of COCO, or the folder."""
    kind = kind_within(os.path.join(root, folder), ANNOTATION_SUFFIXES)
    if kind != ".json":
        return folder if kind else ""
    names = entries_of(os.path.join(root, folder))
    instances = [n for n in names if COCO_FILE.fullmatch(n)]
    first = [n for n in instances if n.lower().startswith("instances")] or instances
    return os.path.join(folder, first[0]) if len(first) == 1 else folder
