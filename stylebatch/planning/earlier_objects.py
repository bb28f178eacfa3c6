"""Annotated objects as earlier versions read them, for outputs that they began: without masks and flags, VOC's pixels counted from 0."""

from __future__ import annotations

from dataclasses import replace

from stylebatch.data.sources.kinds import name_of
from stylebatch.data.sources.regions import Region
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.run_inputs import Inputs


def as_earlier(inputs: Inputs) -> Inputs:
    """The inputs of an output whose first shards know neither, so that the further ones are like them."""
    rows, *others = inputs.axes
    contents = inputs.sources.by_field.get("contents")
    if contents is None or not isinstance(rows, ImageAxis):
        return inputs
    off = 1.0 if name_of(contents) == "voc" else 0.0
    items = tuple(
        replace(item, regions=tuple(_earlier(region, off) for region in item.regions))
        if item.regions
        else item
        for item in rows.items
    )
    return replace(inputs, axes=(replace(rows, items=items), *others))


def _earlier(region: Region, off: float) -> Region:
    box = region.box
    if box is not None and off:
        left, top, width, height = box
        box = (left + off, top + off, width - off, height - off)
    return replace(region, box=box, flags=(), mask=None)
