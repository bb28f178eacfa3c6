"""Further columns of contents and styles that go along to the records: their names there, so that none meets one of ours."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from stylebatch.data.sources.origins import ORIGIN, origin_column
from stylebatch.data.sources.source import Source, Sources
from stylebatch.data.tables.table_columns import shown
from stylebatch.errors import ManifestError
from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.methods.method import RECORD_COLUMNS, MethodOptions
from stylebatch.planning.axes import Axis, ImageAxis
from stylebatch.quality.asked import TABLE

MOST_COLUMNS = 200
NAMED = 12
SOURCES = {"content": "contents", "image": "contents", "style": "styles", "prompt": "prompts"}
"""Sections of the manifest whose images or rows stand along an axis."""
OF_PAIRS = -1
_PICTURES = ("image", "input_image", "segmentation", *(kind.name for kind in INPUT_KINDS))
TAKEN = frozenset(
    (
        *RECORD_COLUMNS,
        *(measure.column for measure in TABLE),
        *(name for picture in _PICTURES for name in (picture, f"{picture}_id", f"{picture}_path")),
        *("objects", "transform", "split", "attempt", "file_name", "input_files", "input_sha256"),
        *("jpg", "png", "webp", "avif", "json", "txt", "cls", "__key__", "__url__"),
    )
)
"""Names that columns of records and members of samples have, or will."""


class CarriedColumn(NamedTuple):
    """A column of the records, with the type that `data/sources/further.py` gives it; `name`: in the source of the axis.

    `axis`: its number, or OF_PAIRS for a column of a list of pairs.
    """

    column: str
    kind: str
    axis: int
    name: str


def carried_columns(
    axes: Sequence[Axis], sources: Sources, options: MethodOptions
) -> tuple[CarriedColumn, ...]:
    """What goes along, in the order of the axes and of the names. Raises ManifestError for a column that no image has."""
    taken = {name.lower() for name in (*TAKEN, *options.record_types(blends=True))}
    found: list[CarriedColumn] = []
    for number, source in _sources(axes, sources):
        is_image = number != OF_PAIRS and isinstance(axes[number], ImageAxis)
        origin = origin_column(source) if is_image else ""
        if origin:
            column = f"style_{ORIGIN}" if axes[number].name == "style" else ORIGIN
            found.append(CarriedColumn(column, "string", number, origin))
        for name, kind in _wanted(source).items():
            if name == origin:
                continue
            column = _free(name, "pair" if number == OF_PAIRS else axes[number].name, taken)
            taken.add(column.lower())
            found.append(CarriedColumn(column, kind, number, name))
    return tuple(found)


def notes_on_carried(
    columns: Sequence[CarriedColumn], axes: Sequence[Axis], sources: Sources
) -> Iterator[str]:
    """What goes along, what does under another name, and what does not."""
    for number, source in _sources(axes, sources):
        own = [one for one in columns if one.axis == number]
        if own:
            names = [
                shown(one.name, 40) + ("" if one.column == one.name else f" as {one.column}")
                for one in own
            ]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            yield f"{source.field}: columns carried to the records: {', '.join(names[:NAMED])}{more}"
        if len(source.types) > MOST_COLUMNS and source.options.carry is None:
            yield (
                f"{source.field}: {len(source.types):,} further columns, which is too many to be carried; name up to {MOST_COLUMNS} with "
                "`carry: [NAME, ...]`"
            )


def _sources(axes: Sequence[Axis], sources: Sources) -> Iterator[tuple[int, Source]]:
    """Numbers of axes, and the sources that these come from; last the list of pairs, where there is one."""
    for number, axis in enumerate(axes):
        source = sources.by_field.get(SOURCES.get(axis.name, ""))
        if source is not None:
            yield number, source
    if "pairing" in sources.by_field:
        yield OF_PAIRS, sources.by_field["pairing"]


def _wanted(source: Source) -> Mapping[str, str]:
    """Types of the columns that the options take, which is all unless they name some."""
    types, names = source.types, source.options.carry
    if names is None:
        # JSON with a key per sample would make a column of each
        return types if len(types) <= MOST_COLUMNS else {}
    for name in names:
        if name not in types:
            raise _unknown(source, name)
    if len(names) > MOST_COLUMNS:
        raise source.fault(f"found {len(names)} columns; accepted: at most {MOST_COLUMNS}", "carry")
    return {name: types[name] for name in names}


def _unknown(source: Source, name: str) -> ManifestError:
    close = difflib.get_close_matches(name, source.types, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(shown(one, 40) for one in list(source.types)[:NAMED])
    return source.fault(
        f"found {name!r}, which no image has; {hint}accepted: {known or 'none, since there are no further columns'}",
        "carry",
    )


def _free(name: str, axis: str, taken: Collection[str]) -> str:
    """The name in the records: of styles with `style_` before it, of contents so where one of ours has it."""
    # queries do not tell small letters from capital ones
    column = f"{axis}_{name}" if axis == "style" or name.lower() in taken else name
    if column.lower() in taken:
        # COCO's `id` is not `content_id`, which is ours
        column = f"{axis}_source_{name}"
    while column.lower() in taken:
        column += "_"
    return column
