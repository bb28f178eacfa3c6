"""What stands beside the images of a folder: sidecars of their names, and tables `metadata.csv` or `.jsonl` with a `file_name` each."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from stylebatch.data.places import read_each
from stylebatch.data.sources.further import Kinds
from stylebatch.data.sources.image_columns import NAMED_BY_OPTIONS, TEXTS
from stylebatch.data.sources.objects import regions_of_cell
from stylebatch.data.sources.origins import is_read
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.sidecars import MAX_BYTES, Described, Sidecars
from stylebatch.data.sources.source import Source
from stylebatch.data.tables.reader import Table
from stylebatch.data.tables.table_columns import Columns, plain
from stylebatch.errors import ManifestError
from stylebatch.paths import is_address
from stylebatch.words import counted

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SUFFIXES = frozenset(f".{kind}" for kind in Sidecars.READ)
_NUMBERS = re.compile(r"[-\d.eE\s]+")
NONE = Described()


@dataclass
class Beside:
    """Reads both for one listing, folder by folder. `texts`: what tables say of images, by path, and `rows` their further cells;
    `has_labels`: whether one names any.
    """

    source: Source
    texts: dict[str, Described] = field(default_factory=dict)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    has_labels: bool = False
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._sidecars = Sidecars(self.source.options)
        self._notes: list[str] = []
        self._numbers = 0
        self._without = 0
        self._fetched: dict[str, bytes | None] = {}

    def enter(self, folder: str, prefix: str, files: Sequence[str]) -> frozenset[str]:
        """Read the folder's table, where it has one; the names of its sidecars, and of the table. `prefix`: of its images' paths."""
        tables = [name for name in TABLES if name in files]
        if len(tables) > 1:
            raise self.source.fault(
                f"{folder}: found {' and '.join(tables)}; accepted: one of them"
            )
        for name in tables:
            self._read(os.path.join(folder, name), prefix)
        return frozenset(
            [*tables, *(name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES)]
        )

    def fetch(self, folder: str, names: Sequence[str], others: Collection[str]) -> None:
        """Read the sidecars of these images of a store at once; on this machine each is read when it is asked for."""
        if not is_address(folder):
            return
        stems = [os.path.splitext(name)[0] for name in names]
        wanted = (f"{stem}.{kind}" for stem in stems for kind in Sidecars.READ)
        places = list(dict.fromkeys(f"{folder}/{name}" for name in wanted if name in others))
        self._fetched = dict(zip(places, read_each(places, MAX_BYTES + 1), strict=True))

    def _read(self, path: str, prefix: str) -> None:
        options = self.source.options
        asked = {
            name: getattr(options, name) if name in NAMED_BY_OPTIONS else None for name in TEXTS
        }
        names = {name: plain(asked[name] or name) for name in TEXTS}
        required = [names[name] for name in TEXTS if asked[name]]
        optional = [name for name in names.values() if name not in required]
        columns = Columns(("file_name", *required), tuple(optional), carries=True)
        table = Table(path, columns)
        for number, row in table.rows():
            # "./a.jpg" and "a.jpg" are one image.
            name = os.path.normpath(row["file_name"]).replace(os.sep, "/")
            if not row["file_name"] or name.startswith(("/", "../")):
                raise ManifestError(
                    f"{path}: row {number}: file_name: found {row['file_name']!r}; accepted: the path of an image from the table's folder"
                )
            further = columns.further(row)
            regions = self._regions(further, f"{path}: row {number}")
            label, caption, license = (row[names[field]] for field in TEXTS)
            told = Described(label, caption, license, regions)
            further = {name: text for name, text in further.items() if is_read(name, options)}
            if further:
                self.rows[prefix + name] = further
            if self.texts.setdefault(prefix + name, told) is not told:
                raise ManifestError(
                    f"{path}: row {number}: file_name: found {row['file_name']!r} for the second time; accepted: each image once"
                )
            self.has_labels = self.has_labels or bool(told.label)
        self._notes += table.notes()

    @staticmethod
    def _regions(row: dict[str, str], where: str) -> tuple[Region, ...]:
        """Objects of a row, which then lacks their column."""
        try:
            return regions_of_cell(row)
        except ValueError as error:
            raise ManifestError(f"{where}: objects: {error}") from None

    def of(
        self, folder: str, name: str, path: str, others: Collection[str]
    ) -> tuple[Described, list[str]]:
        """What stands beside the image `name`, whose path is `path`; and the sidecars that were read. `others`: those of the folder."""
        told, read = self.texts.get(path, NONE), list[str]()
        if path in self.texts:
            self.used.add(path)
        elif self.texts:
            self._without += 1
        texts: dict[str, bytes] = {}
        stem = os.path.splitext(name)[0]
        for kind in Sidecars.READ if others else ():
            other = f"{stem}.{kind}"
            if other in others:
                texts[kind] = self._bytes(os.path.join(folder, other), kind)
                read.append(other)
        if not any(texts.values()):
            return told, read
        found = self._sidecars.read({kind: data for kind, data in texts.items() if data}, path)
        # What the table says goes before sidecars, text by text.
        first = {name: value for name, value in told._asdict().items() if value}
        return found._replace(**first), read

    def types(self, total: int) -> dict[str, str]:
        """Types of the further columns and keys of `total` images; complete after the last."""
        kinds = Kinds()
        for path in self.used if self.rows else ():
            kinds.add_texts(self.rows.get(path, {}))
        return self._sidecars.types(total) | kinds.types(total)

    def _bytes(self, path: str, kind: str) -> bytes:
        data = self._fetched.pop(path, None)
        try:
            if data is None and not is_address(path):
                with open(path, "rb") as file:
                    data = file.read(MAX_BYTES + 1)
        except OSError:
            data = None
        if data is None:
            return b""
        if not self._sidecars.is_small(kind, len(data)):
            return b""
        # The cut may fall within a character, hence "replace".
        if kind == "txt" and _NUMBERS.fullmatch(data[:4096].decode("utf-8", "replace")):
            self._numbers += 1  # most likely boxes of YOLO, and no caption
            return b""
        return data

    def finish(self) -> None:
        """Raise ManifestError for tables none of whose rows names an image, and for keys that no sidecar has."""
        if self.texts and not self.used:
            example = next(iter(self.texts))
            raise self.source.fault(
                f"found {counted(len(self.texts), 'row')} of {', '.join(TABLES)}, and no image that is named there, such as {example}"
            )
        # With a table the options name its columns, and no keys of sidecars.
        if not self.texts:
            self._sidecars.require_used(self.source)

    def notes(self) -> list[str]:
        """What could not be read, or fits nothing; complete after `finish`."""
        source, notes = self.source, self._sidecars.notes(self.source.field)
        notes += [f"{source.field}: {note}" for note in self._notes]
        lost = [path for path in self.texts if path not in self.used]
        if lost:
            notes.append(
                f"{source.field}: {counted(len(lost), 'row')} of metadata without an image that is there, such as {lost[0]}"
            )
        if self._without:
            notes.append(
                f"{source.field}: {counted(self._without, 'image')} without a row of metadata"
            )
        if self._numbers:
            notes.append(
                f"{source.field}: .txt of numbers alone are no captions: {self._numbers}; give the boxes of YOLO with `annotations: FOLDER`"
            )
        return notes
