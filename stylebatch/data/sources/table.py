"""Tables of images: CSV, TSV, JSONL or Parquet rows with a `path` each, relative to the table's folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import is_file
from stylebatch.data.rows import Texts
from stylebatch.data.sources.blends import BlendRow, gather
from stylebatch.data.sources.further import Kinds
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.objects import regions_of_cell
from stylebatch.data.sources.origins import is_read
from stylebatch.data.sources.outputs import refuse_output
from stylebatch.data.sources.patterns import is_pattern
from stylebatch.data.sources.source import USUAL, Item, Ref
from stylebatch.data.tables.reader import FORMATS, Table
from stylebatch.data.tables.row_batches import Batch, Row
from stylebatch.data.tables.table_columns import Columns, shown
from stylebatch.data.tables.text_lines import suffix_of
from stylebatch.errors import ManifestError
from stylebatch.masking import masked
from stylebatch.paths import is_address, plain_path

TEXTS = ("label", "caption", "license")
FURTHER = {"contents": ("mask",), "styles": ("blend", "weight")}
"""Contents may have masks, styles may be blends."""


class TableRows(LocalFiles):
    """Rows of a table, of which the subclasses know the columns."""

    accepted = f"a {', '.join(FORMATS)} file of rows"
    takes = frozenset(("web_hosts",))

    def __init__(
        self, uri: str, field: str, columns: Columns, options: SourceOptions = USUAL
    ) -> None:
        super().__init__(uri, field, options)
        self.columns = columns
        self._notes: list[str] = []

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return suffix_of(uri) in FORMATS and not is_pattern(uri) and is_file(uri)

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(row number from 1, text of each column). Raises ManifestError for a table that this program wrote."""
        blank = dict.fromkeys(self.columns.known, "")
        for batch in self.batches():
            for number, row in batch.rows():
                yield number, blank | row

    def batches(self) -> Iterator[Batch]:
        """As `rows`, by columns; a known one that is missing may be missing."""
        refuse_output(self.uri, self.field)
        table = Table(self.uri, self.columns)
        yield from table.batches()
        self._notes = table.notes()

    def carried(self, item: Item) -> Texts:
        """The further cells of an item whose `extra` has all of its row, as far as the options take them."""
        names = self.options.carry
        further = self.columns.further(item.extra)
        return tuple((n, text) for n, text in further.items() if names is None or n in names)

    def beside(self, path: str) -> str:
        """A path of a row, from the folder of the table; an address as it is. Raises ManifestError for a path out of a store."""
        if is_address(path):
            return path
        if not is_address(self.uri):
            return os.path.join(os.path.dirname(self.uri), path)
        scheme, _, place = self.uri.partition("://")
        found = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
        # A table from elsewhere must not name files of this machine, nor those of another bucket.
        if path.startswith("/") or found.split("/")[0] != place.split("/")[0]:
            raise ManifestError(
                f"{self.uri}: found the path {shown(path)!r}; accepted: a path from the table's folder, or an address. Next: give "
                "the whole address"
            )
        return f"{scheme}://{found}"

    def folder(self) -> str:
        """The folder of the table, as `within` takes it."""
        return os.path.dirname(self.ref(self.uri).uri).rstrip(os.sep)

    def image(self, folder: str, path: str) -> Ref:
        """The image at a path of a row; `folder`: the table's."""
        if is_address(path) or is_address(self.uri) or os.path.isabs(path):
            return self.ref(self.beside(path))
        return self.within(folder, path)

    def spelled(self, paths: Sequence[str]) -> list[str]:
        """Paths of rows, those of one file alike: plain, and from the table's folder where one of them is."""
        found = [plain_path(path) for path in paths]
        of_file: dict[str, str] = {}
        for path in sorted(found, key=_directness):
            of_file.setdefault(self._whole(path), path)
        return [of_file[self._whole(path)] for path in found]

    def _whole(self, path: str) -> str:
        whole = self.beside(path)
        whole = whole if is_address(whole) else os.path.abspath(whole)
        return whole.removeprefix("file://")

    def error(self, number: int, text: str) -> ManifestError:
        """What is wrong in a row."""
        return ManifestError(f"{self.uri}: row {number}: {text}")

    def notes(self) -> list[str]:
        return self._notes


def _directness(path: str) -> tuple[bool, bool, bool, str]:
    return is_address(path), os.path.isabs(path), path.startswith("../"), path


class PathTable(TableRows):
    """Images by path. Rows of one `blend` in a table of styles are one item."""

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        optional = (*TEXTS, *FURTHER.get(field, ()))
        columns = Columns(("path",), optional, carries=True)
        super().__init__(uri, field, columns, options)
        self._texts: dict[str, str] = {}

    def items(self) -> Iterator[Item]:
        kinds = Kinds()
        for item in self._items():
            kinds.add_texts(item.extra)
            yield item
        self.types = kinds.types()

    def _items(self) -> Iterator[Item]:
        self._texts.clear()
        self._folder = self.folder()
        if "blend" not in self.columns.known:
            yield from (self._item(number, row) for number, row in self.rows())
            return
        rows = (
            BlendRow(self._item(number, row), row["blend"], row["weight"])
            for number, row in self.rows()
        )
        yield from gather(rows, f"{self.field}.path: {self.uri}")

    def _item(self, number: int, row: Row) -> Item:
        image = plain_path(row["path"])
        # A column that other tables know may be a further one of this.
        mask = row["mask"] if "mask" in self.columns.known else ""
        if not image:
            raise self.error(
                number,
                f"has no `path`; accepted: the path of an image, in every row of {self.field}",
            )
        label, caption, license = (row[name] for name in TEXTS)
        label, license = (self._texts.setdefault(text, text) for text in (label, license))
        where = self.ref(self.beside(mask)) if mask else None
        item = Item(
            masked(image), self.image(self._folder, image), label, caption, license, mask=where
        )
        further = self.columns.further(row)
        try:
            regions = regions_of_cell(further)
        except ValueError as error:
            raise self.error(number, f"objects: {error}") from None
        further = {name: text for name, text in further.items() if is_read(name, self.options)}
        return replace(item, extra=further, regions=regions) if further or regions else item
