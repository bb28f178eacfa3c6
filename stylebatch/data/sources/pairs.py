"""Lists of pairs: rows of `content, style`, by path from the list's folder, or by the ids of contents and styles."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.rows import ListedCells, Texts
from stylebatch.data.sources.further import Kinds
from stylebatch.data.sources.listing import Listing
from stylebatch.data.sources.source import USUAL, Item, Ref, Sources
from stylebatch.data.sources.table import TableRows
from stylebatch.data.tables.table_columns import Columns
from stylebatch.errors import ManifestError
from stylebatch.masking import masked

COLUMNS = Columns(("content", "style"), ("label", "caption"), carries=True)


class PairList(TableRows):
    """A row's item is its content, with the style as reference; `extra` holds both names, and the further columns."""

    def __init__(self, uri: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, "pairing", COLUMNS, options)

    def items(self) -> Iterator[Item]:
        kinds, folder = Kinds(), self.folder()
        known: dict[str, Ref] = {}
        for number, row in self.rows():
            content, style = row["content"], row["style"]
            if not content or not style:
                missing = "style" if content else "content"
                raise self.error(number, f"has no `{missing}`; accepted: both in every row")
            if style not in known:
                known[style] = self.image(folder, style)
            yield Item(
                masked(content), self.image(folder, content), row["label"], row["caption"],
                reference=known[style], extra=row, number=number,
            )  # fmt: skip
            kinds.add_texts(self.columns.further(row))
        self.types = kinds.types()


@dataclass(frozen=True)
class ListedPairs:
    """Pairs, and the contents and styles that they name, each once, by their ids: in no way by the order of the rows."""

    contents: list[Item]
    styles: list[Item]
    pairs: ListedCells
    sources: Sources
    notes: tuple[str, ...]


def list_pairs(
    source: PairList, contents: Listing | None = None, styles: Listing | None = None
) -> ListedPairs:
    """The pairs of a list. Rows name `contents` and `styles` by id where these are given, else by path.

    Raises ManifestError for a row without both, and for a name that is none of those given.
    """
    rows, columns = _Side("content", source.uri, contents), _Side("style", source.uri, styles)
    numbers = array("q"), array("q"), array("q")
    texts, extras = (list[str](), list[str]()), list[Texts]()
    shared: dict[str, str] = {}
    for item in source.items():
        assert item.reference is not None
        numbers[0].append(rows.index(item.number, item.extra["content"], item.ref))
        numbers[1].append(columns.index(item.number, item.extra["style"], item.reference))
        numbers[2].append(len(numbers[2]) + 1)  # not its line: empty ones do not count
        texts[0].append(shared.setdefault(item.label, item.label))
        texts[1].append(item.caption)
        extras.append(source.carried(item))
    row_of, column_of = (
        array("q", map(side.sort().__getitem__, one))
        for side, one in zip((rows, columns), numbers, strict=False)
    )
    labels, captions = (tuple(one) if any(one) else () for one in texts)
    pairs = ListedCells(
        row_of, column_of, numbers[2], labels, captions, tuple(extras) if any(extras) else ()
    )
    if not pairs:
        raise ManifestError(
            f"{source.uri}: found no rows; accepted: at least one row of content, style"
        )
    given = [listing for listing in (contents, styles) if listing is not None]
    sources = Sources.of(source)
    for listing in given:
        sources |= listing.sources
    notes = (*(note for listing in given for note in listing.notes), *source.notes())
    return ListedPairs(rows.items, columns.items, pairs, sources, notes)


class _Side:
    """Contents or styles that pairs name, as they appear until sorted. `given`: those there are, where pairs name them by id."""

    def __init__(self, column: str, uri: str, given: Listing | None) -> None:
        self.column, self.uri = column, uri
        self.given = None if given is None else {item.id: item for item in given.items}
        self.items: list[Item] = []
        self._indices: dict[str, int] = {}

    def index(self, number: int, name: str, ref: Ref) -> int:
        """The index of what row `number` names; `ref`: the image, where it is named by path."""
        if name not in self._indices:
            self._indices[name] = len(self.items)
            self.items.append(self._item(number, masked(name), ref))
        return self._indices[name]

    def sort(self) -> list[int]:
        """Sort the items by id. Returns the place of each that appeared."""
        order = sorted(range(len(self.items)), key=lambda index: self.items[index].id)
        self.items = [self.items[index] for index in order]
        places = [0] * len(order)
        for place, index in enumerate(order):
            places[index] = place
        return places

    def _item(self, number: int, name: str, ref: Ref) -> Item:
        if self.given is None:
            return Item(name, ref)
        if name not in self.given:
            close = difflib.get_close_matches(name, self.given, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ManifestError(
                f"{self.uri}: row {number}: {self.column}: found {name!r}; {hint}accepted: an id of {self.column}s.path (a path "
                f"in it{', or the name of a blend' if self.column == 'style' else ''}); without `{self.column}s` in the manifest, "
                "a path relative to this file"
            )
        return self.given[name]
