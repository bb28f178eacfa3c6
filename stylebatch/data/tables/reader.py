"""Reads the rows of a table in any format: row numbers, and the texts of the known columns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

from stylebatch.data.places import is_file, is_folder
from stylebatch.data.tables.jsonl import read_jsonl
from stylebatch.data.tables.parquet_table import read_parquet
from stylebatch.data.tables.row_batches import Batch, Cells, Row
from stylebatch.data.tables.table_columns import SHOWN, Columns, Header, shown
from stylebatch.data.tables.text_lines import suffix_of
from stylebatch.data.tables.tidy_delimited import read_delimited
from stylebatch.errors import ManifestError, StorageError
from stylebatch.words import counted

FORMATS: dict[str, Callable[[str, Header, list[str]], Iterator[Batch]]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
MAX_TEXT = 1_000_000
EMPTY_WORDS = frozenset(("nan", "none", "null", "n/a", "<na>"))
"""What programs write for a missing value. As a label it would become a class, so a note says so."""


class Table:
    """A CSV, TSV, JSONL or Parquet file, read by its known columns."""

    def __init__(self, uri: str, columns: Columns) -> None:
        self.uri, self.columns = uri, columns
        self._header = Header(uri, columns)
        self._known = frozenset(columns.known)
        self._notes: list[str] = []
        self._empty_words: Counter[tuple[str, str]] = Counter()

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(row number from 1, text of every known column, "" if it is missing or empty).

        Raises ManifestError, naming file, row and column, for anything that cannot be read without loss.
        """
        blank = dict.fromkeys(self.columns.known, "")
        for batch in self.batches():
            for number, row in batch.rows():
                yield number, blank | row

    def batches(self) -> Iterator[Batch]:
        """As `rows`, by columns; known ones that are missing or empty may be missing."""
        suffix = suffix_of(self.uri)
        if not is_file(self.uri):
            what = "it is a folder" if is_folder(self.uri) else "there is no such file"
            raise ManifestError(f"{self.uri}: cannot be read as {suffix[1:]} rows: {what}")
        read = FORMATS.get(suffix, read_delimited)
        try:
            for batch in read(self.uri, self._header, self._notes):
                columns = {name: _trimmed(cells) for name, cells in batch.columns.items()}
                yield from self._checked(Batch(batch.numbers, columns))
        except StorageError:  # a store that does not answer says nothing of the table
            raise
        except (OSError, UnicodeError) as error:
            raise ManifestError(
                f"{self.uri}: cannot be read as {suffix[1:]} rows: {shown(str(error), 300)}"
            ) from None

    def _checked(self, batch: Batch) -> Iterator[Batch]:
        """The batch, or its rows before the first that cannot be taken, and the error."""
        known = [cells for name, cells in batch.columns.items() if name in self._known]
        if not all(map(_is_plain, known)):
            for i, (number, row) in enumerate(batch.rows()):
                try:
                    self._check(number, row)
                except ManifestError:
                    yield batch.head(i)
                    raise
        yield batch

    def _check(self, number: int, row: Row) -> None:
        for column, text in row.items():
            if column not in self._known:
                continue
            if len(text) > MAX_TEXT:
                raise self.error(
                    number,
                    f"{column}: found {len(text):,} characters; accepted: at most {MAX_TEXT:,}",
                )
            if not text.isascii():  # a quick test, since most texts are
                require_text(f"{self.uri}: row {number}: {column}", text)
            if "\0" in text:
                raise self.error(
                    number,
                    f"{column}: found a NUL character in {text[:40]!r}; accepted: text in UTF-8",
                )
            if len(text) <= 4 and text.casefold() in EMPTY_WORDS:
                self._empty_words[column, text] += 1

    def error(self, number: int, text: str) -> ManifestError:
        """An error that names the file and the row."""
        return ManifestError(f"{self.uri}: row {number}: {text}")

    def notes(self) -> list[str]:
        """Notes about ignored columns and odd values; complete after the last row."""
        notes = [f"{os.path.basename(self.uri)}: {self._unused()}"] if self._header.unused else []
        for (column, text), count in self._empty_words.items():
            notes.append(
                f"{os.path.basename(self.uri)}: {column} is the text {text!r} in {counted(count, 'row')}; "
                "leave the cell empty if nothing is meant"
            )
        return [*notes, *self._notes]

    def _unused(self) -> str:
        names = list(self._header.unused)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        named = ", ".join(shown(name) for name in names[:SHOWN])
        return f"columns passed over: {named}{more} (known here: {', '.join(self.columns.known)})"


def _trimmed(cells: Cells) -> Cells:
    if isinstance(cells, list):
        return [None if text is None else text.strip() for text in cells]
    import pyarrow.compute as pc  # imports numpy, which a manifest is checked without

    return pc.utf8_trim_whitespace(cells)


def _is_plain(cells: Cells) -> bool:
    """Whether nothing is wrong with these texts, nor odd."""
    if isinstance(cells, list):
        return False
    import pyarrow.compute as pc

    lengths = pc.min_max(pc.binary_length(cells)).as_py()
    if not len(cells) or lengths["max"] > MAX_TEXT:
        return not len(cells)
    odd = [pc.match_substring(cells, "\0")]
    if lengths["min"] <= max(map(len, EMPTY_WORDS)):
        words = f"^({'|'.join(EMPTY_WORDS)})$"
        odd.append(pc.match_substring_regex(cells, words, ignore_case=True))
    return not any(pc.any(one).as_py() for one in odd)


def require_text(where: object, *texts: str) -> None:
    """Raise ManifestError for a name or caption with lone surrogates, which no UTF-8 file can hold."""
    for text in texts:
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ManifestError(
                f"{where}: found {shown(text, 80)!r}, which is not valid Unicode; rename the file, or save the table as UTF-8"
            ) from None
