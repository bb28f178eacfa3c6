"""What a sample of ours was made from, where it is an input again: the id of the original, which decides about its split.

The records tell it, whatever holds them: tars, Parquet, the `metadata.jsonl` of files, and copies of these anywhere. A second
generation has it as `origin_id`, so that a third one knows the original as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.outputs import output_around
from stylebatch.data.sources.source import Item, Source
from stylebatch.errors import SampleError, StorageError

ORIGIN = "origin_id"
SIGNATURE = frozenset(("key", "method", "model", "seed", "sha256", "status"))
"""Columns by which records of ours are known."""
_OF_CONTENTS = (ORIGIN, "content_id", "image_id", "image")
# of sets and prompts, the split of a first generation follows from their names and texts
_OF_TEXTS = ("style", "prompt")
COLUMNS = {
    "content": (*_OF_CONTENTS, *_OF_TEXTS),
    "style": (f"style_{ORIGIN}", "style_id", *_OF_CONTENTS, *_OF_TEXTS),
}
"""Columns that may name the original, by what is read of a sample, the first that is there goes before the others."""
ALWAYS = SIGNATURE.union(*COLUMNS.values())
"""Further columns that are read whatever `carry` says."""


def is_read(name: str, options: SourceOptions) -> bool:
    """Whether a listing learns of a further column."""
    return options.carry != () or name in ALWAYS


def origin_column(source: Source) -> str:
    """The column that names the originals, "" where the source holds no samples of ours; known once all is listed."""
    if not source.types.keys() >= SIGNATURE:
        return ""
    # `image: style.jpg` reads the styles of samples
    read = (source.options.image or "").lstrip(".").partition(".")[0]
    of_field = "style" if source.field == "styles" else "content"
    names = COLUMNS[read if read in COLUMNS else of_field]
    return next((name for name in names if name in source.types), "")


def with_origins(items: list[Item], source: Source) -> list[Item]:
    """`items` with the ids of their originals, as far as there are any."""
    column = origin_column(source)
    if not column and "annotations" in source.takes:
        _refuse_annotated_output(source)
    return (
        [replace(item, origin=_origin(item, source, column)) for item in items] if column else items
    )


def _refuse_annotated_output(source: Source) -> None:
    """Annotations know no originals: those of an output's pictures would put copies of one into several splits."""
    output = output_around(source.uri)
    if output is not None:
        raise source.fault(
            f"found annotations of pictures in {output}, an output, with `split` by fractions: they do not tell which pictures were "
            f"made from one original; accepted: `path: {output}` without `annotations` and `kind`, whose records tell (objects are read "
            "from them as well), or `split: source`",
            "annotations",
        )


def _origin(item: Item, source: Source, column: str) -> str:
    try:
        found = source.further(item).get(column)
    except StorageError:
        raise
    except (SampleError, OSError):  # its picture tells
        return ""
    return found if isinstance(found, str) else ""


def key_of(item: Item) -> str:
    """What all that was made from one original has in common."""
    return item.origin or item.id


def originals_of(items: Sequence[Item]) -> int:
    """Count the originals that samples among `items` were made from."""
    return len({item.origin for item in items} - {""})
