"""A folder of masks, or of label images, for contents: that of `cat/1.jpg` is `cat/1.png` of the folder, with any suffix of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from stylebatch.data.sources.source import Item, Ref, Source
from stylebatch.errors import ManifestError

NAMED = 3


def with_masks(contents: Sequence[Item], source: Source) -> list[Item]:
    """`contents` with the masks of `source`, by id without suffix; masks of no content are passed over.

    Raises ManifestError for a content without mask, and for two masks of one.
    """
    bare = [row for row in contents if row.mask is None]
    advice = "Next: add it; a mask that is white all over means everywhere"
    masks = _by_stem(bare, source, len(contents), "mask", advice)
    return [row if row.mask else replace(row, mask=masks[_stem(row)]) for row in contents]


def with_segmentation(contents: Sequence[Item], source: Source) -> list[Item]:
    """`contents` with their label images, as `with_masks`."""
    found = _by_stem(contents, source, len(contents), "label image", "Next: add it")
    return [replace(row, segmentation=found[_stem(row)]) for row in contents]


def _by_stem(
    wanted: Sequence[Item], source: Source, total: int, what: str, advice: str
) -> dict[str, Ref]:
    """Images of `source` by the ids of `wanted` without suffix."""
    images: dict[str, Item] = {}
    for image in source.items():
        other = images.setdefault(_stem(image), image)
        if other is not image:
            raise ManifestError(
                f"{source.field}: {source.uri}: found {other.id} and {image.id}, which name one content; accepted: one {what} each"
            )
    missing = [row.id for row in wanted if _stem(row) not in images]
    if missing:
        named = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        example = f"{source.uri}/{PurePosixPath(missing[0]).with_suffix('.png')}"
        raise ManifestError(
            f"{source.field}: {source.uri}: found no {what} for {len(missing)} of {total} contents ({named}); accepted: an "
            f"image of the content's path in that folder, with any suffix, such as {example}. {advice}"
        )
    return {stem: image.ref for stem, image in images.items()}


def _stem(row: Item) -> str:
    return PurePosixPath(row.id).with_suffix("").as_posix()
