"""The base of all sections of a run specification."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

UNIT_PREFIXES = ("", "k", "M", "G", "T")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*((?:[kmgt]i?)?b|)", re.IGNORECASE)


class Section(BaseModel):
    """Base of all sections: unknown keys, wrong types and changes after validation are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    OTHER_NAMES: ClassVar[Mapping[str, str]] = {}
    """Names that other programs have for a field, and the field: what an unknown key is told to mean."""


def parse_bytes(text: str) -> int:
    """Bytes of `500MB` (powers of 1000), `20GiB` (of 1024), `1.5 TB` or a plain integer. Raises ValueError for others."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or ("." in match[1] and not match[2]):
        raise ValueError(
            f"found {text!r}; accepted: a number of bytes such as 1000000, or with a unit, such as 500MB or 20GiB (kB MB GB TB, KiB MiB "
            "GiB TiB)"
        )
    unit = match[2].lower()
    base = 1024 if "i" in unit else 1000
    power = [prefix.lower() for prefix in UNIT_PREFIXES].index(unit.rstrip("b").rstrip("i"))
    # a float would turn 1.1 kB into 1,100.0000000000002
    return int(Decimal(match[1]) * base**power)


def _as_bytes(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else value


Bytes = Annotated[
    int,
    Field(ge=1),
    BeforeValidator(_as_bytes, json_schema_input_type=Annotated[int, Field(ge=1)] | str),
]
"""A number of bytes, or a text such as 500MB."""
