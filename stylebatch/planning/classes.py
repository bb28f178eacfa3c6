"""Classes that a manifest names: they fix the class numbers of every run that does, whatever labels its images have."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stylebatch.data.sources.path_items import with_facts
from stylebatch.data.sources.source import Item
from stylebatch.data.tables.table_columns import shown
from stylebatch.documents import DocumentError, parse
from stylebatch.errors import ManifestError
from stylebatch.spec.class_names import names_by_number

NAMED = 12
MOST_BYTES = 1 << 24


def class_list(given: tuple[str, ...] | int | str | None) -> tuple[str, ...] | None:
    """Names by number, of a list, a count or a file; None where the manifest names none.

    Raises ManifestError for a file that cannot be read, and for a name that stands there twice.
    """
    if given is None:
        return None
    where = "classes"
    if isinstance(given, str):
        where, given = f"classes: {given}", _of_file(given)
    # a count stands for labels that are numbers already: 7 stays 7
    names = tuple(map(str, range(given))) if isinstance(given, int) else given
    counts = Counter(names)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ManifestError(f"{where}: found {twice!r} twice; accepted: each class once")
    if not names or not all(names):
        what = f"no name for class {names.index('')}" if names else "no names"
        raise ManifestError(f"{where}: found {what}; accepted: a name for each class, in order")
    return names


def named_items(items: Sequence[Item], classes: Sequence[str] | None, field: str) -> Sequence[Item]:
    """Images with labels that are names of classes, where some are given. Raises ManifestError for a label that is none of them."""
    if classes is None:
        return items
    told = with_facts(items)
    # Tars have numbers of classes in `cls`, and names in the objects beside them.
    images = names_of(Counter(item.label for item in told), classes, field)
    regions = (region.label for item in told for region in item.regions)
    objects = names_of(Counter(regions), classes, field)
    if all(label == name for names in (images, objects) for label, name in names.items()):
        return items
    return tuple(_named(item, images, objects) for item in items)


def names_of(used: Mapping[str, int], classes: Sequence[str], field: str) -> dict[str, str]:
    """Class name of each label. Where no label is a name, and all are whole numbers, they are numbers of classes."""
    labels = [label for label in used if label]
    known = frozenset(classes)
    if labels and not known.intersection(labels) and all(_is_number(label) for label in labels):
        beyond = [label for label in labels if int(label) >= len(classes)]
        if beyond:
            raise ManifestError(
                f"{field}: found the class number {beyond[0]} ({used[beyond[0]]} times); accepted: numbers below {len(classes)}, as "
                "many as there are `classes`"
            )
        return {label: classes[int(label)] for label in labels} | {"": ""}
    require_names(used, classes, field)
    return {label: label for label in used}


def require_names(used: Iterable[str], classes: Sequence[str], field: str) -> None:
    """Raise ManifestError for a label that is none of `classes`; "" is none at all. `used`: labels, or how often each is used."""
    known = frozenset(("", *classes))
    unknown = [label for label in used if label not in known]
    if unknown:
        label = unknown[0]
        times = f" ({used[label]} times)" if isinstance(used, Mapping) else ""
        # Of numbers any two are alike, and near ones are others.
        close = [] if _is_number(label) else difflib.get_close_matches(label, classes, n=1)
        hint = f"{close[0]!r} is like it: one of the two may be misspelt; " if close else ""
        more = f", and {len(unknown) - 1} more such labels" if len(unknown) > 1 else ""
        listed = ", ".join(shown(name, 40) for name in classes[:NAMED])
        listed += f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
        raise ManifestError(
            f"{field}: found the label {shown(label, 80)!r}{times}{more}, which is none of `classes`; {hint}accepted: "
            f"{listed}, or none. Next: add it to `classes`, or leave such images out, as with `contents.labels`, or objects, with "
            "`contents.objects`"
        )


def _named(item: Item, images: Mapping[str, str], objects: Mapping[str, str]) -> Item:
    regions = tuple(replace(region, label=objects[region.label]) for region in item.regions)
    return replace(item, label=images[item.label], regions=regions)


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal() and len(label) < 10


def _of_file(path: str) -> tuple[str, ...]:
    """A name a line; or JSON or YAML: a list, or a mapping of numbers and names, also under `names` as YOLO's data.yaml has it."""
    where = f"classes: {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES)
    except OSError as error:
        raise ManifestError(
            f"{where}: cannot be read: {error.strerror}; accepted: a list of names, or a file with a name a line"
        ) from None
    if os.path.splitext(path)[1].lower() in (".json", ".yaml", ".yml"):
        try:
            found = parse(data)
        except DocumentError as error:
            raise ManifestError(f"{where}: {error}") from None
        return _of_document(found["names"] if _has_names(found) else found, where)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ManifestError(f"{where}: is no text in UTF-8; accepted: a name a line") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _has_names(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("names"), list | dict)


def _of_document(found: Any, where: str) -> tuple[str, ...]:
    if isinstance(found, list):
        wrong = next((n for n in found if not isinstance(n, str) and type(n) is not int), None)
        if wrong is None:
            return tuple(map(str, found))
        raise ManifestError(
            f"{where}: found {wrong!r} among the names; accepted: texts, in quotes where they look like something else"
        )
    try:
        if isinstance(found, dict):
            return names_by_number(found)
    except ValueError as error:
        raise ManifestError(f"{where}: {error}") from None
    raise ManifestError(
        f"{where}: accepted: a list of names, or a mapping of the numbers from 0 on, without gaps, to names"
    )
