"""Writes a manifest with comments; every value is quoted where YAML would take it for something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from stylebatch.documents import scalar
from stylebatch.errors import ManifestError

LONGEST_FLOW = 80
LONGEST_COMMENT = 110


def manifest_text(
    data: Mapping[str, Any],
    comments: Mapping[str, Sequence[str]],
    head: Sequence[str],
    tail: Sequence[str],
) -> str:
    """`comments`: lines above each field; `head`, `tail`: comments at both ends."""
    lines = [*_commented(head)]
    for name, value in data.items():
        told = [*_commented(comments.get(name, ()))]
        lines += ["", *told] if told else []
        lines += _field(name, value)
    lines += ["", *_commented(tail)]
    return "\n".join(lines) + "\n"


def _commented(texts: Sequence[str]) -> Iterator[str]:
    """Lines that print, whatever a file is called: YAML has rules for characters in comments too."""
    for text in texts:
        shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
        is_code = "  " in shown  # lines of YAML, whose spaces stay
        lines = [shown] if is_code else wrap(shown, LONGEST_COMMENT, break_long_words=False)
        yield from (f"# {line}" for line in lines)


def _field(name: str, value: Any, indent: str = "") -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{indent}{name}: {_flow(value)}"
        return
    flow = f"{indent}{name}: {_flow(value)}"
    if len(flow) <= LONGEST_FLOW and "path" not in value:
        yield flow
        return
    yield f"{indent}{name}:"
    for inner, one in value.items():
        yield from _field(inner, one, f"{indent}  ")


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    try:
        return scalar(value)
    except ValueError as error:
        raise ManifestError(f"{value!a}: {error}. Next: rename the file or folder") from None
