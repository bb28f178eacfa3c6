"""Which split each item of a source belongs to: the one that the source has it in, or the one that a column names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from stylebatch.data.sources.source import Item, Source
from stylebatch.data.tables.table_columns import shown

NAMED = 12
EVERY = "all"
"""In place of the name of a split, as `datasets` has it."""


class SplitBy(NamedTuple):
    """How a listing learns splits: from the source, from a column, or not at all. `origins`: those of samples of ours are asked for."""

    source: bool = False
    column: str | None = None
    origins: bool = False


NO_SPLITS = SplitBy()


def is_whole(source: Source) -> bool:
    """Whether the options ask for all splits of a source as one; a split may have that very name."""
    if source.options.split != EVERY:
        return False
    return EVERY not in source.splits()


def parts_of(source: Source) -> list[Source]:
    """The source once for each of its splits, which its options then name. Raises ManifestError for one that has none."""
    names = source.splits()
    if not names:
        raise source.fault(
            "has no splits; accepted: folders such as train and validation, or files of such names. Next: make them, such as with "
            "`split: {validation: 0.2}`"
        )
    return [_with_options(source, split=name) for name in names]


def _with_options(source: Source, **changes: Any) -> Source:
    options = source.options.model_copy(update=changes)
    other = type(source)(source.uri, source.field, options)
    other.class_names = source.class_names
    return other


def split_of(source: Source) -> str:
    """The split that the options of a part name."""
    return source.options.split or ""


def reading(source: Source, column: str) -> Source:
    """The source with `column` among those that are read."""
    options = source.options
    if options.carry is None or column in options.carry:
        return source
    return _with_options(source, carry=(*options.carry, column))


def with_column(items: list[Item], source: Source, column: str) -> list[Item]:
    """`items` with the splits that a column names. Raises ManifestError where it does not name one for each."""
    found: list[Item] = []
    known: dict[str, None] = {}
    for item in items:
        row = source.further(item)
        if len(known) <= NAMED:
            known.update(dict.fromkeys(row))
        if column not in row:
            names = ", ".join(shown(name, 40) for name in list(known)[:NAMED])
            raise source.fault(
                f"{item.id}: found no column {column!r}; accepted: one that every image has ({names or 'there is none'})",
                "path",
            )
        split = _text(row[column])
        if not split:
            raise source.fault(
                f"{item.id}: {column}: found {shown(str(row[column]), 40)!r}; accepted: the name of a split, for every image"
            )
        found.append(replace(item, split=split))
    return found


def _text(value: Any) -> str:
    """A cell as the name of a split; 1.0 and 1 are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_plain = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if is_plain else ""
