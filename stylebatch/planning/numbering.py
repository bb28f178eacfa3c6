"""Which number each class has: the manifest, the output's earlier shards, the source or else the names' order say."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from stylebatch.data.sources.source import ClassList

MAX_DIGITS = 4000
"""Of a label that counts as a number: Python reads no number of more than 4,300."""


@dataclass(frozen=True)
class Numbering:
    """`names` of the classes by number, `words` for people; `is_plain`: the labels in use tell the numbers, by their order."""

    names: tuple[str, ...] = ()
    words: str = ""
    is_plain: bool = True


def numbering(
    used: set[str],
    *,
    given: tuple[str, ...] | None = None,
    lists: Sequence[ClassList] = (),
    before: tuple[str, ...] = (),
) -> Numbering:
    """Numbers of the labels in `used`: those that are `given`, else of classes in use `before`, then those of the source's `lists`.

    Where lists disagree, the first goes before the others, which add the names that it lacks. A list is heeded whole, with names
    that nothing uses.
    """
    by_order = class_names(used, before)
    if given is not None:
        unlike = _unlike(lists, given)
        told = f"; {_of(unlike)} otherwise" if unlike else ""
        told += _strangers(given, used, lists)
        return Numbering(given, f"classes: {len(given):,}, numbered as `classes` says{told}", False)
    if not by_order:
        return Numbering()
    listed = [name for one in lists for _, name in sorted(one.names)]
    names = class_names(used, tuple(dict.fromkeys((*before, *listed))))
    words = f"classes: {len(names):,}, numbered {_how(names, lists, before)}"
    return Numbering(names, words, names == by_order)


def class_names(used: set[str], before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Labels in class order: those `before`, then by number when all are whole numbers, else by name."""
    used = used - {"", *before}
    numeric = _are_numbers(used)
    new = sorted(used, key=lambda label: (int(label) if numeric else 0, label))
    return (*before, *new)


def _are_numbers(labels: set[str]) -> bool:
    return all(label.removeprefix("-").isdecimal() and len(label) <= MAX_DIGITS for label in labels)


def _how(names: tuple[str, ...], lists: Sequence[ClassList], before: tuple[str, ...]) -> str:
    """`as data.yaml does`, `by name`, ..."""
    if before or any(not one.where for one in lists):
        added = len(names) - len(before)
        return f"as in this output before{f', {added:,} added' if before and added else ''}"
    if not lists:
        return _by_order(names)
    first, unlike = lists[0], _unlike(lists[1:], names)
    is_same = not _unlike([first], names)
    how = f"as {first.where} does" if is_same else f"in the order of {first.where}"
    return f"{how}; {_of(unlike)} otherwise" if unlike else how


def _by_order(names: tuple[str, ...]) -> str:
    numbers = [name for name in names if _are_numbers({name})]
    if len(numbers) < len(names):
        few = ", ".join(numbers[:3]) + ", ..." * (len(numbers) > 3)
        told = f", numbers ({few}) among the names; `classes: {{0: NAME, ...}}` tells what they are"
        return f"by name{told if numbers else ''}"
    if names == tuple(map(str, range(len(names)))):
        return "as they are"
    most = max(map(int, names))
    kept = (
        f"; `classes: {most + 1}` keeps them" if min(map(int, names)) >= 0 and most < 10**6 else ""
    )
    return f"in the order of their numbers, so that {names[0]} becomes 0{kept}"


def _unlike(lists: Sequence[ClassList], names: Sequence[str]) -> list[ClassList]:
    """The lists that have another number for one of their names."""
    numbers = {name: number for number, name in enumerate(names)}
    return [one for one in lists if any(numbers.get(name) != n for n, name in one.names)]


def _strangers(given: Sequence[str], used: set[str], lists: Sequence[ClassList]) -> str:
    """Names that the source does not have, which may be misspelt."""
    known = used.union(name for one in lists for _, name in one.names)
    strange = [name for name in given if name not in known]
    if not strange or not lists or any(one.is_chosen for one in lists):
        return ""
    close = difflib.get_close_matches(strange[0], sorted(known), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    more = f" and {len(strange) - 1} more are" if len(strange) > 1 else " is"
    return f"; {strange[0]!r}{hint}{more} not among its names"


def _of(lists: Sequence[ClassList]) -> str:
    more = f" and {len(lists) - 1} more number" if len(lists) > 1 else " numbers"
    return f"{lists[0].where}{more} them"
