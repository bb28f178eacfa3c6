"""Lists contents, styles and pairs: folders and rows of paths become `ImageRow` and `PairRow`.

Ids are stable: the path relative to the source's root (the folder, or the folder of the rows file),
with its extension. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import ManifestError

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "avif", "jp2", "ico", "tga"),
    )
)


@dataclass(frozen=True, slots=True)
class Part:
    """One image of a blend of styles; `weight` above 0, of sum 1 over the blend."""

    id: str
    path: str
    weight: float


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One input image. `label` is a class name or "", `license` an identifier or "".

    `parts`: the images of a style that is a blend, whose own path is "". `mask`: path of the picture that says where
    a content takes the style, or "".
    """

    id: str
    path: str
    label: str = ""
    caption: str = ""
    license: str = ""
    parts: tuple[Part, ...] = ()
    mask: str = ""

    @property
    def mask_id(self) -> str:
        """The mask's path relative to the image's, so that a moved folder keeps its plan."""
        return os.path.relpath(self.mask, Path(self.path).parent)


@dataclass(frozen=True, slots=True)
class PairRow:
    """One requested pair, by index into contents and styles; label and caption override the content's."""

    content: int
    style: int
    label: str = ""
    caption: str = ""


def list_images(path: str | Path, field: str) -> list[ImageRow]:
    """Images of a folder (recursive, sorted; first-level folder -> label) or of a rows file.

    Files in a folder that carry no image suffix are passed over. Raises ManifestError, naming
    `field`, when nothing is found, a row lacks its path, or two rows have the same id.
    """
    path = Path(path)
    if path.is_dir():
        return checked(image_files(path), path, field)
    return checked((image_row(path, n, row, field) for n, row in read_rows(path)), path, field)


def checked(images: Iterable[ImageRow], path: Path, field: str) -> list[ImageRow]:
    """The images of a source as a list: at least one, each with a name of its own that UTF-8 can hold."""
    rows = list(images)
    if not rows:
        what = (
            f"no image files ({', '.join(sorted(IMAGE_SUFFIXES))})" if path.is_dir() else "no rows"
        )
        raise ManifestError(f"{field}.path: found {what} in {path}; accepted: at least one image")
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        require_text(f"{field}.path: {path}: image {number}", row.id, row.label, row.caption)
        if row.id in seen:
            raise ManifestError(
                f"{field}.path: {path}: {row.id!r} stands there twice; accepted: each image once"
            )
        seen.add(row.id)
    return rows


def image_files(root: Path) -> Iterator[ImageRow]:
    """Images of a folder, recursive and sorted; raises ManifestError for a folder that cannot be read."""
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        visited.add(os.path.realpath(folder))
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(folder, name)) not in visited
        )
        relative = Path(folder).relative_to(root)
        label = relative.parts[0] if relative.parts else ""
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield ImageRow((relative / name).as_posix(), os.path.join(folder, name), label)


def _unreadable(error: OSError) -> None:
    raise ManifestError(f"{error.filename}: the folder cannot be read: {error.strerror}")


def require_text(where: object, *texts: str) -> None:
    """Raise ManifestError for a name or caption that no UTF-8 file could hold."""
    for text in texts:
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ManifestError(
                f"{where}: found {text!r}, which is not valid Unicode; rename the file or re-encode the row"
            ) from None


def image_row(path: Path, number: int, row: dict[str, Any], field: str) -> ImageRow:
    """Row `number` of the table `path`; raises ManifestError where it names no image."""
    image, mask = text(row, "path"), text(row, "mask")
    if not image:
        raise ManifestError(
            f"{field}.path: {path}: row {number} has no `path` (found columns {', '.join(map(str, row))}); "
            f"accepted columns: path[, label, caption, license{', mask' if field == 'contents' else ', blend, weight'}]"
        )
    return ImageRow(
        image,
        str(path.parent / image),
        text(row, "label"),
        text(row, "caption"),
        text(row, "license"),
        mask=str(path.parent / mask) if mask and field == "contents" else "",
    )


def list_pairs(
    path: str | Path,
    contents: Sequence[ImageRow] | None = None,
    styles: Sequence[ImageRow] | None = None,
) -> tuple[list[ImageRow], list[ImageRow], list[PairRow]]:
    """Contents, styles (each once, in order of appearance) and pairs of a `content,style` rows file.

    Rows name `contents` and `styles` by id where these are given; else by path, relative to the file's folder.
    Raises ManifestError for a row without both, and for a name that is none of those given.
    """
    path = Path(path)
    sides = {"content": _Side("content", path, contents), "style": _Side("style", path, styles)}
    pairs: list[PairRow] = []
    for number, row in read_rows(path):
        content, style = text(row, "content"), text(row, "style")
        if not content or not style:
            raise ManifestError(
                f"{path}: row {number} has no `{'style' if content else 'content'}` (found columns "
                f"{', '.join(map(str, row))}); accepted columns: content, style[, label, caption]"
            )
        require_text(f"{path}: row {number}", content, style, label := text(row, "label"))
        require_text(f"{path}: row {number}", caption := text(row, "caption"))
        indices = sides["content"].index(number, content), sides["style"].index(number, style)
        pairs.append(PairRow(*indices, label, caption))
    if not pairs:
        raise ManifestError(f"{path}: found no rows; accepted: at least one row of content, style")
    return sides["content"].rows, sides["style"].rows, pairs


class _Side:
    """Contents or styles that pairs name, as they appear. `given`: those there are, where pairs name them by id."""

    def __init__(self, column: str, path: Path, given: Sequence[ImageRow] | None) -> None:
        self.column, self.path = column, path
        self.given = None if given is None else {row.id: row for row in given}
        self.rows: list[ImageRow] = []
        self._indices: dict[str, int] = {}

    def index(self, number: int, name: str) -> int:
        """The index of what row `number` names."""
        if name not in self._indices:
            self._indices[name] = len(self.rows)
            self.rows.append(self._row(number, name))
        return self._indices[name]

    def _row(self, number: int, name: str) -> ImageRow:
        if self.given is None:
            return ImageRow(name, str(self.path.parent / name))
        if name not in self.given:
            close = difflib.get_close_matches(name, self.given, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ManifestError(
                f"{self.path}: row {number}: {self.column}: found {name!r}; {hint}accepted: an id of {self.column}s.path (a path "
                f"in it{', or the name of a blend' if self.column == 'style' else ''}); without `{self.column}s` in the manifest, "
                "a path relative to this file"
            )
        return self.given[name]


def text(row: dict[str, Any], column: str) -> str:
    """The column as text; empty for null and NaN, `2` for the 2.0 of a column with gaps."""
    value = row.get(column)
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, columns) of a CSV, TSV, JSONL or Parquet file.

    Raises ManifestError, naming file and row, for what cannot be parsed.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            number = 0
            for batch in pq.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        elif suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, _json_row(path, number, line)
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for number, row in enumerate(
                    csv.DictReader(file, dialect="excel-tab" if suffix == ".tsv" else "excel"), 1
                ):
                    yield number, row
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise ManifestError(f"{path}: cannot be read as {suffix[1:]} rows: {error}") from None


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ManifestError(f"{path}: line {number} is not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise ManifestError(
            f"{path}: line {number}: found {type(row).__name__}; accepted: one JSON object per line"
        )
    return row
