"""What records say of how their samples were made, in words: `styleid, gamma 0.75, sites 6 to 11, no inject, seed 1`.

Options have the names that a manifest sets them with. Of the columns about inputs those are told that show in no picture.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from stylebatch.reports.committed import Row

OF_INPUTS = ("split", "row", "style_images", "style_weights", "mask_id")
"""Columns that say how the inputs of a sample were put together."""


def parameters(rows: Sequence[Row], options: Collection[str]) -> tuple[str, list[str]]:
    """What all rows have in common, and for each row the rest; `options`: names of the method's."""
    words = [_words(row, options) for row in rows]
    first = words[0] if words else {}
    common = {name for name in first if all(one[name] == first[name] for one in words)}
    rest = [", ".join(filter(None, (one[n] for n in one if n not in common))) for one in words]
    return ", ".join(filter(None, (first[name] for name in first if name in common))), rest


def _words(row: Row, options: Collection[str]) -> dict[str, str]:
    """Words by column; "" where there is nothing to say."""
    told = [column for column in row if column in options or column in OF_INPUTS]
    words = {"method": row["method"]} | {column: option(column, row[column]) for column in told}
    # originals of an export have no seed
    return words | {"seed": "" if row["seed"] is None else f"seed {row['seed']}"}


def option(column: str, value: Any) -> str:
    """`gamma 0.75`, `sites 6 to 11`, `no inject`; "" for an option that is not given."""
    name = column.replace("_", " ")
    # before numbers: a bool is an int
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return "" if value in ("", None, []) else f"{name} {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        is_run = all(isinstance(one, int) for one in value) and len(value) > 2
        if is_run and value == list(range(value[0], value[-1] + 1)):
            return f"{value[0]} to {value[-1]}"
        return " and ".join(map(_shown, value))
    if isinstance(value, dict):  # a range that samples draw from
        return f"{value['from']:g} to {value['to']:g}" if "from" in value else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
