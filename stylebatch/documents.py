"""Reads a YAML document into plain values: text, numbers, lists and mappings, of bounded size, each key once.

The bounds are checked on the stream of parser events, before any value is built: 500 bytes of nested aliases can stand for a
billion values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 16 * 2**20
MAX_VALUES = 250_000
MAX_DEPTH = 32
MAX_DIGITS = 4000
"""Digits of a whole number; Python refuses to convert more than 4,300."""

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")
"""What needs no quotes, unless it means something else, such as `no` or `1e3`."""

# The C loader is several times as fast, and missing where PyYAML was built without libyaml.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Plain values alone. Dates stay text; `1e-3` is a number, as in YAML 1.2."""


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    """A whole number; one too long for Python stays text, which no number field accepts. So does `12:30`."""
    if ":" in node.value:  # YAML 1.1 reads 12:30 as 750, in base 60
        return node.value
    try:
        value = loader.construct_yaml_int(node)
    except ValueError:
        return node.value
    # Hexadecimal numbers pass Python's limit; printing one in an error would not. A digit has 3.3 bits.
    return value if value.bit_length() < 3 * MAX_DIGITS else node.value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
for _tag in ("binary", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.construct_undefined)


class DocumentError(ValueError):
    """A text that is not a valid document; the message is one line."""


def parse(text: str | bytes) -> Any:
    """The values of a YAML document. Raises DocumentError, naming line and key, for one that is broken or beyond the bounds."""
    if len(text) > MAX_BYTES:
        raise DocumentError(
            f"{len(text):,} bytes; accepted: at most {MAX_BYTES:,}; long lists belong into a table of rows"
        )
    try:
        _check(text)
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise DocumentError(f"not valid YAML: {error}") from None
    except (UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"not valid YAML: {error}") from None


def scalar(value: str | int | float | bool) -> str:
    """One line of YAML that `parse` takes for the value.

    Raises ValueError for a text that no YAML file can hold: one with lone surrogates, as of file names that are no UTF-8.
    """
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    if _PLAIN.fullmatch(value) and _means(value, value):
        return value
    # within quotes the emitter escapes what does not print, and a line is never broken at this width
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=1 << 30)
    quoted = quoted.rstrip("\n")
    if not _means(quoted, value):
        raise ValueError("cannot stand in a YAML file; accepted: text in UTF-8")
    return quoted


def _means(text: str, value: str) -> bool:
    try:
        return bool(parse(text) == value == yaml.safe_load(text))
    except (DocumentError, yaml.YAMLError):
        return False


@dataclass
class _Open:
    """A list or mapping that is being read. `size`, `height`: number of values and nesting so far, aliases expanded."""

    anchor: str | None
    is_mapping: bool
    size: int = 1
    height: int = 1
    keys: set[Hashable] = field(default_factory=set)
    at_key: bool = True
    key: str = ""


def _check(text: str | bytes) -> None:
    """Raise DocumentError for a document that is too large, too deep, or repeats a key."""
    anchors: dict[str, tuple[int, int]] = {}
    stack: list[_Open] = []
    for event in yaml.parse(text, _Loader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            _require(event, stack, len(stack) <= MAX_DEPTH, f"nested over {MAX_DEPTH} levels deep")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            closed = stack.pop()
            if closed.anchor:
                anchors[closed.anchor] = closed.size, closed.height
            _add(event, stack, closed.size, closed.height)
        elif isinstance(event, yaml.AliasEvent):
            is_open = any(event.anchor == part.anchor for part in stack)
            _require(event, stack, not is_open, f"the alias *{event.anchor} contains itself")
            _add(event, stack, *anchors.get(str(event.anchor), (1, 1)))
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                anchors[event.anchor] = 1, 1
            _check_key(event, stack)
            _add(event, stack, 1, 1)


def _check_key(event: yaml.ScalarEvent, stack: list[_Open]) -> None:
    """Remember the scalar if it is a key; raise DocumentError if the mapping has it already."""
    # The loader would keep the last of two equal keys without a word.
    if not stack or not stack[-1].is_mapping or not stack[-1].at_key:
        return
    is_new = event.value not in stack[-1].keys
    _require(event, stack[:-1], is_new, f"key {event.value[:80]!r} stands twice")
    stack[-1].keys.add(event.value)
    stack[-1].key = event.value


def _add(event: yaml.Event, stack: list[_Open], size: int, height: int) -> None:
    """Count a value, or a key, of the innermost open list or mapping."""
    if not stack:
        return
    parent = stack[-1]
    parent.size += size
    parent.height = max(parent.height, height + 1)
    parent.at_key = not parent.at_key
    _require(
        event, stack, parent.size <= MAX_VALUES, f"over {MAX_VALUES:,} values, aliases expanded"
    )
    _require(
        event,
        stack,
        len(stack) + height <= MAX_DEPTH + 1,
        f"nested over {MAX_DEPTH} levels deep, aliases expanded",
    )


def _require(event: yaml.Event, stack: list[_Open], holds: bool, what: str) -> None:
    if not holds:
        keys = ".".join(part.key for part in stack if part.is_mapping and part.key)
        line = event.start_mark.line + 1 if event.start_mark else 1
        raise DocumentError(f"line {line}{f', in {keys[:80]}' if keys else ''}: {what}")
