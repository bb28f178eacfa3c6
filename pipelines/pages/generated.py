"""Fills the parts of pages that are made of the code: `<!-- generated: NAME -->` stands where a part goes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from pydantic import BaseModel

import stylebatch
from pipelines.pages import commands, fields

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def api_reference() -> str:
    """The public names, for autodoc."""
    lines = []
    for name in stylebatch.__all__:
        value = getattr(stylebatch, name)
        lines += [f"## {name}", ""]
        if isinstance(value, dict):
            lines += ["A dictionary of:", "", *(f"- `{key}`: `{v.__name__}`" for key, v in value.items()), ""]  # fmt: skip
            continue
        is_class = isinstance(value, type)
        if not is_class and not inspect.isroutine(value):  # the name of a type
            lines += [f"`{re.sub(r'[a-z_.]+[.]', '', repr(value))}`", ""]
            continue
        fields = "(**fields)" * (is_class and issubclass(value, BaseModel))  # in the other pages
        kind, members = ("class", ["   :members:"]) if is_class else ("function", [])
        lines += [
            "```{eval-rst}",
            f".. auto{kind}:: stylebatch.{name}{fields}",
            *members,
            "```",
            "",
        ]
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "api": api_reference,
    "commands": commands.reference,
    "manifest": fields.manifest_reference,
    "training": fields.training_reference,
}


def filled(text: str) -> str:
    """A page's Markdown with its generated parts. Raises KeyError for a part that there is not."""
    return _MARK.sub(lambda mark: PARTS[mark[1]](), text)
