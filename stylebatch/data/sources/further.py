"""Further columns of a source: one type for each, learned from all that is listed, and values of these types, none of them null.

A number or truth value that some images lack is carried as text, "" for those: 0 or false would say more than the source does.
What is neither one value nor a list of them is carried as JSON text.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stylebatch.data.sources.source import Item

if TYPE_CHECKING:
    import pyarrow as pa

JSON = "json"
"""A text that is JSON; the other types have Arrow's names."""
GAP = "gap"
MAX_ALIKE = 1000
"""Sets of names and tags that are counted before they are taken apart."""
_LIST = "list:"
_SCALARS = {bool: "bool", str: "string", dict: JSON, type(None): GAP}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?([0-9]+\.[0-9]*|\.?[0-9]+)([eE][-+]?[0-9]+)?")
_TRUTH = {"true": True, "false": False}
BLANKS: dict[str, Any] = {"bool": False, "int64": 0, "double": 0.0, "string": "", JSON: ""}
"""What stands for nothing, by type; of lists the empty one."""


class Kinds:
    """Types of columns, from the values that are added; one call for each image, also for one without any."""

    def __init__(self) -> None:
        self._total = 0
        self._counts: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()
        self._alike: dict[tuple[str, ...], int] = {}

    def add(self, found: Mapping[str, Any]) -> None:
        """Values as JSON has them."""
        self._total += 1
        if found:
            # images of a source are alike: those of the same names and tags are only counted
            alike = (*found, *map(_tag, found.values()))
            self._alike[alike] = self._alike.get(alike, 0) + 1
            if len(self._alike) >= MAX_ALIKE:
                self._settle()

    def _settle(self) -> None:
        """Count what was found alike, by name."""
        for alike, count in self._alike.items():
            names, tags = alike[: len(alike) // 2], alike[len(alike) // 2 :]
            self._counts.update(dict.fromkeys(names, count))
            self._seen.update(zip(names, tags, strict=True))
        self._alike.clear()

    def add_texts(self, found: Mapping[str, str]) -> None:
        """Cells of a table, which are texts whatever they mean."""
        self._total += 1
        self._counts.update(found.keys())
        self._seen.update([(name, _tag_of_text(text)) for name, text in found.items()])

    def add_cells(self, name: str, cells: Sequence[str | None]) -> None:
        """Cells of a column of a table, None where a row has no such cell. `add_rows` counts the rows."""
        self._counts[name] += len(cells) - cells.count(None)
        self._seen.update((name, _tag_of_text(text)) for text in set(cells) if text is not None)

    def add_column(self, name: str, kind: pa.DataType, *, rows: int, has_gaps: bool) -> None:
        """A column of Arrow. `add_rows` counts its rows."""
        self._counts[name] += rows
        self._seen.update([(name, tag_of_arrow(kind)), *([(name, GAP)] if has_gaps else [])])

    def add_rows(self, count: int) -> None:
        """Count the rows of a table, whichever columns it has."""
        self._total += count

    def facts(self) -> dict[str, Any]:
        """What was learned, as JSON has it."""
        self._settle()
        seen = sorted(map(list, self._seen))
        return {"total": self._total, "counts": dict(self._counts), "seen": seen}

    def join(self, facts: Mapping[str, Any]) -> None:
        """Add what others learned."""
        self._total += facts["total"]
        self._counts.update(facts["counts"])
        self._seen.update((name, tag) for name, tag in facts["seen"])

    def types(self, total: int | None = None) -> dict[str, str]:
        """Type of each column that holds anything, in the order of their names. `total`: images, where not all were added."""
        self._settle()
        total = self._total if total is None else total
        tags: dict[str, set[str]] = {}
        for name, tag in self._seen:
            tags.setdefault(name, set()).add(tag)
        joined = (
            (name, _joined(found | ({GAP} if self._counts[name] < total else set())))
            for name, found in sorted(tags.items())
        )
        return {name: kind for name, kind in joined if kind}


def types_of(items: Iterable[Item]) -> dict[str, str]:
    """Types of what items hold in `extra`."""
    kinds = Kinds()
    for item in items:
        kinds.add(item.extra)
    return kinds.types()


def joined_types(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """One type for each column over parts of a source that have their own."""
    found = {}
    for name in sorted({name for part in parts for name in part}):
        kinds = {part.get(name, GAP) for part in parts}
        tags = {f"{_LIST}{kind[5:-1]}" if kind.startswith("list<") else kind for kind in kinds}
        found[name] = _joined(tags)
    return found


def tag_of_arrow(kind: pa.DataType) -> str:
    """What `Kinds` calls the values of a column of Arrow; "" for one that does not go along, such as bytes."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return tag_of_arrow(kind.value_type)
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind):
        # int64 does not hold all of uint64
        return "string" if kind == pa.uint64() else "int64"
    if types.is_floating(kind):
        return "double"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = tag_of_arrow(kind.value_type)
        return inner and f"{_LIST}{inner}"
    if types.is_struct(kind):
        inners = [tag_of_arrow(field.type) for field in kind]
        return JSON if inners and all(inners) else ""
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_other = types.is_date(kind) or types.is_timestamp(kind) or types.is_decimal(kind)
    return "string" if is_text or is_other else ""


def has_gaps(values: pa.Array) -> bool:
    """Whether a column of numbers or truth values lacks some, or holds what is no finite number; False for other columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if values.null_count:
        return is_plain(values.type)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    return pa.types.is_floating(values.type) and pc.all(pc.is_finite(values)).as_py() is False


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column is one of numbers or truth values."""
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind))


def value_as(value: Any, kind: str) -> Any:
    """The value in its column's type; what stands for nothing where it cannot be, as of a file that changed since."""
    if kind.startswith("list<"):
        inner = kind[len("list<") : -1]
        listed = value if isinstance(value, list | tuple) else []
        return [value_as(one, inner) for one in listed]
    if value is None or value == "":
        return BLANKS[kind]
    if kind in ("string", JSON):
        return text_of(value)
    try:
        if kind == "bool":
            return _TRUTH[value.strip().lower()] if isinstance(value, str) else bool(value)
        number = float(value) if kind == "double" else int(value)
    except (ValueError, TypeError, KeyError, OverflowError):
        return BLANKS[kind]
    fits = math.isfinite(number) if kind == "double" else -(2**63) <= number < 2**63
    return number if fits else BLANKS[kind]


def text_of(value: Any) -> str:
    """A value as text: JSON of lists and mappings, and nothing that UTF-8 or a reader of Parquet could not hold."""
    if isinstance(value, dict | list | tuple):
        try:
            value = json.dumps(_finite(value), ensure_ascii=False, default=str)
        except RecursionError:
            value = ""
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float):
        # 2.0 stands for 2 in a column of whole numbers with gaps
        whole = value.is_integer() and abs(value) < 2**53
        value = "" if not math.isfinite(value) else str(int(value)) if whole else repr(value)
    return str(value).replace("\0", "").encode("utf-8", "replace").decode()


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tag(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return "int64" if -(2**63) <= value < 2**63 else "string"
    if kind is float:
        return "double" if math.isfinite(value) else GAP
    if kind is list:
        # no deeper: JSON may be nested as deep as Python's stack
        inner = {JSON if type(one) is list else _tag(one) for one in value}
        if "int64" in inner and "double" in inner:
            inner.discard("int64")
        return _LIST + (inner.pop() if len(inner) == 1 else JSON if inner else "")
    return _SCALARS.get(kind, "string")


def _tag_of_text(text: str) -> str:
    if not text:
        return GAP
    if _INTEGER.fullmatch(text):
        return "int64"
    if text.lower() in _TRUTH:
        return "bool"
    # a number that begins with 0, such as a postal code, would lose it
    has_zero = text.lstrip("-").startswith("0") and text.lstrip("-")[1:2].isdigit()
    if _NUMBER.fullmatch(text) and not has_zero and math.isfinite(float(text)):
        return "string" if text.lstrip("-").isdecimal() else "double"
    return "string"


def _joined(tags: set[str]) -> str:
    """The type that holds values of all these; "" where there is none."""
    has_gaps, tags = GAP in tags, tags - {GAP}
    if not tags:
        return ""
    if any(tag.startswith(_LIST) for tag in tags):
        inner = {tag.removeprefix(_LIST) for tag in tags} - {""}
        if not all(tag.startswith(_LIST) for tag in tags):
            return JSON
        if inner <= {"int64", "double"} and inner:
            return "list<double>" if "double" in inner else "list<int64>"
        if len(inner) <= 1 and inner <= {"bool", "string"}:
            return f"list<{inner.pop() if inner else 'string'}>"
        return JSON
    if JSON in tags:
        return JSON
    if tags <= {"int64", "double"} and not has_gaps:
        return "double" if "double" in tags else "int64"
    return "bool" if tags == {"bool"} and not has_gaps else "string"
