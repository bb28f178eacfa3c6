"""Lists of pairs: rows of `content, style`, by path from the list's folder, or by the ids of contents and styles."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.data.arrow_columns import (
    Numbers,
    constant_column,
    number_column,
    numbers_of,
    text_column,
)
from stylebatch.data.image_section import SourceOptions
from stylebatch.data.rows import ListedCells, Texts
from stylebatch.data.sources.further import Kinds
from stylebatch.data.sources.listing import Listing
from stylebatch.data.sources.path_items import PathItems
from stylebatch.data.sources.source import USUAL, Item, Sources
from stylebatch.data.sources.table import TableRows
from stylebatch.data.tables.row_batches import Batch
from stylebatch.data.tables.table_columns import Columns
from stylebatch.errors import ManifestError
from stylebatch.masking import masked
from stylebatch.paths import ODD_PATH, is_address, plain_path
from stylebatch.words import counted

COLUMNS = Columns(("content", "style"), ("label", "caption"), carries=True)


class PairList(TableRows):
    """A table of pairs. It lists no items: what a row names is an item once, in however many rows."""

    def __init__(self, uri: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, "pairing", COLUMNS, options)


@dataclass(frozen=True)
class ListedPairs:
    """Pairs, and the contents and styles that they name, each once, by their ids: in no way by the order of the rows."""

    contents: Sequence[Item]
    styles: Sequence[Item]
    pairs: ListedCells
    sources: Sources
    notes: tuple[str, ...]


def list_pairs(
    source: PairList, contents: Listing | None = None, styles: Listing | None = None
) -> ListedPairs:
    """The pairs of a list. Rows name `contents` and `styles` by id where these are given, else by path.

    Raises ManifestError for a row without both, and for a name that is none of those given.
    """
    table = _Table(source)
    for batch in source.batches():
        table.add(batch)
    if not table.num_rows:
        raise ManifestError(
            f"{source.uri}: found no rows; accepted: at least one row of content, style"
        )
    source.types = table.kinds.types()
    found, rows = table.side("content", contents)
    others, columns = table.side("style", styles)
    labels, captions = (table.texts(column) for column in COLUMNS.optional)
    # of a million rows a third of what reading took would stay with Arrow
    pa.default_memory_pool().release_unused()
    # numbered as they come: in JSONL empty lines have numbers too
    numbers = range(1, table.num_rows + 1)
    extras = tuple(table.extras) if any(table.extras) else ()
    pairs = ListedCells(rows, columns, numbers, labels, captions, extras)
    given = [listing for listing in (contents, styles) if listing is not None]
    sources = Sources.of(source)
    for listing in given:
        sources |= listing.sources
    notes = (*(note for listing in given for note in listing.notes), *source.notes())
    return ListedPairs(found, others, pairs, sources, (*notes, *_repeated(pairs)))


def _repeated(pairs: ListedCells) -> Iterator[str]:
    if count := num_repeated(pairs):
        yield (
            f"pairing: {counted(count, 'row')} of {len(pairs):,} say{'s' * (count == 1)} what an earlier one says; each gives a sample "
            "more, of an equal picture"
        )


class _Table:
    """What a list of pairs holds, by columns."""

    def __init__(self, source: PairList) -> None:
        self.source = source
        self.num_rows = 0
        self.kinds = Kinds()
        self.extras: list[Texts] = []
        self._numbers: list[Sequence[int]] = []
        self._cells: dict[str, list[pa.DictionaryArray]] = {name: [] for name in COLUMNS.known}

    def add(self, batch: Batch) -> None:
        """Raises ManifestError for a row without content or style."""
        texts = {column: _texts(batch, column) for column in COLUMNS.known}
        gaps = []
        for column in COLUMNS.required:
            lengths = numbers_of(pc.binary_length(texts[column]))
            gaps += [(int(lengths.argmin()), column)] if not lengths.all() else []
        if gaps:
            row, column = min(gaps)  # of a row that lacks both the content
            raise self.source.error(
                batch.numbers[row], f"has no `{column}`; accepted: both in every row"
            )
        for column, cells in texts.items():
            self._cells[column].append(cells.dictionary_encode())
        self.num_rows += len(batch)
        self._numbers.append(batch.numbers)
        self._add_further({n: batch.listed(n) for n in batch.columns if n not in COLUMNS.known})

    def _add_further(self, columns: Mapping[str, list[str | None]]) -> None:
        rows = self.num_rows - len(self.extras)
        self.kinds.add_rows(rows)
        for name, cells in columns.items():
            self.kinds.add_cells(name, cells)
        names = self.source.options.carry
        carried = {n: cells for n, cells in columns.items() if names is None or n in names}
        self.extras += _extras(carried) if carried else [()] * rows

    def texts(self, column: str) -> tuple[str, ...]:
        """The cells of a column, none where all are empty; texts that come again are held once."""
        parts = self._cells.pop(column)
        if not any(any(part.dictionary.to_pylist()) for part in parts):
            return ()
        texts, places = _distinct(parts)
        return tuple(map(texts.to_pylist().__getitem__, places.tolist()))

    def side(self, column: str, given: Listing | None) -> tuple[Sequence[Item], array[int]]:
        """Contents or styles, sorted by id, and which of them each row names.

        Raises ManifestError for a name that is none of those given.
        """
        names, places = self._spelled(*_distinct(self._cells.pop(column)), given)
        items: Sequence[Item]
        if given is None and not is_address(self.source.uri):
            items, order = PathItems.sorted(names, self.source.folder(), self.source.field)
        else:
            named = names.to_pylist()
            found = (
                self._files(named) if given is None else self._known(column, named, places, given)
            )
            order = np.array(sorted(range(len(found)), key=lambda place: found[place].id))
            items = tuple(found[place] for place in order.tolist())
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return items, array("q", ranks[places].tobytes())

    def _spelled(
        self, names: pa.Array, places: Numbers, given: Listing | None
    ) -> tuple[pa.Array, Numbers]:
        """Names of one file as one."""
        is_whole = pc.match_substring_regex(names, "^/|:/")
        is_mixed = given is None and pc.any(is_whole).as_py() and not pc.all(is_whole).as_py()
        if not is_mixed and not pc.any(pc.match_substring_regex(names, ODD_PATH.pattern)).as_py():
            return names, places
        texts = names.to_pylist()
        if given is None:
            texts = self.source.spelled(texts)
        else:
            # ids of other kinds than paths may have such parts
            known = {item.id for item in given.items}
            texts = [name if masked(name) in known else plain_path(name) for name in texts]
        names, now = _distinct([text_column(texts).dictionary_encode()])
        return names, now[places]

    def _files(self, names: Sequence[str]) -> list[Item]:
        folder = self.source.folder()
        return [Item(masked(name), self.source.image(folder, name)) for name in names]

    def _known(
        self, column: str, names: Sequence[str], places: Numbers, given: Listing
    ) -> list[Item]:
        """The items that are so named. Raises ManifestError for the first row with a name that none has."""
        known = {item.id: item for item in given.items}
        ids = list(map(masked, names))
        strange = np.array([id_ not in known for id_ in ids])
        if not strange.any():
            return [known[id_] for id_ in ids]
        row = int(np.argmax(strange[places]))
        name = ids[places[row]]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise self.source.error(
            next(islice(chain.from_iterable(self._numbers), row, None)),
            f"{column}: found {name!r}; {hint}accepted: an id of {column}s.path (a path "
            f"in it{', or the name of a blend' if column == 'style' else ''}); without `{column}s` in the manifest, "
            "a path relative to this file",
        )


def _texts(batch: Batch, column: str) -> pa.Array:
    """A column as Arrow has it, "" where there is none."""
    cells = batch.columns.get(column)
    if cells is None:
        return constant_column("", len(batch))
    return text_column([text or "" for text in cells]) if isinstance(cells, list) else cells


def _distinct(parts: Sequence[pa.DictionaryArray]) -> tuple[pa.Array, Numbers]:
    """The distinct texts, ascending, and for each cell of all parts the place of its text among them.

    Sorting takes the time of one table of hashes over all texts, and half its memory.
    """
    texts = pa.concat_arrays([part.dictionary for part in parts])
    order = pc.array_sort_indices(texts)
    texts = texts.take(order)
    is_new = np.ones(len(texts), dtype=bool)
    is_new[1:] = numbers_of(pc.not_equal(texts[1:], texts[:-1]).cast(pa.int8()))
    place = np.empty(len(texts), np.int64)
    place[numbers_of(order)] = np.cumsum(is_new) - 1
    starts = np.cumsum([0, *(len(part.dictionary) for part in parts)]).tolist()
    cells = [
        place[start + numbers_of(part.indices)] for start, part in zip(starts, parts, strict=False)
    ]
    return texts.take(number_column(np.flatnonzero(is_new))), np.concatenate(cells)


def _extras(columns: Mapping[str, list[str | None]]) -> list[Texts]:
    """Cells of further columns by row, without those that a row lacks."""
    return [
        tuple((n, t) for n, t in zip(columns, row, strict=True) if t is not None)
        for row in zip(*columns.values(), strict=True)
    ]


def num_repeated(cells: ListedCells) -> int:
    """How many cells are in all but their number what an earlier one is."""
    rows, columns = (np.frombuffer(part, np.int64) for part in (cells.rows, cells.columns))
    order = np.lexsort((columns, rows))
    is_again = np.zeros(len(order), np.bool_)
    is_again[1:] = (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    texts = [part for part in (cells.labels, cells.captions, cells.extras) if part]
    if not texts:
        return int(is_again.sum())
    # of pairs that come once, which are most, no text is looked at
    is_first = np.append(is_again[1:], False)
    places = order[is_again | is_first].tolist()
    pairs = zip(rows[places].tolist(), columns[places].tolist(), strict=True)
    found = {
        hash((pair, *(part[n] for part in texts))) for pair, n in zip(pairs, places, strict=True)
    }
    return len(places) - len(found)
