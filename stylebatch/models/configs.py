"""Reads typed fields of a config file; a value of another type is refused by file and field."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylebatch.errors import ManifestError

LARGEST = 1_000_000
"""Of any count: above it a plan would take memory and time before anything could refuse it."""
LARGEST_FILE = 100_000_000


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, one line, if the file cannot be read or holds no object."""
    try:
        if not path.is_file():
            raise ValueError("no such file" if not path.exists() else "it is no file")
        # before reading: weights may bear a config's name
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at line {error.lineno}") from None
    except UnicodeDecodeError:
        raise ValueError("no UTF-8 text") from None
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__}, where an object is meant")
    return found


@dataclass(frozen=True)
class Fields:
    """Keys and values of a config file; every method raises ManifestError for a value of another type."""

    path: Path
    values: dict[str, Any]

    def refusal(self, name: str, accepted: str) -> ManifestError:
        value = self.values.get(name)
        shown = repr(value) if isinstance(value, str) else json.dumps(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return ManifestError(f"model: {self.path}: {name}: found {shown}; accepted: {accepted}")

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)  # null means the default, as it does in diffusers
        return default if value is None else value

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number, `least` to a million; null and absent are the default."""
        value = self._value(name, default)
        if not _is_count(value, least):
            raise self.refusal(name, f"a whole number, {least} to {LARGEST:,}")
        return int(value)

    def number(self, name: str, default: float) -> float:
        value = self._value(name, default)
        if (
            isinstance(value, bool)  # a bool is an int in Python
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.refusal(name, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return value

    def word(self, name: str, default: str | None, accepted: Sequence[str]) -> str:
        value = self._value(name, default)
        if not isinstance(value, str) or value not in accepted:
            raise self.refusal(name, ", ".join(accepted))
        return value

    def none(self, name: str, what: str) -> None:
        """Refuse the field unless it is absent, null, false or empty; `what` it asks for is not implemented."""
        if self.values.get(name):
            raise self.refusal(name, f"null ({what} is not implemented)")

    def counts(
        self, name: str, default: int | None, num: int, *, least: int = 1
    ) -> tuple[int, ...]:
        """`num` whole numbers: a list of them, or one for all."""
        value = self._value(name, default)
        if not isinstance(value, list):
            return (self.count(name, default, least=least),) * num
        if len(value) != num or not all(_is_count(one, least) for one in value):
            raise self.refusal(name, f"a whole number, or {num} of them")
        return tuple(value)

    def list(self, name: str) -> list[Any]:
        """A list that is not empty."""
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            raise self.refusal(name, "a list")
        return value


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST
