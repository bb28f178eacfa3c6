"""What `classes` of a manifest may be: names in the order of their numbers, in whatever form they are written."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from stylebatch.paths import LocalPath

Name = Annotated[str, Field(min_length=1)]
Classes = Annotated[
    Annotated[tuple[Name, ...], Field(min_length=1), Tag("list")]
    | Annotated[int, Field(ge=1, le=1_000_000), Tag("count")]
    | Annotated[LocalPath, Tag("file")],
    # A plain union would tell of a wrong value once for each of its forms.
    Discriminator(
        lambda given: (
            "file"
            if isinstance(given, str)
            else "list"
            if isinstance(given, list | tuple)
            else "count"
        )
    ),
]
_FORMS = (
    "a list of names, a mapping of numbers to names, a file of names, or how many classes there are"
)


def short_classes(given: Any) -> Any:
    """A mapping as a list. What is wrong is told in one line, where pydantic would have one for each name and form."""
    if isinstance(given, dict):
        return names_by_number(given)
    if isinstance(given, list | tuple):
        wrong = next((name for name in given if not isinstance(name, str) or not name), None)
        if not given or wrong is not None:
            found = "an empty list" if not given else f"{wrong!r} among the names"
            quoted = (
                f", in quotes where they are numbers ({str(wrong)!r})" if type(wrong) is int else ""
            )
            raise ValueError(
                f"{found}; accepted: names as text{quoted}, a file of names, or how many classes there are"
            )
        return tuple(given)  # strict types take no list for it
    if type(given) not in (int, str, NoneType):
        raise ValueError(f"accepted: {_FORMS}")
    return given


def names_by_number(given: dict[Any, Any]) -> tuple[str, ...]:
    """Names of `{0: cat, 1: dog}`, or of `{cat: 0, dog: 1}`. Raises ValueError for numbers that are none, are there twice or have gaps.

    >>> names_by_number({"1": "dog", 0: "cat"})
    ('cat', 'dog')
    """
    found: dict[int, str] = {}
    for one, other in given.items():
        number, name = (other, one) if _is_number(other) and not _is_number(one) else (one, other)
        if not _is_number(number) or not isinstance(name, str) or not name:
            raise ValueError(
                f"found {one!r}: {other!r}; accepted: a number from 0 and a name as text, in quotes where it looks like something else"
            )
        if int(number) in found:
            raise ValueError(
                f"found the number {int(number)} twice, of {found[int(number)]!r} and of {name!r}; accepted: each once"
            )
        found[int(number)] = name
    missing = next((number for number in range(len(found)) if number not in found), None)
    if not found or missing is not None:
        what = "an empty mapping" if not found else f"no name for class {missing}"
        raise ValueError(f"{what}; accepted: the numbers from 0 on, without gaps")
    return tuple(found[number] for number in range(len(found)))


def _is_number(value: Any) -> bool:
    """Of a class: 7, and "7" as JSON has it."""
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return is_digits or (type(value) is int and value >= 0)
