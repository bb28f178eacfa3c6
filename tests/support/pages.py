"""What a gallery holds, read as its page reads it."""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any


def held(path: str | PathLike[str]) -> dict[str, Any]:
    """The samples of a gallery; each of `rows` with what all have in common."""
    text = Path(path).read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="samples">(.*?)</script>', text, re.DOTALL)  # fmt: skip
    page: dict[str, Any] = json.loads(found)
    return page | {"rows": [page["common"] | row for row in page["rows"]]}


def shown(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the samples that have a picture."""
    return [row for row, result in zip(page["rows"], page["results"], strict=True) if result]


def names_of(page: dict[str, Any], column: str) -> list[str]:
    """A choice's value of each sample."""
    place = [one["column"] for one in page["state"]["categories"]].index(column)
    return [page["names"][column][code] for code in page["codes"][place]]


def numbers_of(page: dict[str, Any], column: str) -> list[float | None]:
    """A measure of each sample."""
    place = [one["column"] for one in page["state"]["numbers"]].index(column)
    found: list[float | None] = page["numbers"][place]
    return found
