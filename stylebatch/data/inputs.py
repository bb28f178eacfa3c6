"""Loads an item: its image, its mask, or the images of a blend, all fitted to the run's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from stylebatch.data.fit_modes import NATIVE
from stylebatch.data.geometry import Size
from stylebatch.data.image_section import ImageSpec
from stylebatch.data.images import Component, Picture, Pixels, fit, load_image
from stylebatch.data.label_images import fitted_labels
from stylebatch.data.labels import fitted, unseen
from stylebatch.data.reading import Reader, hash_of, read_picture
from stylebatch.data.source_sizes import Sizes
from stylebatch.data.sources.source import NOWHERE, Item, Part, Ref
from stylebatch.data.view import View
from stylebatch.errors import SampleError
from stylebatch.pixel_memory import image_of
from stylebatch.words import counted, is_or_are

ASPECT_TOLERANCE = 0.02
UNASKED = (0, 0)
"""Of an image whose size was not asked for."""
CROPPED = {"mode": "center_crop"}


def load_input(
    item: Item,
    reader: Reader,
    size: int | Size | tuple[Size, ...],
    image: ImageSpec,
    expected: Sizes = (),
) -> Picture:
    """The picture of an item, fitted to a square's side, or width and height, of the images of a blend one by one.

    `expected`: what each image measured when it was listed, for the modes in which that decides about `size`. Raises SampleError as
    `load_image`, naming the image.
    """
    loaded = [
        _load(ref, reader, one, image, name, *expected[i : i + 1])
        for i, ((name, ref), one) in enumerate(
            zip(_images(item), _repeated(size, len(item.parts) or 1), strict=True)
        )
    ]
    if item.parts:
        return _blended(item.parts, loaded)
    picture, name = loaded[0], f"mask of {item.id}"
    if item.mask is None:
        return picture
    fitting = image.of_masks
    if picture.is_cropped:
        fitting = fitting.model_copy(update=CROPPED)
    height, width = picture.pixels.shape[:2]
    mask = load_image(item.mask, reader, (width, height), fitting, name=name)
    return _with_mask(item, picture, mask, name)


def _images(item: Item) -> list[tuple[str, Ref]]:
    return [(part.id, part.ref) for part in item.parts or (item,)]


def _repeated(size: int | Size | tuple[Size, ...], count: int) -> Sequence[int | Size]:
    """The size of each of `count` images."""
    if isinstance(size, int):
        return [size] * count
    first, *_ = size
    return [cast(Size, size)] * count if isinstance(first, int) else cast(tuple[Size, ...], size)


def _load(
    ref: Ref,
    reader: Reader,
    size: int | Size,
    image: ImageSpec,
    name: str,
    expected: Size | None = UNASKED,
) -> Picture:
    """An image. One that does not measure what its listing or header said loses what is outside the size that was planned for it."""
    picture = load_image(ref, reader, size, image, name=name)
    found = (picture.original_width, picture.original_height)
    if image.mode not in NATIVE or expected in (UNASKED, found):
        return picture
    # Stretched to a size of other proportions it would be no picture of its subject.
    picture = load_image(ref, reader, size, image.model_copy(update=CROPPED), name=name)
    said = "of unknown size" if expected is None else "{} x {} pixels".format(*expected)
    note = f"{name}: {found[0]} x {found[1]} pixels, planned as {said}: its middle is used"
    return replace(picture, notes=(*picture.notes, note), is_cropped=True)


def load_labelled(
    item: Item,
    reader: Reader,
    size: int | Size | tuple[Size, ...],
    image: ImageSpec,
    expected: Sizes = (),
) -> Picture:
    """As `load_input`, with the item's objects and its label image where they are in the fitted picture.

    Raises SampleError also for annotations of another picture.
    """
    picture = load_input(item, reader, size, image, expected)
    if picture.transform is None or not (item.regions or item.segmentation):
        return picture
    displayed = (picture.original_width, picture.original_height)
    view = View(displayed, picture.orientation, picture.transform)
    objects = fitted(item.regions, view, min_visibility=image.min_visibility, name=item.id)
    picture = replace(picture, objects=objects)
    if len(objects) < len(item.regions) and (gone := unseen(item.regions, view, item.id)):
        lost = f"{gone:,} of {counted(len(item.regions), 'object')} {is_or_are(gone)}"
        note = f"{item.id}: {lost} outside the picture or without area, and left out"
        picture = replace(picture, notes=(*picture.notes, note))
    if item.segmentation is None:
        return picture
    name = f"{item.id}: segmentation"
    data = read_picture(reader, item.segmentation, name)
    labels = fitted_labels(data, view, name)
    files = (*picture.files, (name, hash_of(data)))
    return replace(picture, segmentation=labels, files=files)


def files_of(item: Item) -> Iterator[tuple[str, Ref]]:
    """Name and place of each file that `load_input` reads, by the names that `Picture.files` has."""
    # A row of prompts that names no image has no file of its own.
    if item.parts or item.ref != NOWHERE:
        yield from ((part.id, part.ref) for part in item.parts or (item,))
    if item.mask is not None:
        yield _mask_file(item), item.mask
    if item.segmentation is not None:
        yield f"{item.id}: segmentation", item.segmentation


def _mask_file(item: Item) -> str:
    """An image may come with several masks."""
    return f"{item.id}: mask {item.mask_id}"


def _blended(parts: tuple[Part, ...], loaded: list[Picture]) -> Picture:
    """The picture of a blend shows its images as columns, as wide as their weights, and has the size of the first."""
    height, width = loaded[0].pixels.shape[:2]
    # Edges are rounded, not widths, so that the columns always add up to the whole width.
    edges = np.round(np.cumsum([0.0] + [part.weight for part in parts]) * width).astype(int)
    # Images of a blend may have sizes of their own.
    shown = [fit(image_of(one.pixels), (width, height), "resize") for one in loaded]
    columns = [pixels[:, edges[i] : edges[i + 1]] for i, pixels in enumerate(shown)]
    components = tuple(
        Component(part.id, picture.pixels, part.weight)
        for part, picture in zip(parts, loaded, strict=True)
    )
    return replace(
        loaded[0],
        pixels=np.concatenate(columns, axis=1),
        components=components,
        notes=tuple(note for picture in loaded for note in picture.notes),
        files=tuple(file for picture in loaded for file in picture.files),
    )


def _with_mask(item: Item, content: Picture, mask: Picture, name: str) -> Picture:
    """The content with the luma of its mask, (H, W), fitted like the content, whose proportions it must have."""
    ratio = (mask.original_width * content.original_height) / (
        mask.original_height * content.original_width
    )
    if abs(ratio - 1.0) > ASPECT_TOLERANCE:
        raise SampleError(
            "mask",
            f"{name}: {mask.original_width} x {mask.original_height} pixels; accepted: the proportions of its image, "
            f"{content.original_width} x {content.original_height}",
        )
    luma: Pixels = np.round(mask.pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    files = tuple((_mask_file(item), xxh3) for _, xxh3 in mask.files)
    return replace(
        content, mask=luma, notes=content.notes + mask.notes, files=content.files + files
    )
