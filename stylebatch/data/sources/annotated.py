"""Images of a folder with a file of annotations each, of the same path but for the suffix; Pascal VOC, and what YOLO has in common."""

from __future__ import annotations

import itertools
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import read_each
from stylebatch.data.sources.holdings import ANNOTATION_SUFFIXES, SPLITS, kind_within
from stylebatch.data.sources.image_folder import AT_ONCE, ImageFolder
from stylebatch.data.sources.misplaced import fitting
from stylebatch.data.sources.regions import (
    FLAGS,
    Region,
    box_of,
    frame_of,
    label_of,
)
from stylebatch.data.sources.sidecars import level
from stylebatch.data.sources.source import USUAL, Item
from stylebatch.data.sources.unused import unused_annotations
from stylebatch.errors import ManifestError, StorageError
from stylebatch.words import counted

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64


class AnnotatedImages(ImageFolder):
    """The images of the folder, labelled by their annotations; those without are listed without label, and counted."""

    takes = frozenset(("annotations", "damaged", "split"))
    reads_beside = False
    labels_by_objects = True
    suffix: ClassVar[str]

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._without: Counter[str] = Counter()
        self._splits_seen: set[str] = set()

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return False

    @classmethod
    def describes(cls, annotations: str) -> bool:
        return kind_within(annotations, ANNOTATION_SUFFIXES) == cls.suffix

    def items(self) -> Iterator[Item]:
        self._without.clear()
        self._splits_seen.clear()
        self._prepare()
        found, lost, items = 0, list[str](), super().items()
        while some := list(itertools.islice(items, AT_ONCE)):
            paths = [self._file_of(item.id) for item in some]
            for item, path, data in zip(some, paths, self._each(paths), strict=True):
                if self.options.split is None and level(item.id, 1).casefold() in SPLITS:
                    self._splits_seen.add(level(item.id, 1))
                if data is None:
                    self._without["without annotations"] += 1
                    lost.append(item.id)
                    yield item
                    continue
                found += 1
                regions = self._regions_of(data, path)
                yield replace(item, label=label_of(regions), regions=regions)
        if not found:
            meant = fitting(self.uri, self._folder, lost, self.suffix)
            raise self._fault(
                f"found no {self.suffix} file for any image of {self.uri}; {f'did you mean `{meant}`? ' if meant else ''}accepted: files "
                f"of the images' paths from the folder, such as a{self.suffix} for a.jpg"
            )

    def _each(self, paths: list[str]) -> Iterator[bytes | None]:
        """What the files hold, and one byte over the bound of one that is too large; None for one that is not there."""
        try:
            yield from read_each(paths, MAX_BYTES + 1)
        except StorageError:
            raise
        except OSError as error:
            raise self._fault(f"{error.filename}: cannot be read: {error.strerror}") from None

    def _label(self, path: str) -> str:
        """None: labels come from annotations alone."""
        return ""

    def _file_of(self, image: str) -> str:
        """The file of annotations of an image."""
        return os.path.join(self._folder, PurePosixPath(image).with_suffix(self.suffix))

    @property
    def _folder(self) -> str:
        if self.options.annotations is None:
            told = unused_annotations(self.uri)
            raise self.fault(
                f"is missing{f' ({told})' if told else ''}; accepted: the folder of {self.suffix} files",
                "annotations",
            )
        return self.options.annotations

    def _prepare(self) -> None:
        """What is done once, before the images."""

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
            self._without["whose annotations cannot be read"] += 1
            return ()

    @abstractmethod
    def regions(self, data: bytes) -> Iterator[Region]:
        """The objects of one image. Raises ValueError for annotations that cannot be read."""

    def _fault(self, what: str) -> ManifestError:
        return self.fault(what, "annotations")

    def notes(self) -> list[str]:
        told = [f"{counted(count, 'image')} {what}" for what, count in self._without.items()]
        if len(self._splits_seen) > 1:
            names = sorted(self._splits_seen)
            told.append(
                f"the splits {', '.join(names)} are read as one; `split: {names[0]}` reads one, and `split: source` beside contents "
                "keeps them"
            )
        return [*super().notes(), *(f"{self.field}: {one}" for one in told)]


class VocImages(AnnotatedImages):
    """Pascal VOC: an XML file of objects for each image. `xmin`, ... `ymax` are pixels that are counted from 1, and all within the box."""

    accepted = "one with Pascal VOC `annotations`"
    suffix = ".xml"
    _begin_at_0 = 0

    def _prepare(self) -> None:
        self._begin_at_0 = 0

    def notes(self) -> list[str]:
        count = self._begin_at_0
        told = f"{self.field}: boxes that begin at 0, though Pascal VOC counts pixels from 1: {count}; they may be a pixel off"
        return [*super().notes(), *([told] if count else [])]

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
                # The first pixel lies from 0 to 1: the box of a whole picture is 1, 1, WIDTH, HEIGHT in the file.
                sides = box_of((left - 1, top - 1, right - left + 1, bottom - top + 1))
                self._begin_at_0 += min(left, top) < 1
                flags = (found.findtext(name, "").strip() == "1" for name in FLAGS)
                yield Region(label, sides, frame=frame, flags=tuple(flags))
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
