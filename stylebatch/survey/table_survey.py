"""What rows a table has: pairs, prompts, paths of images, or others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stylebatch.data.sources.further import Kinds
from stylebatch.data.tables.reader import Table
from stylebatch.data.tables.row_batches import Row
from stylebatch.data.tables.table_columns import Columns, plain, slip_of
from stylebatch.errors import ManifestError

Role = Literal["pairs", "prompts", "paths", "other"]
ROLES: Mapping[Role, tuple[str, ...]] = {
    "pairs": ("content", "style"),
    "prompts": ("prompt",),
    "paths": ("path",),
}
"""Columns that tell what a table is; the first that has all of its columns, or what seems to be one of them misspelt."""
WORDS: Mapping[Role, str] = {
    "pairs": "table of pairs",
    "prompts": "table of prompts",
    "paths": "table of images",
    "other": "table",
}
ANY = Columns((), (), carries=True)


@dataclass(frozen=True)
class TableSurvey:
    """`columns`: types by name as the table has it; `names`: in the form that is compared; `rows`: the first."""

    role: Role
    columns: Mapping[str, str]
    num_rows: int
    rows: tuple[Row, ...] = ()
    problem: str = ""
    names: frozenset[str] = field(default_factory=frozenset)


def survey_table(uri: str, most_rows: int) -> TableSurvey:
    """All rows are read; where one cannot be, those before it. Raises ManifestError for a table without any that can."""
    table, kinds, count, problem = Table(uri, ANY), Kinds(), 0, ""
    first: list[Row] = []
    names: dict[str, None] = {}
    try:
        for batch in table.batches():
            names.update(dict.fromkeys(batch.columns))
            kinds.add_rows(len(batch))
            for name in batch.columns:
                kinds.add_cells(name, batch.listed(name))
            count += len(batch)
            wanted = itertools.islice(batch.rows(), most_rows - len(first))
            first += [row for _, row in wanted]
    except ManifestError as error:
        if not count:
            raise
        problem = str(error)
    types = kinds.types()
    columns = {name: types.get(name, "empty") for name in names}
    compared = frozenset(map(plain, names))
    return TableSurvey(role_of(compared), columns, count, tuple(first), problem, compared)


def role_of(names: frozenset[str]) -> Role:
    """What the columns of a table, in the form that is compared, say that its rows are."""
    for role, wanted in ROLES.items():
        if names.issuperset(wanted):
            return role
    for role, wanted in ROLES.items():
        lacking = [name for name in wanted if name not in names]
        slips = {slip_of(name, lacking) for name in names}
        if slips.issuperset(lacking):
            return role
    return "other"


def columns_of(uri: str) -> frozenset[str]:
    """Names of a table's columns in the form that is compared, by its first rows; none for what cannot be read."""
    try:
        batch = next(Table(uri, ANY).batches(), None)
    except ManifestError:
        return frozenset()
    return frozenset() if batch is None else frozenset(map(plain, batch.columns))


def facts_of(found: TableSurvey) -> dict[str, Any]:
    return {"num_rows": found.num_rows, "columns": dict(found.columns)}
