"""Annotations of a tree of pictures, in the form that the contents had them: COCO, Pascal VOC or YOLO; COCO for all others.

    annotations/instances_train.json                  COCO; its `file_name`s are from images/train/
    annotations/train/cat/NAME--STYLE--KEY.xml        Pascal VOC, a file per picture
    labels/train/cat/NAME--STYLE--KEY.txt, data.yaml  YOLO, a file per picture, where its readers look for them

They are derived from the metadata of all committed shards once a run ends, and can be made anew at any time: in one pass, and
with nothing held but names of classes.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import IO, Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import pyarrow as pa

from stylebatch.data.sources.regions import FLAGS
from stylebatch.folder import Folder
from stylebatch.store.output_record import RunRecord, find_run
from stylebatch.store.sinks.sink import Row
from stylebatch.store.sinks.tree import FILE, IMAGES, below, key_of
from stylebatch.store.sinks.whole_files import unlike

ANNOTATIONS, LABELS, DESCRIPTION = "annotations", "labels", "data.yaml"
COLUMNS = [FILE, "width", "height", "objects"]
CHUNK = 1 << 20
OWN_NAMES = "splits"
"""In a `data.yaml`: folders of images by the names of their splits."""


def is_annotation(file: str) -> bool:
    """Whether `writing_annotations` gives a file this name."""
    folder, _, rest = file.partition("/")
    if folder == ANNOTATIONS and "/" not in rest:
        return rest.startswith("instances_") and rest.endswith(".json")
    endings = {ANNOTATIONS: ".xml", LABELS: ".txt"}
    return file.endswith(endings.get(folder, "\0")) and bool(key_of(file))


def annotation_files(output: Folder) -> list[str]:
    """Those that are there."""
    found = [file for folder in (ANNOTATIONS, LABELS) for file in below(output, f"{folder}/")]
    named = [DESCRIPTION] if any(file.startswith(f"{LABELS}/") for file in found) else []
    return [*filter(is_annotation, found), *named]


def form_of(run: RunRecord) -> str:
    """The form of the annotations of an output; "" where none is recorded."""
    return run.annotations or str(run.identity.get("annotations", ""))


@contextmanager
def writing_annotations(output: Folder) -> Iterator[Callable[[pa.Table], None]]:
    """Writes them from the metadata of shards that it is given in their order, where the samples have objects.

    What an earlier run wrote of samples that failed since is removed.
    """
    with ExitStack() as opened:
        target = _Files(output, opened)
        with _making(output, target) as add:
            yield add
    # without any written there are no objects: what lies there may be somebody's own
    for file in annotation_files(output) if target.names else ():
        if file not in target.names:
            output.remove(file)


def annotation_faults(output: Folder, tables: Iterable[pa.Table]) -> Iterator[tuple[str, str]]:
    """File and fault of each that is not what `writing_annotations` would write."""
    target = _Sums()
    with _making(output, target) as add:
        for table in tables:
            # records of all shards have the same columns
            if "objects" not in table.column_names:
                return
            add(table)
    yield from unlike(output, target.sums, "is not made of the committed samples")


class _Target(ABC):
    """Where files go."""

    @abstractmethod
    def open(self, file: str) -> Callable[[bytes], object]:
        """What takes the parts of a file, until the end."""

    @abstractmethod
    def write(self, file: str, data: bytes) -> None:
        """Take a whole file."""


class _Files(_Target):
    """A folder. `opened` closes the files; `names`: those that were written."""

    def __init__(self, output: Folder, opened: ExitStack) -> None:
        self.output, self.opened = output, opened
        self.names: set[str] = set()

    def open(self, file: str) -> Callable[[bytes], object]:
        self.names.add(file)
        return self.opened.enter_context(self.output.writing(file)).write

    def write(self, file: str, data: bytes) -> None:
        self.names.add(file)
        self.output.write(file, data)


class _Sums(_Target):
    """sha256 by name."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}

    def open(self, file: str) -> Callable[[bytes], object]:
        self.sums[file] = found = hashlib.sha256()
        return found.update

    def write(self, file: str, data: bytes) -> None:
        self.sums[file] = hashlib.sha256(data)


class _Writer(ABC):
    """Makes annotations of pictures in the order of their keys."""

    def __init__(self, target: _Target, classes: Iterable[str], opened: ExitStack) -> None:
        self.target, self.opened = target, opened
        # names of all classes, where the manifest fixes them
        self.names: dict[int, str] = dict(enumerate(classes))

    def add(self, row: Row) -> None:
        """A picture with its objects."""
        split, _, name = row[FILE].removeprefix(f"{IMAGES}/").partition("/")
        objects = row["objects"]
        self.names.update(zip(objects["category_id"], objects["category"], strict=True))
        self.picture(split, name, row)

    @abstractmethod
    def picture(self, split: str, name: str, row: Row) -> None:
        """Write what there is of a picture, `name` from the folder of its split."""

    @abstractmethod
    def end(self) -> None:
        """Write what comes last."""

    def categories(self) -> dict[int, str]:
        """Names of the classes; of one whose objects were all cut off its number."""
        return {n: self.names.get(n, str(n)) for n in range(max(self.names, default=-1) + 1)}


@contextmanager
def _making(output: Folder, target: _Target) -> Iterator[Callable[[pa.Table], None]]:
    with ExitStack() as opened:
        found: list[_Writer] = []

        def add(metadata: pa.Table) -> None:
            if not set(COLUMNS) <= set(metadata.column_names):
                return
            if not found:
                run = find_run(output)
                form, classes = "", ()
                if run is not None:
                    form, classes = form_of(run), run.identity.get("classes", ())
                found.append(WRITERS.get(form, _Coco)(target, classes, opened))
            for row in metadata.select(COLUMNS).to_pylist():
                if row[FILE]:
                    found[0].add(row)

        yield add
        for writer in found:
            writer.end()


def _each(row: Row) -> Iterator[dict[str, Any]]:
    """The objects of a picture, one by one."""
    lists = row["objects"]
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))


class _Instances:
    """The COCO file of a split: objects as they come, behind them the images, which lie in a temporary file until then."""

    def __init__(self, write: Callable[[bytes], object], images: IO[bytes]) -> None:
        self.write, self.images = write, images
        self.num_images = self.num_objects = 0
        write(b'{"annotations": [')

    def add(self, name: str, row: Row) -> None:
        self.num_images += 1
        size = {"width": row["width"], "height": row["height"]}
        image = {"id": self.num_images, "file_name": name, **size}
        self.images.write((b",\n" if self.num_images > 1 else b"\n") + _json(image))
        for one in _each(row):
            self.num_objects += 1
            ids = {"id": self.num_objects, "image_id": self.num_images}
            found = ids | {"category_id": one["category_id"]}
            found |= {name: one[name] for name in ("bbox", "area", "iscrowd", "segmentation")}
            if one.get("counts"):
                found["segmentation"] = {"counts": one["counts"], "size": one["size"]}
            if one["keypoints"]:
                seen = sum(visibility > 0 for visibility in one["keypoints"][2::3])
                found |= {"keypoints": one["keypoints"], "num_keypoints": seen}
            self.write((b",\n" if self.num_objects > 1 else b"\n") + _json(found))

    def end(self, names: dict[int, str]) -> None:
        self.write(b'],\n"images": [')
        self.images.seek(0)
        while part := self.images.read(CHUNK):
            self.write(part)
        categories = [{"id": number, "name": name} for number, name in names.items()]
        self.write(b'],\n"categories": ' + _json(categories) + b"}\n")


class _Coco(_Writer):
    def __init__(self, target: _Target, classes: Iterable[str], opened: ExitStack) -> None:
        super().__init__(target, classes, opened)
        self._splits: dict[str, _Instances] = {}

    def picture(self, split: str, name: str, row: Row) -> None:
        if split not in self._splits:
            write = self.target.open(f"{ANNOTATIONS}/instances_{split}.json")
            images = self.opened.enter_context(TemporaryFile())  # noqa: SIM115
            self._splits[split] = _Instances(write, images)
        self._splits[split].add(name, row)

    def end(self) -> None:
        for instances in self._splits.values():
            instances.end(self.categories())


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


class _Voc(_Writer):
    def picture(self, split: str, name: str, row: Row) -> None:
        root = Element("annotation")
        folder, _, file = name.rpartition("/")
        SubElement(root, "folder").text = folder
        SubElement(root, "filename").text = file
        size = SubElement(root, "size")
        for side, value in (("width", row["width"]), ("height", row["height"]), ("depth", 3)):
            SubElement(size, side).text = str(value)
        for one in _each(row):
            found = SubElement(root, "object")
            # XML has no control characters
            category = "".join(c if c.isprintable() else " " for c in one["category"])
            SubElement(found, "name").text = category
            for flag in FLAGS:
                if flag in one:
                    SubElement(found, flag).text = str(one[flag])
            box = SubElement(found, "bndbox")
            for side, value in _voc_sides(one):
                SubElement(box, side).text = str(value)
        indent(root)
        self.target.write(f"{ANNOTATIONS}/{split}/{_stem(name)}.xml", tostring(root, "utf-8"))

    def end(self) -> None:
        return


def _voc_sides(one: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Whole pixels, counted from 1 and all within the box: most readers of this form take no others."""
    left, top, width, height = one["bbox"]
    for name, low, extent in (("x", left, width), ("y", top, height)):
        begin = round(low) + 1
        yield f"{name}min", begin
        yield f"{name}max", max(begin, round(low + extent))


class _Yolo(_Writer):
    def __init__(self, target: _Target, classes: Iterable[str], opened: ExitStack) -> None:
        super().__init__(target, classes, opened)
        self._splits: dict[str, None] = {}
        self._keypoints = 0

    def picture(self, split: str, name: str, row: Row) -> None:
        self._splits[split] = None
        lines = [_line(one, row["width"], row["height"]) for one in _each(row)]
        counts = (len(points) // 3 for points in row["objects"]["keypoints"])
        self._keypoints = max([self._keypoints, *counts])
        self.target.write(f"{LABELS}/{split}/{_stem(name)}.txt", "".join(lines).encode())

    def end(self) -> None:
        if not self._splits:
            return
        found = _yolo_splits(self._splits)
        # without `path`, readers count from this file's folder and not from where they are started; JSON is YAML
        lines = [f'{name}: "{IMAGES}/{split}"\n' for name, split in found.items()]
        if _needs_names(self._splits):
            lines += [f"{OWN_NAMES}:\n"]
            lines += [f'  "{split}": "{IMAGES}/{split}"\n' for split in self._splits]
        lines += [f"kpt_shape: [{self._keypoints}, 3]\n"] if self._keypoints else []
        names = (f"  {n}: {json.dumps(name)}\n" for n, name in self.categories().items())
        self.target.write(DESCRIPTION, "".join([*lines, "names:\n", *names]).encode())


def _yolo_splits(splits: Collection[str]) -> dict[str, str]:
    """What is train, val and test to readers of YOLO, which ask for the first two whatever there is."""
    train = "train" if "train" in splits else next(iter(splits))
    # not the test split: a trainer picks its model by what stands here
    validation = next((s for s in ("validation", "val") if s in splits), train)
    return {"train": train, "val": validation} | ({"test": "test"} if "test" in splits else {})


def _needs_names(splits: Collection[str]) -> bool:
    """Whether train, val and test alone would lose a split, or its name."""
    return "train" not in splits or not set(splits) <= set(_yolo_splits(splits).values())


def notes_on_splits(form: str, splits: Collection[str]) -> list[str]:
    """What people should know of a `data.yaml` whose train and val are other splits."""
    found = _yolo_splits(splits) if form == "yolo" and splits else {}
    if not found or (found["train"] != found["val"] and not _needs_names(splits)):
        return []
    told = f"; all splits stand under {OWN_NAMES}" if _needs_names(splits) else ""
    return [
        f"In data.yaml, where readers of YOLO ask for both, train is {IMAGES}/{found['train']} and val is {IMAGES}/{found['val']}{told}."
    ]


def _line(one: dict[str, Any], width: int, height: int) -> str:
    """A polygon where there is one, else the box with its keypoints."""
    if len(one["segmentation"]) == 1 and not one["keypoints"]:
        (polygon,) = one["segmentation"]
        numbers = [n / (height if i % 2 else width) for i, n in enumerate(polygon)]
    else:
        left, top, across, down = one["bbox"]
        numbers = [(left + across / 2) / width, (top + down / 2) / height]
        numbers += [across / width, down / height]
        for x, y, seen in zip(*(one["keypoints"][i::3] for i in range(3)), strict=True):
            numbers += [x / width, y / height, seen]
    return " ".join([str(one["category_id"]), *map(_number, numbers)]) + "\n"


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


WRITERS: dict[str, type[_Writer]] = {"coco": _Coco, "voc": _Voc, "yolo": _Yolo}
"""By form."""
