"""A folder of masks for contents: the mask of `cat/1.jpg` is `cat/1.png` of the folder, with any suffix of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from stylebatch.data.sources import ImageRow, image_files, list_images
from stylebatch.errors import ManifestError
from stylebatch.spec import ContentSource

NAMED = 3


def list_contents(source: ContentSource) -> list[ImageRow]:
    """Contents of a folder or table with their masks: those of rows, and those of the folder for rows that name none.

    Raises ManifestError as `list_images`, and for a content without mask.
    """
    rows = list_images(source.path, "contents")
    return rows if source.masks is None else with_masks(rows, Path(source.masks))


def with_masks(contents: Sequence[ImageRow], folder: Path) -> list[ImageRow]:
    """`contents` with the masks of `folder`, by path without suffix; masks of no content are passed over.

    Raises ManifestError for a content without mask, and for two masks of one.
    """
    if not folder.is_dir():
        raise ManifestError(
            f"contents.masks: found no folder {folder}; accepted: a folder of masks"
        )
    masks: dict[str, ImageRow] = {}
    for mask in image_files(folder):
        other = masks.setdefault(_stem(mask), mask)
        if other is not mask:
            raise ManifestError(
                f"contents.masks: {folder}: found {other.id} and {mask.id}, which name one content; accepted: one mask each"
            )
    missing = [row.id for row in contents if not row.mask and _stem(row) not in masks]
    if missing:
        named = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        example = folder / f"{PurePosixPath(missing[0]).with_suffix('.png')}"
        raise ManifestError(
            f"contents.masks: {folder}: found no mask for {len(missing)} of {len(contents)} contents ({named}); accepted: an "
            f"image of the content's path in that folder, with any suffix, such as {example}. Next: add it; a mask that is "
            "white all over means everywhere"
        )
    return [row if row.mask else replace(row, mask=masks[_stem(row)].path) for row in contents]


def _stem(row: ImageRow) -> str:
    return PurePosixPath(row.id).with_suffix("").as_posix()
