"""Lists the images of a folder, and tells what it passes over.

A folder that this program wrote is no folder of images: its contact sheet and galleries are not contents.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, ClassVar

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.places import entries_of, is_file, is_folder
from stylebatch.data.sources.beside import TABLES, Beside
from stylebatch.data.sources.holdings import SPLITS, no_split
from stylebatch.data.sources.layouts import IMAGE_FOLDERS
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.outputs import is_output, refuse_output
from stylebatch.data.sources.sidecars import further_of, level, parsed
from stylebatch.data.sources.source import USUAL, Item
from stylebatch.data.sources.stored_listing import stored_listing
from stylebatch.data.sources.unused import unused_annotations
from stylebatch.errors import ManifestError, SampleError, StorageError
from stylebatch.paths import is_address
from stylebatch.words import counted

SHOWN = 6
AT_ONCE = 256
"""Files whose sidecars are fetched together, where they are in a store."""


class ImageFolder(LocalFiles):
    """The images under the folder, sorted; the folder at the first level is the label, unless something beside them gives one."""

    accepted = "an image folder"
    takes = frozenset(("label_from", "split", "label", "caption", "captions"))
    reads_beside: ClassVar[bool] = True
    """Whether sidecars and tables of metadata are looked for."""
    left_out: frozenset[str] = frozenset()
    """Folders within those that are read, which belong to another split."""

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._begin()

    def _begin(self) -> None:
        self._passed_over: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._labels: Counter[str] = Counter()
        self._folders: set[str] = set()
        self._outputs: list[str] = []
        self._beside = Beside(self)
        self._shards: dict[str, bool] = {}

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return os.path.isdir(uri)

    def items(self) -> Iterator[Item]:
        """Each image. Raises ManifestError for a folder that cannot be read, and for an output of this program."""
        self._require_no_output()
        self._begin()
        root = os.path.join(self.ref(self.uri).uri, "")[:-1]
        for prefix, files in self._found():
            yield from self._of_folder(root, prefix, files)
        if self.reads_beside:
            self._beside.finish()
            self.types = self._beside.types(self._labels.total())

    def _of_folder(self, root: str, prefix: str, files: list[str]) -> Iterator[Item]:
        """The images of a folder; `prefix`: of their paths from the source."""
        folder, label = os.path.join(self.uri, prefix).rstrip(os.sep), self._label(prefix)
        self._folders |= {label} - {""}
        others = self._beside.enter(folder, prefix, files) if self.reads_beside else frozenset()
        used = set(others.intersection(TABLES))
        for number, name in enumerate(names := sorted(files)):
            if others and number % AT_ONCE == 0:
                self._beside.fetch(folder, names[number : number + AT_ONCE], others)
            if reason := passed_over(name):
                if name not in others:
                    self._pass_over(reason, prefix + name)
                continue
            self._labels[label] += 1
            path = prefix + name
            item = Item(path, self.within(root, path), label)
            if others or self._beside.texts:
                item, read = self._described(item, folder, name, others)
                used.update(read)
            yield item
        for name in sorted(others - used):
            self._pass_over(passed_over(name), prefix + name)

    def _require_no_output(self) -> None:
        refuse_output(self.uri, self.field)

    def _found(self) -> Iterator[tuple[str, list[str]]]:
        """Folders, as the beginning of their files' paths, with names of the files."""
        return self._stored() if is_address(self.uri) else self._walked()

    def _walked(self) -> Iterator[tuple[str, list[str]]]:
        """Those of this machine."""
        # Links are followed and may lead in a circle: no folder is entered twice.
        visited: set[str] = set()
        for start in self._starts():
            top = os.path.join(self.uri, start) if start else self.uri
            for folder, subfolders, files in os.walk(top, followlinks=True, onerror=_unreadable):
                visited.add(os.path.realpath(folder))
                relative = Path(folder).relative_to(self.uri)
                # os.walk goes down into what is left in this very list.
                subfolders[:] = sorted(
                    name for name in subfolders if self._enters(folder, relative / name, visited)
                )
                yield f"{relative.as_posix()}/" if relative.parts else "", files

    def _stored(self) -> Iterator[tuple[str, list[str]]]:
        """Those of a store."""
        starts = tuple(f"{start}/" for start in self._starts() if start)
        found = stored_listing(self.uri)
        self._outputs = found.outputs
        for name in found.hidden:
            if not starts or name.startswith(starts):
                self._pass_over("hidden folder", name)
        others = tuple(f"{folder}/" for folder in self.left_out)
        for prefix, files in found.folders:
            if (not starts or prefix.startswith(starts)) and not prefix.startswith(others):
                yield prefix, files

    def _starts(self) -> list[str]:
        """Folders that are read, from the source: that of the split that the options name, else all of it ("")."""
        split = self.options.split
        if split is None:
            return [""]
        # A split is a folder's name, never a path that leads elsewhere.
        if split in (os.curdir, os.pardir) or os.sep in split or not is_folder(os.path.join(self.uri, split)):  # fmt: skip
            folders = [name for name, is_dir in entries_of(self.uri).items() if is_dir]
            raise self.fault(
                no_split(
                    split, f"the name of a folder in it ({_some(folders) or 'there is none'})"
                ),
                "split",
            )
        return [split]

    def splits(self) -> list[str]:
        """Folders at the first level. Raises ManifestError for images beside them, which would be in no split."""
        folders, lost = [], []
        for name, is_dir in entries_of(self.uri).items():
            path = os.path.join(self.uri, name)
            if is_dir and not name.startswith(".") and not is_output(path):
                folders.append(name)
            elif not is_dir and not passed_over(name):
                lost.append(name)
        if folders and lost:
            raise self.fault(
                f"found {counted(len(lost), 'image')} beside the folders {_some(folders)}, such as {lost[0]}; "
                "accepted: each image in the folder of a split"
            )
        return folders

    def _label(self, path: str) -> str:
        """The folder above an image that is its label, as the options say; by default the first one, that of a split not counted."""
        number = 1 if self.options.label_from is None else self.options.label_from
        label = level(path, number + (self.options.split is not None)) if number else ""
        if label and self.options.label_from is None and self._is_shard(label):
            return ""
        return label

    def _is_shard(self, folder: str) -> bool:
        """Whether the first folder is one that img2dataset numbered, which is no class."""
        if folder not in self._shards:
            # img2dataset writes 00000_stats.json beside its folder 00000.
            facts = os.path.join(self.uri, self.options.split or "", f"{folder}_stats.json")
            self._shards[folder] = folder.isdecimal() and is_file(facts)
        return self._shards[folder]

    def _described(
        self, item: Item, folder: str, name: str, others: frozenset[str]
    ) -> tuple[Item, list[str]]:
        """With what stands beside the image; and the names of the files that say it."""
        told, read = self._beside.of(folder, name, item.id, others)
        # A level that was asked for goes before what stands beside the image.
        if self.options.label_from is not None or not told.label:
            told = told._replace(label=item.label)
        further = self._beside.rows.get(item.id, item.extra)
        return replace(item, **told._asdict(), extra=further), read

    def further(self, item: Item) -> Mapping[str, Any]:
        """What the JSON beside the image and its row of metadata hold; the row goes first."""
        # Where no image has any, a store need not be asked for each.
        if not self.reads_beside or not self.types:
            return item.extra
        beside = os.path.splitext(item.ref.place)[0] + ".json"
        try:
            found = parsed(self.read(self.ref(beside)))
        except StorageError:
            raise
        except (OSError, SampleError):
            found = None
        told = further_of(found, self.options) if isinstance(found, dict) else {}
        return {**told, **item.extra}

    def _enters(self, folder: str, relative: PurePath, visited: set[str]) -> bool:
        path = os.path.join(folder, relative.name)
        if relative.as_posix() in self.left_out:
            return False
        if relative.name.startswith("."):
            self._pass_over("hidden folder", relative.as_posix())
            return False
        if is_output(path):
            self._outputs.append(relative.as_posix())
            return False
        return os.path.realpath(path) not in visited

    def _pass_over(self, reason: str, path: str) -> None:
        self._passed_over[reason] += 1
        self._examples.setdefault(reason, path)

    def passed_over(self) -> Counter[str]:
        """Files that were not listed, by suffix or reason; complete after the last item."""
        return self._passed_over

    def notes(self) -> list[str]:
        """What a person should know of the listing; complete after the last item."""
        notes: list[str] = []
        if self._passed_over:
            count = self._passed_over.total()
            kinds = ", ".join(
                f"{n} {reason} (such as {self._examples[reason]})"
                for reason, n in self._passed_over.most_common(SHOWN)
            )
            more = ", ..." if len(self._passed_over) > SHOWN else ""
            notes.append(f"{count} passed over, since they are not read: {kinds}{more}")
        empty = sorted(self._folders - set(self._labels))
        if empty:
            notes.append(f"folders without any image that is read: {_some(empty)}")
        if self._outputs:
            notes.append(f"earlier outputs of this program are passed over: {_some(self._outputs)}")
        splits = [name for name in sorted(self._labels) if name.casefold() in SPLITS]
        if self.field == "contents" and (
            len(splits) > 1 or (splits and len(splits) == len(self._labels))
        ):
            example = os.path.join(self.uri, splits[0])
            notes.append(
                f"the folders {', '.join(splits)} become classes; for those below them give one, such as {example}, or "
                f"`split: {splits[0]}`"
            )
        notes += self._doubts()
        return [*(f"{self.field}: {note}" for note in notes), *self._beside.notes()]

    def _doubts(self) -> Iterator[str]:
        """Where folders of a data set with annotations are taken for classes."""
        if not self.reads_beside or self.field != "contents" or self.options.kind is not None:
            return
        names = [name for name in self._labels if name]
        if (
            self.options.label_from is None
            and len(names) == 1
            and names[0].lower() in IMAGE_FOLDERS
        ):
            yield (
                f"the only class is {names[0]}, which seems to be the name of a folder alone; `label_from: 0` takes it for no class, as "
                f"does `path: {os.path.join(self.uri, names[0])}`"
            )
        if told := unused_annotations(self.uri):
            yield told


def passed_over(name: str) -> str:
    """Why a file is passed over: hidden, or its suffix; "" for an image."""
    if name.startswith("."):
        return "hidden"
    suffix = os.path.splitext(name)[1].lower()
    return "" if suffix in IMAGE_SUFFIXES else suffix or "without suffix"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )


def _unreadable(error: OSError) -> None:
    # os.walk itself would leave such a folder out and say nothing.
    raise ManifestError(f"{error.filename}: the folder cannot be read: {error.strerror}")
