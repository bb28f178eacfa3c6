"""Reads CSV and TSV strictly: every quote must be closed, every row must have as many cells as the header.

What spreadsheets write is accepted: semicolons, tabs or bars instead of commas, UTF-16, a byte order mark.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import PurePath

from stylebatch.data.tables.row_batches import Row
from stylebatch.data.tables.table_columns import Header, plain, shown
from stylebatch.data.tables.text_lines import MAX_LINE, lines_of, open_text, suffix_of
from stylebatch.errors import ManifestError
from stylebatch.words import counted

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SEPARATOR = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)


def read_strictly(uri: str, header: Header, notes: list[str]) -> Iterator[tuple[int, Row]]:
    """(row number from 1, texts of the known columns); adds notes for the user to `notes` after the last row."""
    # csv's own limit is 128 KiB a cell; this one is a setting of the module
    csv.field_size_limit(MAX_LINE)
    with open_text(uri) as file:
        lines = lines_of(file, uri)
        first = next((line for line in lines if line.strip()), "")
        if not first:
            raise ManifestError(f"{uri}: is empty; accepted: a header and rows")
        if separator := SEPARATOR.match(first):  # Excel's `sep=;` before the header
            delimiter, first = separator[1], next(lines, "")
        else:
            delimiter = delimiter_of(first, uri, header.columns.required)
        records = _Records(uri, chain([first], lines), delimiter)
        names = next(records, [])
        found = header.match(names, "the header")
        header.require(found, names, "the header")
        # pandas writes its index as a first column without a name
        nameless = [i for i, name in enumerate(names) if not plain(name)]
        broken: list[int] = []
        for number, cells in enumerate(records, 1):
            _check_width(uri, number, cells, names, delimiter)
            for i in nameless:
                _check_index(uri, number, i, cells[i])
            if records.spans_lines:
                _check_lines(uri, number, cells, names, delimiter)
                broken.append(number)
            yield number, {name: cells[i] for name, i in found.items()}
    if broken:
        notes.append(
            f"{os.path.basename(uri)}: quoted cells with line breaks in {counted(len(broken), 'row')}, such as row {broken[0]}"
        )


def delimiter_of(line: str, uri: str, required: Sequence[str]) -> str:
    """The delimiter with which the header has the required columns, else the usual one of such a file."""
    usual = "\t" if suffix_of(uri) == ".tsv" else ","
    for delimiter in (usual, *DELIMITERS):
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        if {plain(name) for name in names} >= set(required):
            return delimiter
    return usual


class _Records:
    """The cells of each row that has text. Raises ManifestError for quotes that do not enclose a whole cell."""

    def __init__(self, uri: str, lines: Iterator[str], delimiter: str) -> None:
        self.uri, self.delimiter, self.number = uri, delimiter, 0
        self._lines: list[str] = []
        self._rows = csv.reader(
            self._kept(lines), delimiter=delimiter, strict=True, skipinitialspace=True
        )

    def _kept(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self._lines.append(line)
            yield line

    @property
    def spans_lines(self) -> bool:
        """Whether the row takes several lines of the file."""
        return len(self._lines) > 1

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while True:
            self._lines.clear()
            try:
                cells = next(self._rows)
            except csv.Error as error:
                raise self._explained(error) from None
            if any(cell and not cell.isspace() for cell in cells):
                self.number += 1
                return cells

    # The module's errors name neither row nor cell: they are found again in the text of the row.
    def _explained(self, error: csv.Error) -> ManifestError:
        row = f"row {self.number}" if self.number else "the header"
        first = self._rows.line_num - len(self._lines) + 1
        cell, what = _fault("".join(self._lines), self.delimiter)
        return ManifestError(
            f"{self.uri}: {row} (line {first}), column {cell}: {what or error}; accepted: a cell whole in quotes, with "
            'quotes inside it doubled ("a ""tall"" ship"), or no quotes around it'
        )


def _fault(text: str, delimiter: str) -> tuple[int, str]:
    """Number of the first cell with a wrong quote, and what is wrong; "" if none is found."""
    cell = 1
    rest = text
    while rest:
        rest = rest.lstrip(" ")
        if rest.startswith('"'):
            # possessive: a plain group would backtrack through a cell of megabytes
            quoted = re.match(r'"(?:[^"]++|"")*+"', rest)
            if quoted is None:
                return cell, "a quote is never closed"
            rest = rest[quoted.end() :]
            if rest and rest[0] not in (delimiter, "\r", "\n"):
                return cell, f"text follows the closing quote ({shown(rest, 30)!r})"
        _, mark, rest = rest.partition(delimiter)
        cell += bool(mark)
    return cell, ""


def _check_width(
    uri: str, number: int, cells: list[str], names: Sequence[str], delimiter: str
) -> None:
    # empty cells at the end are no fault: spreadsheets write them
    surplus = [cell for cell in cells[len(names) :] if cell.strip()]
    if not surplus and len(cells) >= len(names):
        return
    what = (
        f"the cell {shown(surplus[0], 40)!r} stands beyond the last column; put a text that contains a "
        f"{NAMES.get(delimiter, repr(delimiter))} in quotes"
        if surplus
        else f"columns {', '.join(shown(name) for name in names[len(cells) :][:4])} have no cell; close the row with empty cells"
    )
    raise ManifestError(
        f"{uri}: row {number}: found {counted(len(cells), 'cell')}, the header names {counted(len(names), 'column')}: {what}"
    )


def _check_index(uri: str, number: int, position: int, cell: str) -> None:
    """Refuse a cell in a column without a name, but for the first, which may number the rows."""
    if cell.strip() and not (position == 0 and cell.strip().isdecimal()):
        raise ManifestError(
            f"{uri}: row {number}: column {position + 1} has no name in the header and holds {shown(cell, 40)!r}; accepted: a name "
            "for each column"
        )


def _check_lines(
    uri: str, number: int, cells: list[str], names: Sequence[str], delimiter: str
) -> None:
    """Refuse a quoted cell that has swallowed rows: a line of it has as many cells, one of them a file of the same kind."""
    for position, cell in enumerate(cells):
        for line in cell.splitlines()[1:]:
            inner = line.split(delimiter)
            pairs = zip(cells, inner, strict=False)
            if len(inner) >= len(names) > 1 and any(
                PurePath(one).suffix and PurePath(one).suffix == PurePath(other).suffix
                for one, other in pairs
            ):
                raise ManifestError(
                    f"{uri}: row {number}, column {position + 1}: the quoted cell runs on over {shown(line, 60)!r}, which looks "
                    "like a row; close the quote"
                )
