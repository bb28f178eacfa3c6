"""Images of a folder with a file of annotations each, of the same path but for the suffix: Pascal VOC and YOLO."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.holdings import holds_first
from stylebatch.data.sources.image_folder import ImageFolder
from stylebatch.data.sources.regions import (
    Region,
    box_of,
    frame_of,
    keypoints_of,
    label_of,
    polygon_of,
)
from stylebatch.data.sources.source import USUAL, Item
from stylebatch.documents import DocumentError, parse
from stylebatch.errors import ManifestError

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64
Shape = tuple[int, int]
"""Keypoints of an object, and numbers of each: 2 without visibility, else 3."""
NO_KEYPOINTS: Shape = (0, 0)
NAMES_FILES = ("classes.txt", "obj.names", "data.yaml", "data.yml", "dataset.yaml")


class AnnotatedImages(ImageFolder):
    """The images of the folder, labelled by their annotations; those without are listed without label, and counted."""

    takes = frozenset(("annotations", "damaged"))
    reads_beside = False
    suffix: ClassVar[str]

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._without: Counter[str] = Counter()

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return False

    @classmethod
    def describes(cls, annotations: str) -> bool:
        return (
            os.path.isdir(annotations) and holds_first(annotations, (".xml", ".txt")) == cls.suffix
        )

    def items(self) -> Iterator[Item]:
        self._without.clear()
        self._prepare()
        found = 0
        for item in super().items():
            stem = PurePosixPath(item.id).with_suffix(self.suffix)
            path = os.path.join(self._folder, stem)
            try:
                with open(path, "rb") as file:
                    # One byte over the bound tells a file that is too large.
                    data = file.read(MAX_BYTES + 1)
            except FileNotFoundError:
                self._without["images without annotations"] += 1
                # The folder's name is no label here: labels come from annotations alone.
                yield replace(item, label="")
                continue
            except OSError as error:
                raise self._fault(f"{path}: cannot be read: {error.strerror}") from None
            found += 1
            regions = self._regions_of(data, path)
            yield replace(item, label=label_of(regions), regions=regions)
        if not found:
            raise self._fault(
                f"found no {self.suffix} file for any image of {self.uri}; accepted: files of the images' paths from the folder, such "
                f"as a{self.suffix} for a.jpg"
            )

    @property
    def _folder(self) -> str:
        return str(self.options.annotations)

    def _prepare(self) -> None:
        """What is read once, before the images."""

    def _regions_of(self, data: bytes, path: str) -> tuple[Region, ...]:
        try:
            if len(data) > MAX_BYTES:
                raise ValueError(f"over {MAX_BYTES:,} bytes")
            return tuple(self.regions(data))
        except ValueError as error:
            if self.options.damaged == "refuse":
                raise self._fault(
                    f"{path}: {error}. Next: correct it, or read such images without label with `damaged: pass_over`"
                ) from None
            self._without["images whose annotations cannot be read"] += 1
            return ()

    @abstractmethod
    def regions(self, data: bytes) -> Iterator[Region]:
        """The objects of one image. Raises ValueError for annotations that cannot be read."""

    def _fault(self, what: str) -> ManifestError:
        return self.fault(what, "annotations")

    def notes(self) -> list[str]:
        told = [f"{self.field}: {count} {what}" for what, count in self._without.items()]
        return [*super().notes(), *told]


class VocImages(AnnotatedImages):
    """Pascal VOC: an XML file of objects for each image. Boxes from `xmin`, `ymin` to `xmax`, `ymax`."""

    accepted = "one with Pascal VOC `annotations`"
    suffix = ".xml"

    def regions(self, data: bytes) -> Iterator[Region]:
        root = _element(data)
        if root.tag != "annotation":
            raise ValueError(f"found <{root.tag}>; accepted: <annotation>")
        frame = frame_of(root.findtext("size/width"), root.findtext("size/height"))
        for number, found in enumerate(root.iter("object"), 1):
            label = (found.findtext("name") or "").strip()
            box = found.find("bndbox")
            if not label or box is None:
                raise ValueError(f"object {number}: found no <{'bndbox' if label else 'name'}>")
            try:
                left, top, right, bottom = (
                    float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax")
                )
                sides = box_of((left, top, right - left, bottom - top))
                yield Region(label, sides, frame=frame)
            except ValueError as error:
                raise ValueError(f"object {number}: bndbox: {error}") from None


def _element(data: bytes) -> Element:
    """The XML's root. Raises ValueError for broken XML, for one with a document type, which may hold bombs, and for a deep one."""
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested over {MAX_DEPTH} levels deep")
        builder.start(tag, dict(attributes))

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise ValueError("found a document type (<!DOCTYPE>); accepted: XML without")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    # expat calls it before any entity is declared, so that none can expand.
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    # A LookupError tells of an encoding that is declared and that Python does not know.
    except (expat.ExpatError, ParseError, LookupError) as error:
        raise ValueError(f"not valid XML: {error}") from None


class YoloImages(AnnotatedImages):
    """YOLO: a text file for each image, an object a line: class, then a box, a polygon or keypoints, in fractions of the sides.

    0 0.5 0.5 0.2 0.4                 centre x, y, width, height
    0 0.1 0.1 0.9 0.1 0.5 0.8         x, y of three points or more
    0 0.5 0.5 0.2 0.4 0.5 0.3 2 ...   a box, then x, y, visibility of each keypoint
    """

    accepted = "one with YOLO `annotations`"
    suffix = ".txt"

    def _prepare(self) -> None:
        self._names, self._keypoints = self._names_file()

    def _names_file(self) -> tuple[dict[int, str], Shape]:
        """Class names by number, and the shape of a line's keypoints, where a file tells: in the folder or one above."""
        above = os.path.dirname(os.path.abspath(self._folder))
        for folder in (self._folder, above, os.path.dirname(above)):
            for name in NAMES_FILES:
                path = os.path.join(folder, name)
                if not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    data = file.read(MAX_BYTES)
                if name.endswith(("txt", "names")):
                    # A byte order mark would become part of the first name.
                    lines = data.decode("utf-8-sig", "replace").splitlines()
                    return dict(
                        enumerate(line.strip() for line in lines if line.strip())
                    ), NO_KEYPOINTS
                try:
                    return _described(parse(data))
                except (DocumentError, ValueError) as error:
                    raise self._fault(f"{path}: {error}") from None
        return {}, NO_KEYPOINTS

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
    keypoints = NO_KEYPOINTS
    if isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape):
        if shape[0] < 0 or shape[1] not in (2, 3):
            raise ValueError(
                f"kpt_shape: found {shape}; accepted: a count and 2 (x, y) or 3 (x, y, visibility)"
            )
        keypoints = (shape[0], shape[1])
    return {number: str(name) for number, name in names.items()}, keypoints
