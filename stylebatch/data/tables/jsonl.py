"""Reads JSON lines: one object a line, each key once. Numbers keep their digits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stylebatch.data.tables.row_batches import Batch, Row, batched
from stylebatch.data.tables.table_columns import Header
from stylebatch.data.tables.text_lines import lines_of, open_text
from stylebatch.errors import ManifestError


class _Number(str):
    """A number as it is written, since a label 007 or 1e5 must not change."""


class _Object(list[tuple[str, Any]]):
    """Keys and values of a JSON object; a dict would drop repeated keys."""


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object,
    parse_int=_Number,
    parse_float=_Number,
    # NaN is what data frames write for a missing value; Infinity is text that a field refuses
    parse_constant=lambda name: "" if name == "NaN" else _Number(name),
)


def read_jsonl(uri: str, header: Header, notes: list[str]) -> Iterator[Batch]:
    """Texts of the known columns in each line; a row has the number of its line."""
    return batched(_rows(uri, header))


def _rows(uri: str, header: Header) -> Iterator[tuple[int, Row]]:
    is_first = True
    with open_text(uri) as file:
        for number, line in enumerate(lines_of(file, uri), 1):
            if not line.strip():
                continue
            if is_first and line.lstrip().startswith("["):
                raise ManifestError(
                    f"{uri}: line {number}: found list, the beginning of a JSON array; accepted: one JSON object per line"
                )
            is_first = False
            row = _object(uri, number, line)
            names = [name for name, _ in row]
            found = header.match(names, f"row {number}")
            header.require(found, names, f"row {number}")
            known = header.columns.known
            yield (
                number,
                {
                    name: _text(uri, number, name, row[i][1])
                    if name in known
                    else _carried(row[i][1])
                    for name, i in found.items()
                },
            )


def _object(uri: str, number: int, line: str) -> _Object:
    try:
        row = _DECODER.decode(line.strip())
    except RecursionError:
        raise ManifestError(f"{uri}: line {number} is nested too deeply") from None
    except ValueError as error:
        raise ManifestError(f"{uri}: line {number} is not valid JSON: {error}") from None
    if not isinstance(row, _Object):
        raise ManifestError(
            f"{uri}: line {number}: found {_kind(row)}; accepted: one JSON object per line"
        )
    return row


def _text(uri: str, number: int, column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, _Number):
        integer, _, fraction = value.partition(".")
        # data frames write the whole numbers of a column with gaps as 2.0
        return integer if fraction and not fraction.strip("0") else str(value)
    if isinstance(value, str):
        return value
    raise ManifestError(
        f"{uri}: row {number}: {column}: found {_kind(value)}; accepted: a text or a number"
    )


def _carried(value: Any) -> str:
    """A value of any kind as text; JSON of lists and objects."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return json.dumps(_plain(value), ensure_ascii=False)
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _Object):
        return {name: _plain(one) for name, one in value}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return json.loads(value) if isinstance(value, _Number) else value


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, _Object):
        return "an object"
    if isinstance(value, list):
        return "list"
    return "null" if value is None else "a number" if isinstance(value, _Number) else "a text"
