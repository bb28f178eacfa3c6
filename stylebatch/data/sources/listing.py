"""Lists contents and styles: all items of a source, checked, with the sources that read them and what is told of them."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from stylebatch.data.image_section import ContentSpec, SourceSpec
from stylebatch.data.one_look import one_look
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.places import is_folder
from stylebatch.data.sources.captions import with_captions
from stylebatch.data.sources.choosing import chosen
from stylebatch.data.sources.further import joined_types, types_of
from stylebatch.data.sources.kinds import kind_of, name_of, open_source
from stylebatch.data.sources.masks import with_masks, with_segmentation
from stylebatch.data.sources.object_choice import Sifter
from stylebatch.data.sources.origins import with_origins
from stylebatch.data.sources.source import Item, Source, Sources
from stylebatch.data.sources.splitting import (
    NO_SPLITS,
    SplitBy,
    is_whole,
    parts_of,
    reading,
    split_of,
    with_column,
)
from stylebatch.data.tables.reader import require_text
from stylebatch.errors import ManifestError
from stylebatch.paths import plain_path

NAMED = 6


@dataclass(frozen=True)
class Listing:
    """Images, the sources that read them, and notes for people."""

    items: list[Item]
    sources: Sources
    notes: tuple[str, ...]


@one_look()
def list_images(source: Source) -> Listing:
    """Images of a source. Raises ManifestError, naming its field, when nothing is found or two have the same id."""
    parts = parts_of(source) if is_whole(source) else []
    if parts:
        return _list_parts(source, parts, in_splits=False)
    sifter = Sifter(source)
    items = sifter.sifted(_checked(source))
    if not items:
        what = (
            f"no image files ({', '.join(sorted(IMAGE_SUFFIXES))})"
            if is_folder(source.uri) or name_of(source) == "store"
            else "no rows"
        )
        counts = source.passed_over()
        passed = ", ".join(f"{count} {reason}" for reason, count in counts.most_common(NAMED))
        raise ManifestError(
            f"{source.field}.path: found {what} in {source.uri}; accepted: at least one image"
            + (f" (passed over: {passed})" if passed else "")
        )
    left_out = sifter.end()
    items, told = chosen(items, source)
    kind = f"{source.field}: read as {name_of(source)}"
    return Listing(items, Sources.of(source), (kind, *source.notes(), *left_out, *told))


@one_look()
def list_styles(spec: SourceSpec, by: SplitBy = NO_SPLITS) -> Listing:
    """Styles of a folder or a table, the rows of a blend as one."""
    return _list_split(open_source(spec.path, "styles", spec), by)


@one_look()
def list_contents(
    spec: ContentSpec, by: SplitBy = NO_SPLITS, classes: Sequence[str] | None = None
) -> Listing:
    """Contents with their masks (those of rows, and those of the folder for rows that name none) and label images.

    Raises ManifestError as `list_images`, and for a content without mask or label image.
    """
    source = open_source(spec.path, "contents", spec)
    source.class_names = tuple(classes or ())
    listed = _list_split(source, by)
    if spec.masks is not None:
        listed = _beside(listed, spec.masks, "contents.masks", with_masks)
    if spec.segmentation is not None:
        listed = _beside(listed, spec.segmentation, "contents.segmentation", with_segmentation)
    return _with_like_members(listed)


def _with_like_members(listed: Listing) -> Listing:
    """Contents that all have a label image, or none: each sample of a dataset has the same members."""
    count = sum(item.segmentation is not None for item in listed.items)
    if count in (0, len(listed.items)):
        return listed
    items = [replace(item, segmentation=None) for item in listed.items]
    note = f"contents: {count:,} of {len(items):,} images have a label image, so that none is used"
    return replace(listed, items=items, notes=(*listed.notes, note))


def _beside(
    listed: Listing, uri: str, field: str, combine: Callable[[Sequence[Item], Source], list[Item]]
) -> Listing:
    """Contents with what lies in a folder of like paths."""
    if kind_of(uri) in (None, "table"):
        what = field.partition(".")[2]
        raise ManifestError(f"{field}: found no folder {uri}; accepted: a folder of {what}")
    source = open_source(uri, field)
    items = combine(listed.items, source)
    return Listing(items, listed.sources | Sources.of(source), (*listed.notes, *source.notes()))


def _list_split(source: Source, by: SplitBy) -> Listing:
    """As `list_images`, with the split of each item where `by` says so; limits then hold for each split."""
    if by.column is not None:
        reader = reading(source, by.column)
        listed = list_images(reader)
        source.types, source.class_lists = reader.types, reader.class_lists
        in_splits = with_column(listed.items, reader, by.column)
        return Listing(in_splits, Sources.of(source), listed.notes)
    if not by.source:
        listed = list_images(source)
        return replace(listed, items=with_origins(listed.items, source)) if by.origins else listed
    return _list_parts(source, parts_of(source), in_splits=True)


def _list_parts(source: Source, parts: Sequence[Source], *, in_splits: bool) -> Listing:
    """Images of all splits of a source: each with its split, within which limits hold, or as one."""
    sifter = Sifter(source)
    listed = [(part, sifter.sifted(_checked(part))) for part in parts]
    everything = [
        replace(item, split=split_of(part)) if in_splits else item
        for part, items in listed
        for item in items
    ]
    splits = (split_of(part) for part, items in listed for _ in items)
    _require_unique(everything, f"{source.field}.path: {source.uri}", splits)
    items: list[Item] = []
    notes: dict[str, list[str]] = {}
    for part, found in listed:
        told = part.notes()
        if in_splits:
            name = split_of(part)
            kept, of_choice = chosen([i for i in everything if i.split == name], part, everything)
            items += kept
            told += of_choice
            if found and not kept:
                told.append(f"{source.field}: no image of it is left, so that it is not made")
        for note in told:
            notes.setdefault(note, []).append(split_of(part))
    of_all: list[str] = []
    if not in_splits:
        items, of_all = chosen(everything, source)
    if not items:
        raise source.fault("found no images in its splits; accepted: at least one")
    source.types = joined_types([part.types for part, _ in listed])
    for one in itertools.chain.from_iterable(part.class_lists for part, _ in listed):
        source.learn_classes(one.where, one.names, of_objects=one.of_objects)
    how = (
        "split by split" if in_splits else f"all splits ({', '.join(map(split_of, parts))}) as one"
    )
    kind = f"{source.field}: read as {name_of(source)}, {how}"
    told = [*_of_splits(source, notes), *of_all, *sifter.end()]
    return Listing(items, Sources.of(source), (kind, *told))


def _of_splits(source: Source, notes: Mapping[str, list[str]]) -> Iterator[str]:
    """What is told of some splits, with their names; what the source says as a whole without."""
    of_whole, field = source.notes(), f"{source.field}: "
    yield from of_whole
    for note, splits in notes.items():
        if note not in of_whole:
            each = ", each" if len(splits) > 1 else ""
            yield f"{source.field} ({', '.join(splits)}{each}): {note.removeprefix(field)}"


def _checked(source: Source) -> list[Item]:
    """Items, each with a name of its own, and all with texts that UTF-8 can hold."""
    where = f"{source.field}.path: {source.uri}"
    items: list[Item] = []
    for number, item in enumerate(_uncollected(source.items()), 1):
        # A quick test first, since most texts are ASCII.
        if not (
            item.id.isascii() and item.label.isascii()
            and item.caption.isascii() and item.license.isascii()
        ):  # fmt: skip
            texts = (item.id, item.label, item.caption, item.license)
            require_text(f"{where}: image {number}", *texts)
        items.append(with_captions(item))
    _require_unique(items, where)
    _require_files_once(items, where)
    # A kind that reads further columns from where they are knows their types itself.
    if not source.types and any(item.extra for item in items):
        source.types = types_of(items)
    return items


def _uncollected(items: Iterator[Item]) -> Iterator[Item]:
    """The items, made without the collector, which would walk over a growing list again and again: no item is in a circle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield from items
    finally:
        if was_enabled:
            gc.enable()


def _require_files_once(items: Sequence[Item], where: str) -> None:
    """Raise ManifestError where a row names a file by a way from elsewhere, and another the same from the table's folder."""
    from_elsewhere = {
        plain_path(item.ref.place): item.id
        for item in items
        if not item.parts and (not item.ref.member or item.ref.member.startswith("../"))
    }
    for item in items if from_elsewhere else ():
        other = from_elsewhere.get(plain_path(item.ref.place), item.id)
        if other != item.id:
            raise ManifestError(
                f"{where}: {other!r} and {item.id!r} are one file; accepted: each image once"
            )


def _require_unique(items: Sequence[Item], where: str, splits: Iterable[str] = ()) -> None:
    """Raise ManifestError where two items have one id; `splits`: of the items, where these have some.

    A set of a million ids takes 50 MB, their hashes take 8.
    """
    import numpy as np  # which a manifest is checked without

    hashes = np.fromiter((hash(item.id) for item in items), np.int64, len(items))
    hashes.sort()
    if not (hashes[1:] == hashes[:-1]).any():
        return
    # Equal hashes may be chance: only then are the ids themselves compared.
    seen: dict[str, str] = {}
    for item, split in zip(items, itertools.chain(splits, itertools.repeat("")), strict=False):
        if seen.get(item.id, split) != split:
            raise ManifestError(
                f"{where}: {item.id!r} is in the splits {seen[item.id]} and {split}; accepted: each image in one"
            )
        if item.id in seen:
            raise ManifestError(
                f"{where}: {item.id!r} stands there twice; accepted: each image once"
            )
        seen[item.id] = split
