"""COCO: a JSON file of images and of the objects in them, beside a folder of the images. Instances, keypoints, captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import entries_of, exists, is_file, name_in, opened, stamp_of
from stylebatch.data.sources.captions import told
from stylebatch.data.sources.holdings import ANNOTATION_SUFFIXES, kind_within
from stylebatch.data.sources.layouts import IMAGE_FOLDERS, Part, coco_parts, wanted_parts
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.misplaced import LOOKED_AT, require_some
from stylebatch.data.sources.patterns import is_pattern
from stylebatch.data.sources.regions import (
    Region,
    box_of,
    frame_of,
    keypoints_of,
    label_of,
    numbers,
    polygon_of,
    without,
)
from stylebatch.data.sources.run_lengths import mask_of
from stylebatch.data.sources.source import USUAL, Item
from stylebatch.errors import ManifestError, StorageError

MAX_BYTES = 1 << 30
PASSED = "annotation that cannot be read"
REPEATED = "image that is listed again"


class CocoImages(LocalFiles):
    """The images that the JSON lists, in its order, named by `file_name` from the folder."""

    accepted = "a folder of images with COCO `annotations`"
    labels_by_objects = True
    takes = frozenset(("annotations", "captions", "damaged", "split"))

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._passed_over: Counter[str] = Counter()
        self._read: list[Part] = []

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return False

    @classmethod
    def describes(cls, annotations: str) -> bool:
        is_json = annotations.lower().endswith(".json")
        if is_json and (is_file(annotations) or is_pattern(annotations)):
            return True
        return kind_within(annotations, ANNOTATION_SUFFIXES) == ".json"

    def items(self) -> Iterator[Item]:
        self._passed_over, self.class_lists = Counter(), []
        self._read = wanted_parts(self._parts(), self.options.split, self.fault)
        for part in self._read:
            self._file, self._within = part.file, part.images
            yield from self._items()

    def splits(self) -> list[str]:
        return [part.split for part in self._parts() if part.split]

    def _parts(self) -> list[Part]:
        given = self.options.annotations
        return coco_parts(self.uri, given, f"{self.field}.annotations", self.fault)

    def _items(self) -> Iterator[Item]:
        """The images of one file."""
        found = self._document()
        images = self._list(found, "images")
        names = {
            one.get("id"): str(one.get("name", one.get("id")))
            for one in self._list(found, "categories")
            if isinstance(one, dict) and isinstance(one.get("id"), int | str)
        }
        numbered = [(id_, name) for id_, name in names.items() if type(id_) is int]
        self.learn_classes(self._file, sorted(numbered))
        licenses = {
            str(one.get("id")): str(one.get("name", ""))
            for one in self._list(found, "licenses")
            if isinstance(one, dict) and isinstance(one.get("id"), int | str)
        }
        known = {
            image.get("id")
            for image in images
            if isinstance(image, dict) and isinstance(image.get("id"), int | str)
        }
        regions, captions = self._annotations(found, names, known)
        seen: dict[object, str] = {}
        if self._within and self._is_named_from_root(images):
            self._within = ""
        elif self.options.annotations is None and not self._within:
            self._within = self._folder_of_all(images)
        names_of_all = [self._name(image, n)[0] for n, image in enumerate(images, 1)]
        require_some(self, names_of_all, self._file)
        for number, image in enumerate(images, 1):
            name, id_ = self._name(image, number)
            if id_ in seen:
                if seen[id_] != name:
                    raise self._fault(
                        f"image {number}: found the id {id_!r} twice, of {seen[id_]} and of {name}; accepted: an id of its own for each"
                    )
                # Of files that were joined, both may list an image.
                self._passed_over[REPEATED] += 1
                continue
            seen[id_] = name
            frame = frame_of(image.get("width"), image.get("height"))
            within = tuple(replace(region, frame=frame) for region in regions.pop(id_, ()))
            yield Item(
                name, self.ref(f"{self.uri.rstrip('/')}/{name}"), label_of(within), told(captions.pop(id_, ()), self.options),
                licenses.get(str(image.get("license")), ""),
                extra=without(image.items(), "file_name", "license"), regions=within,
            )  # fmt: skip

    def _is_named_from_root(self, images: list[Any]) -> bool:
        """Whether names begin with the folder of the split: its images are there, and not in another one within it."""
        names = [self._name(image, n)[0] for n, image in enumerate(images[:LOOKED_AT], 1)]
        inner = [name.removeprefix(f"{self._within}/") for name in names]
        root = self.uri.rstrip("/")
        is_there, is_within = (
            any(exists(f"{root}/{name}") for name in some) for some in (inner, names)
        )
        return is_there and not is_within

    def _folder_of_all(self, images: list[Any]) -> str:
        """The folder in the root that names are from, where they are not from the root itself."""
        root = self.uri.rstrip("/")
        names = [self._name(image, n)[0] for n, image in enumerate(images[:LOOKED_AT], 1)]
        places = ("", *(f"{name}/" for name, is_dir in entries_of(root).items() if is_dir and name.lower() in IMAGE_FOLDERS))  # fmt: skip
        found = (at for at in places if any(is_file(f"{root}/{at}{name}") for name in names))
        return next(found, "").rstrip("/")

    def _document(self) -> dict[str, Any]:
        try:
            size = stamp_of(self._file)[0]
            if size <= MAX_BYTES:
                with opened(self._file) as file:
                    found = json.load(file)
        except StorageError:  # a store that does not answer says nothing of the file
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise self._fault(f"cannot be read as JSON: {str(error)[:200]}") from None
        if size > MAX_BYTES:
            raise self._fault(
                f"has {size:,} bytes; accepted: at most {MAX_BYTES:,}. Next: split it"
            )
        if not isinstance(found, dict) or not isinstance(found.get("images"), list):
            raise self._fault(
                "found no list `images`; accepted: COCO annotations, an object with `images` and `annotations`"
            )
        return found

    def _list(self, found: dict[str, Any], name: str) -> list[Any]:
        listed = found.get(name, [])
        if not isinstance(listed, list):
            raise self._fault(f"`{name}`: found {str(listed)[:60]}; accepted: a list")
        return listed

    def _name(self, image: Any, number: int) -> tuple[str, object]:
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name or not isinstance(image.get("id"), int | str):
            raise self._fault(
                f"image {number}: found {str(image)[:80]}; accepted: an object with `id` and `file_name`"
            )
        # Lists that were made on Windows have backslashes between folders.
        name = name.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/"):
            raise self._fault(
                f"image {number}: file_name: found {name!r}; accepted: a path within {self.uri}"
            )
        return f"{self._within}/{name}" if self._within else name, image["id"]

    def _annotations(
        self, found: dict[str, Any], names: dict[Any, str], known: set[Any]
    ) -> tuple[dict[Any, list[Region]], dict[Any, list[str]]]:
        """Regions and captions of each image, by its id."""
        regions: dict[Any, list[Region]] = {}
        captions: dict[Any, list[str]] = {}
        listed = self._list(found, "annotations")
        for i in range(len(listed)):
            one, listed[i] = listed[i], None  # frees what was read: the file may hold a gigabyte
            try:
                image = one["image_id"]
                if not isinstance(image, int | str) or image not in known:
                    raise ValueError(f"image_id: found {image!r}, which no image has")
                # Captions and objects stand in one list: an entry may be either.
                if isinstance(one.get("caption"), str):
                    captions.setdefault(image, []).append(one["caption"])
                if "category_id" in one:
                    regions.setdefault(image, []).append(self._region(one, names))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                if self.options.damaged == "refuse":
                    raise self._fault(
                        f"annotation {i + 1}: {what}. Next: correct it, or pass over such ones with `damaged: pass_over`"
                    ) from None
                self._passed_over[PASSED] += 1
        return regions, captions

    def _region(self, one: dict[str, Any], names: dict[Any, str]) -> Region:
        category = one["category_id"]
        if not isinstance(category, int | str) or category not in names:
            raise ValueError(f"category_id: found {category!r}, which no category has")
        box, shape, points = one.get("bbox"), one.get("segmentation"), one.get("keypoints")
        polygons: tuple[Sequence[float], ...] = ()
        if isinstance(shape, list):
            polygons = tuple(polygon_of(numbers(polygon)) for polygon in shape)
        mask = None
        # Crowds have run lengths: an object in place of the list of polygons.
        if isinstance(shape, dict) and shape:
            mask = mask_of(shape.get("counts"), shape.get("size"))
            box = box or list(mask.box or ())
        return Region(
            names[category],
            box_of(numbers(box, 4)) if box else None,
            polygons,
            keypoints_of(numbers(points)) if points else (),
            is_crowd=one.get("iscrowd") == 1,
            mask=mask,
        )

    def _fault(self, what: str) -> ManifestError:
        return self.fault(f"{self._file}: {what}", "annotations")

    def notes(self) -> list[str]:
        found = self._read if self.options.annotations is None else ()
        files = ", ".join(name_in(self.uri, part.file) for part in found)
        return [*super().notes(), *([f"{self.field}: annotations of {files}"] if files else [])]

    def passed_over(self) -> Counter[str]:
        return self._passed_over
