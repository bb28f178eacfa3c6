"""Lists prompts with the images that they go with: those of `contents`, or those that rows name; and the sets they are in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.prompt_section import PromptSource
from stylebatch.data.rows import Cell
from stylebatch.data.sources.listing import Listing, list_contents
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.prompt_rows import IMAGE_COLUMNS, PromptRows
from stylebatch.data.sources.source import NOWHERE, Item, Ref, Sources
from stylebatch.data.tables.table_columns import shown
from stylebatch.errors import ManifestError
from stylebatch.methods.input_kinds import TEXT
from stylebatch.methods.method import MethodOptions
from stylebatch.planning.axes import Axis, ImageAxis, PromptAxis
from stylebatch.planning.classes import named_items, require_names
from stylebatch.planning.overview import MAX_TRIED, classes_and_captions, lost_refs
from stylebatch.planning.prompts import MAX_PROMPTS, MAX_SEED, PromptRow, Prompts
from stylebatch.planning.split_axes import split_by
from stylebatch.spec import RunSpec

Listed = tuple[
    tuple[Axis, ...], Sources, tuple[Cell, ...] | None, tuple[int, ...] | None, tuple[str, ...]
]
"""Axes, what reads the images, the cells where they are listed, the set of each prompt, and notes."""


@dataclass
class NamedImages:
    """Images that rows and the section name, by column and id."""

    refs: dict[str, dict[str, Ref]] = field(
        default_factory=lambda: {name: {} for name in IMAGE_COLUMNS}
    )

    def claim(self, place: object, column: str, id_: str, ref: Ref) -> None:
        """Give an image its id in a column. Raises ManifestError where another image has it."""
        taken = self.refs[column].setdefault(id_, ref)
        if not taken.is_same_as(ref):
            raise ManifestError(
                f"{place}: {column}: found {id_!r} for {ref.place}, which names {taken.place} elsewhere; accepted: one file by each name. "
                "Next: rename one of the two, or move it"
            )


class SeededRow(NamedTuple):
    """A row of a file, and the seed that it gives."""

    row: PromptRow
    seed: int | None


def list_prompts(spec: RunSpec, classes: tuple[str, ...] | None = None) -> Listed:
    """The prompts of a run, with labels that are names of `classes`, where some are given.

    Raises ManifestError, naming file, row, field, what was found and what is accepted.
    """
    source, method = spec.prompts, spec.options
    if source is None or TEXT not in method.axes():
        raise ManifestError("prompts: missing; accepted: rows or a template")
    contents = None
    if spec.contents is not None:
        contents = list_contents(spec.contents, split_by(spec, "contents"), classes)
        items = list(named_items(contents.items, classes, "contents.path"))
        contents = replace(contents, items=items)
    named = NamedImages()
    reader: PromptRows | LocalFiles = LocalFiles("", "prompts")
    rows: list[SeededRow] = []
    notes: list[str] = [] if contents is None else list(contents.notes)
    if source.path is not None:
        reader = _rows_at(source.path, source, method)
        # one more than is accepted tells that there are too many, without reading on
        rows = list(itertools.islice(_of_file(reader, named), MAX_PROMPTS + 1))
        notes += reader.notes()
    defaults = {name: _shared(source, name, named) for name in IMAGE_COLUMNS}
    prompts = Prompts(
        source,
        spec.seed,
        tuple(row for row, _ in rows),
        tuple(seed for _, seed in rows),
        defaults,
        over_images=contents is not None,
    )
    _require_few(prompts)
    if classes is not None:
        require_names(prompts.labels, classes, "prompts")
    _require_texts(prompts, method, contents)
    _require_single_ids(prompts, contents)
    sources = Sources.of(reader) | (contents.sources if contents else Sources({}))
    axis = PromptAxis(prompts)
    if contents is not None:
        images = _over(spec, method, contents, prompts, named)
        summary = (_overview(prompts, contents), *notes, *_lost(named, sources))
        return (images, axis), sources, _masked_by_rows(prompts, images), None, summary
    summary = (_overview(prompts, None), *notes, *_lost(named, sources))
    if method.inputs:
        images, cells = _own_images(prompts, named)
        return (images, axis), sources, cells, None, summary
    if method.uses_sets:
        return *_in_sets(axis, named, sources), summary
    return (axis,), sources, None, None, summary


def _rows_at(path: str, source: PromptSource, method: MethodOptions) -> PromptRows:
    carried = SourceOptions(carry=source.carry)
    return PromptRows(path, method.inputs, uses_sets=method.uses_sets, options=carried)


def _require_few(prompts: Prompts) -> None:
    count = len(prompts)
    if count > MAX_PROMPTS:  # counted, never made: lists of a template multiply
        found = f"{count:,}" if count < 10**12 else "over 10^12"
        raise ManifestError(
            f"prompts: found {found} samples (rows or combinations of `values`, times per_prompt); "
            f"accepted: at most {MAX_PROMPTS:,}, over images as many for each. Next: shorten the lists, or split the run into several "
            "manifests"
        )


def _require_texts(prompts: Prompts, method: MethodOptions, contents: Listing | None) -> None:
    """Raise ManifestError for a row without prompt or without an image that the method asks for."""
    if not len(prompts):
        raise ManifestError(
            f"prompts.path: {prompts.source.path}: found no rows; accepted: at least one"
        )
    for image in contents.items if contents is not None and prompts.names_of_images else ():
        prompts.at(0, image)  # raises where a text needs a label or caption that the image lacks
    if prompts.source.template is not None:
        prompts.at(0)
    needed = [name for name in method.inputs if not prompts.defaults[name]]
    if contents is not None and "image" in method.inputs:
        needed.remove("image")
    for name in ("prompt", *needed):
        lacks = [row.number for row in prompts.rows if not getattr(row, name)]
        if prompts.source.template is not None and name != "prompt":
            lacks = [1]
        if not lacks:
            continue
        place = f"{_where(prompts.source)} {lacks[0]}"
        if name == "mask" and contents is not None:
            without = next((item.id for item in contents.items if item.mask is None), None)
            if without is None:
                continue
            place += f", image {without}"
        raise ManifestError(
            f"{place}: {name}: found nothing; accepted: "
            + ("a text" if name == "prompt" else "the path of an image, in every row")
        )


def _require_single_ids(prompts: Prompts, contents: Listing | None) -> None:
    """Raise ManifestError for an `id` that two samples would have."""
    given: dict[str, int] = {}
    for row in prompts.rows:
        if row.id and given.setdefault(row.id, row.number) != row.number:
            _refuse_id(prompts.source, row)
    images = set() if contents is None else {item.id for item in contents.items}
    for row in prompts.rows if images else ():  # a/b over c, and a over b/c, are both a/b/c
        for at in (at for at, letter in enumerate(row.id) if letter == "/"):
            rest = row.id[at + 1 :]
            if row.id[:at] in given and any(f"{rest}/{image}" in images for image in images):
                _refuse_id(prompts.source, row)


def _refuse_id(source: PromptSource, row: PromptRow) -> None:
    raise ManifestError(
        f"{_where(source)} {row.number}: id: found {row.id!r}, which stands there twice; accepted: each id once, or no column `id`"
    )


def _where(source: PromptSource) -> str:
    return f"{source.path}: row" if source.path else "prompts.template: combination"


def _overview(prompts: Prompts, contents: Listing | None) -> str:
    """Classes and captions of the samples, of the images where prompts have no classes of their own."""
    labels = [row.label for row in prompts.rows]
    if prompts.source.template is not None:
        labels = [row.label for row in prompts] if prompts.source.label else [""] * len(prompts)
    if prompts.source.template is None:
        labels = [label for label in labels for _ in range(prompts.source.per_prompt)]
    if contents is not None and not any(labels):
        labels = [item.label for item in contents.items]
    return classes_and_captions(labels, ["-"] * len(labels), "prompts")


def _lost(named: NamedImages, sources: Sources) -> list[str]:
    return [
        note
        for name, refs in named.refs.items()
        for note in lost_refs(
            list(itertools.islice(refs.items(), MAX_TRIED)), sources, f"{name} of prompts"
        )
    ]


def _over(
    spec: RunSpec, method: MethodOptions, contents: Listing, prompts: Prompts, named: NamedImages
) -> ImageAxis:
    """The images of `contents`, each once for every mask that goes with it."""
    assert spec.contents is not None
    masks = [row.mask for row in prompts.rows if row.mask]
    first = next((row for row in prompts.rows if row.image), None)
    if first is not None or prompts.defaults["image"]:
        found = prompts.defaults["image"] if first is None else first.image
        place = _where(prompts.source) + f" {1 if first is None else first.number}"
        raise ManifestError(
            f"{place}: image: found {found!r} beside contents; accepted: one of the two"
        )
    if "mask" not in method.inputs:
        masked = next((item.id for item in contents.items if item.mask), None)
        if masked is not None:
            raise ManifestError(
                f"contents: {masked}: found a mask; accepted with method {spec.method.name}: none. Next: leave masks out"
            )
        return ImageAxis("image", tuple(contents.items))
    root = spec.contents.path
    root = root if os.path.isdir(root) else os.path.dirname(root)
    items: list[Item] = []
    ids: list[str] = []
    distinct = list(dict.fromkeys([*masks, *filter(None, [prompts.defaults["mask"]])]))
    for item in contents.items:
        if item.mask is not None and distinct:
            raise ManifestError(
                f"{_where(prompts.source)} 1: mask: found {distinct[0]!r} beside the mask of content {item.id!r}; accepted: one "
                "of the two"
            )
        if item.mask is not None:
            items.append(item)
            ids.append(os.path.relpath(item.mask.place, root))
            named.claim(f"contents: {item.id}", "mask", ids[-1], item.mask)
        for mask in distinct:
            items.append(_with(item, mask=named.refs["mask"][mask]))
            ids.append(mask)
    return ImageAxis("image", tuple(items), tuple(ids))


def _masked_by_rows(prompts: Prompts, images: ImageAxis) -> tuple[Cell, ...] | None:
    """The cells where rows bring masks of their own; None where every prompt goes with every image."""
    if not any(row.mask for row in prompts.rows):
        return None
    distinct = list(dict.fromkeys(images.masks))
    copies, count = prompts.source.per_prompt, len(distinct)
    num_images = len(images) // count
    _require_few_cells(num_images * len(prompts))
    place = {mask: number for number, mask in enumerate(distinct)}
    return tuple(
        Cell(image * count + place[row.mask or prompts.defaults["mask"]], number * copies + copy)
        for image in range(num_images)
        for number, row in enumerate(prompts.rows)
        for copy in range(copies)
    )


def _require_few_cells(count: int) -> None:
    if count > MAX_PROMPTS:
        raise ManifestError(
            f"prompts: found {count:,} samples with masks of their own; accepted: at most {MAX_PROMPTS:,}. Next: give the masks "
            "by contents.masks, or split the run"
        )


def _own_images(prompts: Prompts, named: NamedImages) -> tuple[ImageAxis, tuple[Cell, ...]]:
    """The images that rows name, each once with each of its masks, and which prompt goes with which."""
    places: dict[tuple[str, str], int] = {}
    cells = []
    defaults, copies = prompts.defaults, prompts.source.per_prompt
    for number in range(prompts.num_rows):
        row = prompts.rows[number] if prompts.rows else None
        key = (
            (row.image if row else "") or defaults["image"],
            (row.mask if row else "") or defaults["mask"],
        )
        place = places.setdefault(key, len(places))
        cells += [Cell(place, number * copies + copy) for copy in range(copies)]
    items = [
        _with(
            Item(image, named.refs["image"][image]),
            mask=named.refs["mask"][mask] if mask else None,
        )
        for image, mask in places
    ]
    return ImageAxis("image", tuple(items), tuple(mask for _, mask in places)), tuple(cells)


def _with(item: Item, *, mask: Ref | None) -> Item:
    return replace(item, mask=mask)


def _in_sets(
    axis: PromptAxis, named: NamedImages, sources: Sources
) -> tuple[tuple[Axis, ...], Sources, None, tuple[int, ...]]:
    """Prompts with those of one set together, sets in order of appearance."""
    members: dict[str, list[int]] = {}
    first: dict[str, PromptRow] = {}
    for place, row in enumerate(axis.prompts):
        members.setdefault(row.style, []).append(place)
        _check_reference(axis.prompts, row, first.setdefault(row.style, row))
    items = tuple(
        Item(
            name,
            named.refs["reference"].get(row.reference, NOWHERE),
            caption=row.reference_prompt,
            extra={"reference": row.reference},
        )
        for name, row in first.items()
    )
    order = tuple(place for places in members.values() for place in places)
    set_of = tuple(n for n, places in enumerate(members.values()) for _ in places)
    chosen = axis if order == tuple(range(len(order))) else axis.chosen(order)
    return (chosen, ImageAxis("set", items)), sources, None, set_of


def _check_reference(prompts: Prompts, row: PromptRow, first: PromptRow) -> None:
    """Rows of one set have one reference."""
    for name in ("reference", "reference_prompt"):
        found, other = getattr(row, name), getattr(first, name)
        if found != other:
            raise ManifestError(
                f"{_where(prompts.source)} {row.number}: {name}: found {found!r} in set {row.style!r}, whose first row has {other!r}; "
                "accepted: one reference per style"
            )


def _shared(source: PromptSource, name: str, named: NamedImages) -> str:
    """Id of the section's own image, or nothing: its path from the folder of the rows, as theirs; its name beside a template."""
    path: str | None = getattr(source, name)
    if path is None:
        return ""
    id_ = os.path.basename(path)  # a plan must not depend on where the folder of a manifest lies
    if source.path is not None:
        id_ = os.path.relpath(path, os.path.dirname(source.path))
    named.claim(f"prompts.{name}", name, id_, LocalFiles("", "prompts").ref(path))
    return id_


def _of_file(source: PromptRows, named: NamedImages) -> Iterator[SeededRow]:
    for item in source.items():
        place = f"{source.uri}: row {item.number}"
        # What is left over of the known columns are fields of `PromptRow`.
        texts = {name: item.extra[name] for name in source.columns.known}
        seed = _seed(place, texts.pop("seed"))
        negative = texts.pop("negative_prompt")
        for name, ref in zip(IMAGE_COLUMNS, (item.ref, item.mask, item.reference), strict=True):
            if ref is not None and texts.get(name):
                named.claim(place, name, texts[name], ref)
        row = PromptRow(
            seed=0,
            negative_prompt=negative or None,
            number=item.number,
            extra=source.carried(item),
            **texts,
        )
        yield SeededRow(row, seed)


def _seed(place: str, text: str) -> int | None:
    """The seed that a row asks for."""
    if not text:
        return None
    if not (text.isdecimal() and len(text) <= len(str(MAX_SEED)) and int(text) < MAX_SEED):
        raise ManifestError(
            f"{place}: seed: found {shown(text)!r}; accepted: a whole number from 0, below 2^63, or nothing"
        )
    return int(text)
