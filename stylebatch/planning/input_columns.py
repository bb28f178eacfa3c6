"""Columns of the records about inputs beyond their ids: each only where something uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stylebatch.data.fit_modes import NATIVE
from stylebatch.data.sources.path_items import with_facts
from stylebatch.data.sources.regions import FLAGS
from stylebatch.data.sources.source import Item
from stylebatch.methods.input_kinds import CONTENT, IMAGE, PADDING
from stylebatch.methods.method import MethodOptions
from stylebatch.planning.axes import Axis, ImageAxis
from stylebatch.spec import RunSpec


def input_columns(axes: Sequence[Axis], options: MethodOptions, spec: RunSpec) -> tuple[str, ...]:
    """Their names, in the order of the records."""
    return tuple(_columns(axes, options, spec))


def _columns(axes: Sequence[Axis], options: MethodOptions, spec: RunSpec) -> Iterator[str]:
    rows, mode = axes[0], spec.image.mode
    images = with_facts(rows.items) if isinstance(rows, ImageAxis) else ()
    has_picture = bool({CONTENT, IMAGE} & set(options.input_kinds()))
    if rows.splits:
        yield "split"
    if any(item.captions for item in images):
        yield "captions"
    if "prompt" not in options.axes():
        if spec.pairing.sorts_rows:
            yield "row"
        of_axes = (with_facts(axis.items) for axis in axes if isinstance(axis, ImageAxis))
        if any(item.parts for items in of_axes for item in items):
            yield from ("style_images", "style_weights")
        if any(item.mask for item in images):
            yield "mask_id"
    if mode == "pad" and has_picture:
        yield from PADDING
    has_objects = any(item.regions for item in images)
    if has_objects:
        yield "objects"
        # fields of it, which all other runs do without
        yield from (f"objects.{name}" for name in _object_fields(images))
    # Where a picture is cut or scaled alone, its sizes tell how.
    is_placed = mode in (*NATIVE, "pad") and isinstance(rows, ImageAxis)
    if has_objects or is_placed or any(item.segmentation for item in images):
        yield "transform"


def _object_fields(images: Iterable[Item]) -> Iterator[str]:
    regions = [region for item in images for region in item.regions if region.flags or region.mask]
    if any(region.flags for region in regions):
        yield from FLAGS
    if any(region.mask for region in regions):
        yield from ("counts", "size")
