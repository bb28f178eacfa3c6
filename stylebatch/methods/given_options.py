"""Options of a method that a caller gives in Python, partly by arguments of other names, and what is told of bad ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from stylebatch.methods.method import MethodOptions

Options = TypeVar("Options", bound=MethodOptions)


def with_options(
    method: type[Options],
    options: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    renamed: Mapping[str, str],
) -> Options:
    """The method with `options` and the arguments that were `given`, of which None means the default.

    `renamed`: name of an argument -> name of its option. Raises ValueError for an option that is given both ways, and for every
    one that cannot be used, by the name that the caller gave it.
    """
    found, names = dict(options or {}), {}
    for name, value in given.items():
        if value is None:
            continue
        option = renamed.get(name, name)
        if option in found:
            raise ValueError(
                f"{name}: found {value!r} beside options[{option!r}] {found[option]!r}; accepted: one of them"
            )
        found[option], names[option] = value, name
    try:
        return method(**found)
    except ValidationError as error:
        faults = [_told(fault, method, names) for fault in error.errors()]
        raise ValueError("\n".join(faults)) from None


def _told(fault: Any, method: type[MethodOptions], names: Mapping[str, str]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    # a rule of several options begins with the name of the one that breaks it
    option, _, rest = (
        message.partition(": ") if not fault["loc"] else (str(fault["loc"][0]), "", "")
    )
    place = names.get(option, f"options[{option!r}]")
    if not fault["loc"]:
        return f"{place}: {rest}" if option in method.model_fields else message
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(option, method.model_fields, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}: no such option; {hint}accepted: {', '.join(method.model_fields)}"
    return f"{place}: found {fault['input']!r}; {message[0].lower()}{message[1:]}"
