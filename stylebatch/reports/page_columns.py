"""Which columns of the records a page filters, sorts and draws histograms by, and their values as arrays for the browser.

A chunk of rows goes to the browser as columns of 4 bytes a value: float32 numbers, NaN for null, and uint32 codes of names.
Names are numbered by their first appearance, so that chunks may follow one another for as long as a run writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.masking import printable
from stylebatch.methods.input_kinds import GROUPS, INPUT_KINDS, TEXT, kinds_of
from stylebatch.quality.asked import TABLE
from stylebatch.quality.measures import ROLES

MOST_EXACT = 2**53
SPLIT = "split"
CATEGORIES = ("label", *GROUPS, SPLIT, "status", "error_code", "attempt", "source", "is_original")
"""Columns whose values a reader chooses from, where records have them; `split`: of the shard, whatever records have."""
SEARCHED = ("key", *(kind.column for kind in INPUT_KINDS), *GROUPS, "label", "caption", TEXT)
"""Columns that a search looks through."""


@dataclass(frozen=True)
class PageColumns:
    """Columns of the records by what a page does with them, in the order in which it shows them."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, schema: pa.Schema) -> PageColumns:
        floats = [field.name for field in schema if pa.types.is_floating(field.type)]
        measures = [measure.column for measure in TABLE if measure.column in floats]
        others = [name for name in floats if name not in measures]
        names = [name for name in CATEGORIES if name in schema.names or name == SPLIT]
        return cls((*measures, *others), tuple(names))

    def described(self, columns: Sequence[str]) -> dict[str, Any]:
        """For the page: the columns with their words."""
        kinds = kinds_of(columns)
        words = {measure.column: measure for measure in TABLE}
        numbers = [
            {
                "column": name,
                "name": words[name].name if name in words else name.replace("_", " "),
                "unit": words[name].unit if name in words else "",
                "digits": words[name].digits if name in words else 3,
                "words": words[name].words([kind.name for kind in kinds]) if name in words else "",
            }
            for name in self.numbers
        ]
        shown = {"style_id": "style", "error_code": "reason"}
        return {
            "numbers": numbers,
            "categories": [
                {"column": name, "name": shown.get(name, name.replace("_", " "))}
                for name in self.categories
            ],
            "kinds": [{"name": kind.name, "column": kind.column} for kind in kinds],
            "kept": next((kind.name for kind in kinds if kind.name in ROLES["kept"]), ""),
        }


@dataclass
class Coder:
    """Turns rows into arrays for the browser, and remembers the number of each name."""

    columns: PageColumns
    codes: dict[str, dict[str, int]] = field(default_factory=dict)

    def coded(
        self, table: pa.Table, splits: Sequence[str]
    ) -> tuple[dict[str, list[str]], list[np.ndarray[Any, Any]]]:
        """Names that are new, by column, and the arrays: numbers, then categories. `splits`: of each row."""
        new: dict[str, list[str]] = {}
        arrays = [_numbers(table, name) for name in self.columns.numbers]
        for name in self.columns.categories:
            values = pa.array(splits, pa.string()) if name == SPLIT else _texts(table, name)
            known = self.codes.setdefault(name, {})
            found = values.dictionary_encode()
            places = []
            for text in found.dictionary.to_pylist():
                if text not in known:
                    new.setdefault(name, []).append(printable(text))
                places.append(known.setdefault(text, len(known)))
            indices = found.indices.to_numpy(zero_copy_only=False)
            arrays.append(np.asarray(places, np.uint32)[indices] if places else _none(len(values)))
        return new, arrays


def _numbers(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    if name not in table.column_names:
        return np.full(len(table), np.nan, np.float32)
    values = table[name].cast(pa.float32(), safe=False)
    return np.asarray(values.fill_null(float("nan")).to_numpy(), np.float32)


def _texts(table: pa.Table, name: str) -> pa.Array:
    """Values as texts, "" for null."""
    if name not in table.column_names:
        return pa.array([""] * len(table), pa.string())
    values = table[name].cast(pa.string()).fill_null("")
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _none(count: int) -> np.ndarray[Any, Any]:
    return np.zeros(count, np.uint32)


def searched(table: pa.Table) -> pa.Array:
    """The text of each row that a search looks through, in lower case."""
    columns = [_texts(table, name) for name in SEARCHED if name in table.column_names]
    return pc.utf8_lower(pc.binary_join_element_wise(*columns, "\n"))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it; characters that turn the direction of what follows are spelt out."""
    return {printable(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return printable(value)
    # a browser has no whole numbers beyond these, and seeds may be larger
    is_exact = not isinstance(value, int) or abs(value) <= MOST_EXACT
    return value if isinstance(value, int | float | None) and is_exact else str(value)
