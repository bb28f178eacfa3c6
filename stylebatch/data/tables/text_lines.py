"""Opens the text files of tables, decoded by their byte order mark, and reads lines of bounded length."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterator
from typing import IO

from stylebatch.data.places import opened, part_of
from stylebatch.errors import ManifestError

MAX_LINE = 32 * 2**20
"""The most characters of a line, or of a cell."""
OTHER_KINDS = {
    b"PAR1": "a Parquet file; name it .parquet",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; export it as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet; export it as CSV",
}
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # before UTF-16, whose mark is the beginning of UTF-32's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def suffix_of(uri: str) -> str:
    """The suffix in lower case, such as `.csv`."""
    return os.path.splitext(uri)[1].lower()


def open_text(uri: str) -> IO[str]:
    """The file as text, decoded by its byte order mark, else as UTF-8; invalid bytes become lone surrogates."""
    start = part_of(uri, 0, 4)
    for mark, kind in OTHER_KINDS.items():
        if start.startswith(mark):
            raise ManifestError(f"{uri}: cannot be read as {suffix_of(uri)[1:]} rows: it is {kind}")
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
    # newline="": the csv module needs line ends as they are. Surrogates are refused later, with row and column.
    return io.TextIOWrapper(opened(uri), encoding, "surrogateescape", newline="")


def lines_of(file: IO[str], uri: str) -> Iterator[str]:
    """The lines, with their line ends. Raises ManifestError for one that is too long."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith(("\n", "\r")):
            raise ManifestError(
                f"{uri}: line {number} is longer than {MAX_LINE:,} characters; accepted: one row a line"
            )
        yield line
