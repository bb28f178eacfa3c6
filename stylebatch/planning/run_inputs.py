"""Lists all that a run is made of: its axes, the cells where these are listed, and notes on them. Nothing is decoded."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.one_look import one_look
from stylebatch.data.rows import Cell, Diagonal, with_texts
from stylebatch.data.sources.listing import Listing, list_contents, list_styles
from stylebatch.data.sources.pairs import PairList, list_pairs
from stylebatch.data.sources.path_items import with_facts
from stylebatch.data.sources.source import ClassList, Item, Sources
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, PublishedCheckpoint, find_checkpoint
from stylebatch.models.model_section import ModelSpec
from stylebatch.planning.axes import Axis, ImageAxis
from stylebatch.planning.classes import class_list, named_items, names_of
from stylebatch.planning.overview import classes_and_captions, lost_images
from stylebatch.planning.picture_sizes import with_sizes
from stylebatch.planning.prompt_listing import list_prompts
from stylebatch.planning.split_axes import split_by
from stylebatch.spec import RunSpec
from stylebatch.words import counted

MANY = 100_000
"""Items of an axis that Python's search for cycles leaves out from then on."""


@dataclass(frozen=True)
class Inputs:
    """`listed`: None where the cells are arithmetic. `set_of`: the set (column) of each prompt (row), where there are sets.

    `sources` read the images. `notes`: for people. `checkpoint`: the model's files. `classes`: those that the manifest names, None
    where it names none; `class_lists`: how the contents number theirs.
    """

    axes: tuple[Axis, ...]
    sources: Sources
    listed: Sequence[Cell] | None = None
    set_of: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    class_lists: tuple[ClassList, ...] = ()
    classes: tuple[str, ...] | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns; one column where there is one axis."""
        return len(self.axes[0]), len(self.axes[1]) if len(self.axes) > 1 else 1


@one_look()
def list_inputs(spec: RunSpec, find: Callable[[ModelSpec], Checkpoint] = find_checkpoint) -> Inputs:
    """All that a run is made of. A start does this once, however often it plans. `find`: the model's files.

    Raises ManifestError, naming file, row, field, what was found and what is accepted.
    """
    classes = class_list(spec.classes)
    with _uncollected():
        inputs = (
            _of_pairs(spec, classes)
            if spec.prompts is None
            else Inputs(*list_prompts(spec, classes), classes=classes)
        )
        if max(inputs.counts) > MANY:
            gc.freeze()  # nor later: each parsed JSON file would begin a search
    contents = inputs.sources.by_field.get("contents")
    lists = () if contents is None else tuple(contents.class_lists)
    axes, told = with_sizes(inputs.axes, inputs.sources, spec.image)
    notes = (*inputs.notes, *told, *spec.image.unused)
    checkpoint = find(spec.model)
    if isinstance(checkpoint, PublishedCheckpoint):
        notes = (checkpoint.note, *notes)
    return replace(inputs, axes=axes, notes=notes, checkpoint=checkpoint, class_lists=lists)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles, of which a listing makes none: it would go over all items again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _named_cells(
    listed: Sequence[Cell] | None, classes: tuple[str, ...] | None
) -> Sequence[Cell] | None:
    """Cells whose labels are names of `classes`. Raises ManifestError for others."""
    labels = Counter(cell.label for cell in with_texts(listed))
    if classes is None or not any(labels):
        return listed
    names = names_of(labels, classes, "pairing.path")
    return tuple(replace(cell, label=names[cell.label]) for cell in listed or ())


def _of_pairs(spec: RunSpec, classes: tuple[str, ...] | None) -> Inputs:
    contents, styles, listed, sources, notes = _pairs(spec, classes)
    contents = named_items(contents, classes, "contents.path")
    listed = _named_cells(listed, classes)
    _require_what_is_heeded(spec, contents, styles)
    notes = (
        _overview(contents, listed),
        *notes,
        *lost_images(contents, sources, "contents"),
        *lost_images(styles, sources, "styles"),
    )
    rows, columns = spec.options.axes()
    axes = (ImageAxis(rows, contents), ImageAxis(columns, styles))
    return Inputs(axes, sources, listed, None, notes, classes=classes)


def _require_what_is_heeded(
    spec: RunSpec, contents: Sequence[Item], styles: Sequence[Item]
) -> None:
    """Raise ManifestError for a mask or a blend that the method would pass over."""
    masked = next((item for item in with_facts(contents) if item.mask), None)
    blended = next((item for item in with_facts(styles) if item.parts), None)
    for field, item, what, is_taken in (
        ("contents", masked, "mask", spec.options.takes_masks),
        ("styles", blended, "blend", spec.options.takes_blends),
    ):
        if item is not None and not is_taken:
            raise ManifestError(
                f"{field}: {item.id}: found a {what}; accepted with method {spec.method.name}: none. Next: leave {what}s out"
            )


def _overview(contents: Sequence[Item], listed: Sequence[Cell] | None) -> str:
    """Classes and captions: of pairs, where these have their own."""
    pairs, items = with_texts(listed), with_facts(contents)
    if not any(cell.label or cell.caption for cell in pairs):
        labels, captions = (item.label for item in items), (item.caption for item in items)
        return classes_and_captions(labels, captions, "contents")
    return classes_and_captions(
        (cell.label or (items[cell.row].label if items else "") for cell in pairs),
        (cell.caption or (items[cell.row].caption if items else "") for cell in pairs),
        "pairs",
    )


Pairs = tuple[Sequence[Item], Sequence[Item], Sequence[Cell] | None, Sources, tuple[str, ...]]
"""Contents, styles, the pairs where they are listed, what reads them, and notes."""


def _pairs(spec: RunSpec, classes: tuple[str, ...] | None) -> Pairs:
    of_contents, of_styles = split_by(spec, "contents"), split_by(spec, "styles")
    if spec.pairing.path is not None:
        found = list_pairs(
            PairList(spec.pairing.path, SourceOptions(carry=spec.pairing.carry)),
            None if spec.contents is None else list_contents(spec.contents, of_contents, classes),
            None if spec.styles is None else list_styles(spec.styles, of_styles),
        )
        return found.contents, found.styles, found.pairs, found.sources, found.notes
    if spec.contents is None or spec.styles is None:
        raise ManifestError("contents, styles: both are needed unless the pairing is explicit")
    contents = list_contents(spec.contents, of_contents, classes)
    styles = list_styles(spec.styles, of_styles)
    listed = _arithmetic(spec, contents, styles)
    notes = (*contents.notes, *styles.notes)
    return (
        tuple(contents.items),
        tuple(styles.items),
        listed,
        contents.sources | styles.sources,
        notes,
    )


def _arithmetic(spec: RunSpec, contents: Listing, styles: Listing) -> Diagonal | None:
    """The pairs of zip; None of products and samples, which the grid knows."""
    num_contents, num_styles = len(contents.items), len(styles.items)
    if spec.pairing.mode == "sample":
        k = spec.pairing.sampling(spec.seed).per_content
        if k > num_styles:
            raise ManifestError(
                f"pairing.per_content: found {k}; accepted: 1 to {num_styles}, as many styles as there are"
            )
    if spec.pairing.mode in ("product", "sample"):
        return None
    # a list that is too long would leave inputs out without a word
    if num_contents != num_styles:
        sides = f"{counted(num_contents, 'content')} and {counted(num_styles, 'style')}"
        raise ManifestError(
            f"pairing.mode: found zip over {sides}; accepted: as many of one as of the other"
        )
    return Diagonal(range(num_contents))
