"""Expressions over the columns of a record, for `--where` and gates: DuckDB parses and evaluates them, with files and network shut.

An expression is about one record: what looks at others (`avg(structure) OVER ()`, `SELECT`) would mean one shard alone.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stylebatch.errors import ManifestError

FOUND = "found"
_OTHERS = {"SUBQUERY": "SELECT", "WINDOW": "OVER", "STAR": "*"}
"""Classes of parts of an expression that look beyond one record, and how they are written."""


class Expression:
    """A condition on records with the columns of `schema`. Raises ManifestError where it is none, which names `field`.

    `used`: the columns that it looks at, in their order in `schema`; `steady`: refuse what may give another value tomorrow.
    """

    def __init__(
        self, text: str, schema: pa.Schema, *, field: str = "--where", steady: bool = False
    ) -> None:
        self.text, self.columns, self.field = text, schema.names, field
        self._database = duckdb.connect(
            config={
                "enable_external_access": "false",
                # a column's statistics do not decide the order of rows
                "threads": "1",
            }
        )
        used = self._require_of_one_record(schema)
        self.used = tuple(name for name in schema.names if name in used)
        self._require_bool(schema)
        if steady:
            self._require_steady()

    def of(self, table: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each row whether it fulfils the condition, and whether that is unknown, as where a value is missing."""
        _, found = self._evaluated(table)
        if len(found) != len(table):
            raise self._fault("found a sum over records; accepted: an expression about one record")
        return (
            np.fromiter((value is True for (value,) in found), np.bool_, len(found)),
            np.fromiter((value is None for (value,) in found), np.bool_, len(found)),
        )

    def _evaluated(self, table: pa.Table) -> tuple[str, list[tuple[Any, ...]]]:
        """Type and values."""
        try:
            expression = duckdb.SQLExpression(self.text).alias(FOUND)
            found = self._database.from_arrow(table).select(expression)
            return str(found.types[0]), found.fetchall()
        except duckdb.Error as error:
            raise self._fault(_first_line(error)) from None

    def _require_bool(self, schema: pa.Schema) -> None:
        kind, values = self._evaluated(schema.empty_table())
        if kind != "BOOLEAN":
            raise self._fault(
                f"found a value of type {kind}; accepted: a comparison, such as structure > 0.4"
            )
        if values:  # an aggregate of no rows is one row
            raise self._fault("found a sum over records; accepted: an expression about one record")

    def _require_steady(self) -> None:
        called = {str(part["function_name"]) for part in self._parts() if "function_name" in part}
        varying = self._database.execute(
            "SELECT function_name FROM duckdb_functions() GROUP BY function_name HAVING count(*) FILTER (stability = 'CONSISTENT') = 0"
        ).fetchall()
        found = sorted(called & {name for (name,) in varying})
        if found:
            raise self._fault(
                f"found {found[0]}(), which gives another value each time; accepted: functions of the columns"
            )

    def _require_of_one_record(self, schema: pa.Schema) -> set[str]:
        """The columns that are looked at."""
        used = set()
        parts = list(self._parts())
        # of a lambda, as in list_filter(objects.area, lambda area: area > 9)
        parameters = {
            name
            for part in parts
            if part["class"] == "LAMBDA"
            for one in _with_class(part.get("lhs"))
            for name in one.get("column_names") or ()
        }
        for part in parts:
            written = _OTHERS.get(part["class"])
            if written:
                raise self._fault(f"found {written}; accepted: an expression about one record")
            if part["class"] == "COLUMN_REF" and part["column_names"][0] not in parameters:
                used.add(self._require_known(part["column_names"], schema))
        return used

    def _require_known(self, names: Sequence[str], schema: pa.Schema) -> str:
        """The column that is meant. Raises ManifestError for one, or a field of one (`objects.category`), that is not there."""
        columns: dict[str, str] = {column.lower(): column for column in self.columns}
        column = columns.get(names[0].lower())
        if column is None:
            raise self._unknown(f"column {names[0]!r}", names[0], self.columns)
        kind = schema.field(column).type
        if len(names) > 1 and pa.types.is_struct(kind):
            fields = [kind.field(place).name for place in range(kind.num_fields)]
            if names[1].lower() not in map(str.lower, fields):
                raise self._unknown(f"field {names[1]!r} of {column}", names[1], fields)
        return column

    def _unknown(self, what: str, name: str, known: Sequence[str]) -> ManifestError:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        return self._fault(
            f"found no {what}; {hint}accepted: {', '.join(known)}; texts stand in single quotes"
        )

    def _parts(self) -> Iterator[dict[str, Any]]:
        """Parts of the parsed expression that have a class. Raises ManifestError where it cannot be parsed."""
        try:
            duckdb.SQLExpression(self.text)  # it alone refuses a second statement or `) OR (`
            # a line of its own: the text may end in a comment
            sql = f"SELECT 1 WHERE (\n{self.text}\n)"
            # all rows: a result that is not read to its end blocks the connection
            ((told,),) = self._database.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        except duckdb.Error as error:
            raise self._fault(_first_line(error)) from None
        tree = json.loads(told)
        if tree.get("error"):
            raise self._fault(str(tree.get("error_message")))
        return _with_class(tree["statements"][0]["node"]["where_clause"])

    def _fault(self, what: str) -> ManifestError:
        return ManifestError(f"{self.field}: {self.text!r}: {what}")


def _with_class(value: Any) -> Iterator[dict[str, Any]]:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if "class" in one:
                yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    if "of type VARCHAR" in line or "convert string ''" in line:
        # numbers that some inputs lack are texts in the records, "" for those
        line = (
            f"{line.rstrip('.!')} (a number of a column of texts is `try_cast(COLUMN AS double)`)"
        )
    return f"{line.rstrip('.!')}; accepted: an expression as SQL has it, such as structure > 0.4 and label in ('cat', 'dog')"
