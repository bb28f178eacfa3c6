"""YOLO: a text file of objects for each image, and maybe one that describes the whole data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import absolute, is_file, is_folder, opened
from stylebatch.data.sources.annotated import MAX_BYTES, AnnotatedImages
from stylebatch.data.sources.layouts import (
    DESCRIPTIONS,
    Part,
    description_of,
    labels_beside,
    listed_images,
    wanted_parts,
    yolo_parts,
)
from stylebatch.data.sources.patterns import is_pattern
from stylebatch.data.sources.regions import Region, box_of, keypoints_of, polygon_of
from stylebatch.data.sources.source import USUAL
from stylebatch.data.sources.stored_listing import by_folder
from stylebatch.documents import DocumentError, parse

Shape = tuple[int, int]
"""Keypoints of an object, and numbers of each: 2 without visibility, else 3."""
NO_KEYPOINTS: Shape = (0, 0)
NAMES_FILES = ("classes.txt", "obj.names", *DESCRIPTIONS)


class YoloImages(AnnotatedImages):
    """YOLO: a text file for each image, an object a line: class, then a box, a polygon or keypoints, in fractions of the sides.

    0 0.5 0.5 0.2 0.4                 centre x, y, width, height
    0 0.1 0.1 0.9 0.1 0.5 0.8         x, y of three points or more
    0 0.5 0.5 0.2 0.4 0.5 0.3 2 ...   a box, then x, y, visibility of each keypoint
    """

    accepted = "one with YOLO `annotations`"
    suffix = ".txt"
    _parts: tuple[Part, ...] = ()
    """Of a data set that a file describes."""

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._others: dict[str, str] = {}

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return not is_pattern(uri) and is_folder(uri) and description_of(uri) != ""

    @classmethod
    def describes(cls, annotations: str) -> bool:
        return _is_description(annotations) or super().describes(annotations)

    @property
    def _description(self) -> str:
        """The file that tells names and folders of splits; "" where there is none."""
        given = self.options.annotations
        if given is None:
            return description_of(self.uri)
        return given if _is_description(given) else ""

    @property
    def _folder(self) -> str:
        return os.path.dirname(self._description) or super()._folder

    def _file_of(self, image: str) -> str:
        if not self._parts:
            return super()._file_of(image)
        return os.path.join(self.uri, labels_beside(image))

    def _starts(self) -> list[str]:
        return [p.images for p in self._parts if not p.file] if self._parts else super()._starts()

    def _found(self) -> Iterator[tuple[str, list[str]]]:
        if not self._parts or self._starts():
            yield from super()._found()
        walked = tuple(f"{folder}/" for folder in self._starts())
        for part in filter(_is_list, self._parts):
            images = listed_images(self.uri, part.file, self.fault, self._pass_over)
            yield from by_folder(PurePosixPath(i) for i in images if not i.startswith(walked))

    def _require_no_output(self) -> None:
        # Annotations of an output are in a form of their own, with a description.
        if not self._parts:
            super()._require_no_output()

    @property
    def names_splits(self) -> bool:
        return self._description != ""

    def splits(self) -> list[str]:
        found = self._described_parts()
        return list(dict.fromkeys(part.split for part in found)) if found else super().splits()

    def _described_parts(self) -> list[Part]:
        path = self._description
        return yolo_parts(self.uri, path, self.fault) if path else []

    def _prepare(self) -> None:
        found = self._described_parts()
        self._parts = tuple(wanted_parts(found, self.options.split, self.fault)) if found else ()
        starts = tuple(f"{part.images}/" for part in self._parts)
        others = {part.images: part.split for part in found if part not in self._parts}
        # `train: images` beside `val: images/val` would have the images of val in both
        self._others = {name: split for name, split in others.items() if name.startswith(starts)}
        self.left_out = frozenset(self._others)
        path, self._names, self._keypoints = self._names_file()
        self.class_lists = []
        self.learn_classes(path, self._names.items())

    def notes(self) -> list[str]:
        told = (
            f"{self.field}: {name} is of split {split}, and left out of {self.options.split}"
            for name, split in self._others.items()
        )
        return [*super().notes(), *told]

    def _names_file(self) -> tuple[str, dict[int, str], Shape]:
        """A file that tells, in the folder or one above; class names by number, and the shape of a line's keypoints."""
        for path in filter(is_file, self._names_files()):
            with opened(path) as file:
                data = file.read(MAX_BYTES)
            if path.endswith(("txt", "names")):
                # A byte order mark would become part of the first name.
                lines = data.decode("utf-8-sig", "replace").splitlines()
                # An empty line has a number as well, which no object may use.
                names = {n: line.strip() for n, line in enumerate(lines) if line.strip()}
                return path, names, NO_KEYPOINTS
            try:
                return path, *_described(parse(data))
            except (DocumentError, ValueError) as error:
                raise self._fault(f"{path}: {error}") from None
        return "", {}, NO_KEYPOINTS

    def _names_files(self) -> list[str]:
        """Where names of classes may be, the first that is there counts."""
        if self._description:
            return [self._description]
        above = os.path.dirname(absolute(self._folder))
        folders = (self._folder, above, os.path.dirname(above))
        return [os.path.join(folder, name) for folder in folders for name in NAMES_FILES]

    def regions(self, data: bytes) -> Iterator[Region]:
        for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
            if not line.strip():
                continue
            try:
                yield self._region(line.split())
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None

    def _region(self, words: list[str]) -> Region:
        # int() takes "-1" and "1_0" as well.
        if not re.fullmatch(r"\d{1,9}", words[0]):
            raise ValueError(f"found the class {words[0][:40]!r}; accepted: a class number from 0")
        number = int(words[0])
        if self._names and number not in self._names:
            raise ValueError(
                f"found the class {number}; accepted: one of {len(self._names)} that have names"
            )
        label, found = self._names.get(number, str(number)), [float(word) for word in words[1:]]
        # An even count of keypoints looks like a polygon; only `data.yaml` tells them apart.
        count, numbers = self._keypoints
        is_pose = count > 0 and len(found) == 4 + count * numbers
        # Polygons have an even count of numbers: an odd one of 4 + 3 k is a box with keypoints.
        if len(found) == 4 or is_pose or (len(found) % 2 and len(found) % 3 == 1):
            points = [*found[4:]]
            # Keypoints without visibility count as visible (2).
            if is_pose and numbers == 2:
                points = [
                    n for x, y in zip(points[::2], points[1::2], strict=True) for n in (x, y, 2)
                ]
            # Each third number of the keypoints is a visibility, and no fraction.
            _require_fractions([*found[:4], *points[::3], *points[1::3]])
            x, y, width, height = found[:4]
            # YOLO gives the centre, a region its left and top.
            box = box_of((x - width / 2, y - height / 2, width, height))
            return Region(label, box, keypoints=keypoints_of(points), is_relative=True)
        _require_fractions(found)
        polygon = polygon_of(found)
        left, top = min(polygon[::2]), min(polygon[1::2])
        box = (left, top, max(polygon[::2]) - left, max(polygon[1::2]) - top)
        return Region(label, box, (polygon,), is_relative=True)


def _is_list(part: Part) -> bool:
    return part.file != ""


def _is_description(path: str) -> bool:
    return path.lower().endswith((".yaml", ".yml")) and is_file(path)


def _require_fractions(found: list[float]) -> None:
    for number in found:
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"found {number:g}; accepted: fractions from 0 to 1")


def _described(found: Any) -> tuple[dict[int, str], Shape]:
    """Names, and the shape of keypoints, of a `data.yaml`. Raises ValueError for names that are neither list nor mapping."""
    names = found.get("names", []) if isinstance(found, dict) else None
    shape = found.get("kpt_shape") if isinstance(found, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise ValueError("names: accepted: a list, or a mapping of class numbers to names")
    # YAML reads no, yes, on and off as truth values.
    wrong = next((number for number, name in names.items() if isinstance(name, bool)), None)
    if wrong is not None:
        raise ValueError(
            f"names: found {str(names[wrong]).lower()} for class {wrong}; accepted: texts. Next: put quotes around it"
        )
    keypoints = NO_KEYPOINTS
    if isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape):
        if shape[0] < 0 or shape[1] not in (2, 3):
            raise ValueError(
                f"kpt_shape: found {shape}; accepted: a count and 2 (x, y) or 3 (x, y, visibility)"
            )
        keypoints = (shape[0], shape[1])
    return {number: str(name) for number, name in names.items()}, keypoints
