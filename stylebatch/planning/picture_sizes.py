"""Sizes of inputs in runs whose images keep their own proportions: read while inputs are listed, fitted while they are planned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeGuard

from stylebatch.data.fit_modes import NATIVE
from stylebatch.data.geometry import Size, fitted_size
from stylebatch.data.image_section import ImageSpec
from stylebatch.data.pictures.decoding import MIN_SIDE
from stylebatch.data.source_sizes import Sizes, sizes_of
from stylebatch.data.sources.source import Sources
from stylebatch.data.tables.table_columns import shown
from stylebatch.errors import ManifestError
from stylebatch.methods.input_kinds import STYLE
from stylebatch.methods.method import MethodOptions
from stylebatch.planning.axes import Axis, ImageAxis
from stylebatch.spec import RunSpec

KEPT_AREAS = 4
"""Times the area of the run's size that `keep` leaves an image by default."""
STRETCHED = 0.1
"""Share beyond which people see that a picture was stretched, and are told."""


def with_sizes(
    axes: Sequence[Axis], sources: Sources, image: ImageSpec
) -> tuple[tuple[Axis, ...], tuple[str, ...]]:
    """The axes with the sizes of their images where `image` asks for them, and notes on what that took."""
    if image.mode not in NATIVE:
        return tuple(axes), ()
    found: list[Axis] = []
    notes: list[str] = []
    for axis in axes:
        if not isinstance(axis, ImageAxis):
            found.append(axis)
            continue
        originals, counts = sizes_of(axis.items, sources)
        found.append(replace(axis, originals=tuple(originals)))
        told = [
            text
            for key, text in (
                ("read", "read from headers"),
                ("known", "known to the source"),
                ("unread", "unknown, for which the run's size is taken"),
            )
            for text in ([f"{counts[key]} {text}"] if counts[key] else [])
        ]
        if told:
            notes.append(f"sizes of {axis.name}s: {', '.join(told)}")
        notes += _too_small(axis, originals)
    return tuple(found), tuple(notes)


def _too_small(axis: ImageAxis, originals: Sequence[Sizes]) -> Iterator[str]:
    """A note where images are smaller than any that is rendered."""
    found = [
        (item.id, size)
        for item, sizes in zip(axis.items, originals, strict=True)
        for size in sizes
        if size is not None and min(size) < MIN_SIDE
    ]
    if found:
        name, size = found[0]
        yield (
            f"{axis.name}s with a side under {MIN_SIDE} px: {len(found):,} of {len(axis):,}, such as {shown(name, 80)} "
            f"({size_words([size])}). Their samples will fail; next: leave them out with `min_side: {MIN_SIDE}`"
        )


def fitted_axes(
    axes: Sequence[Axis], image: ImageSpec, size: Size, multiple: int
) -> tuple[Axis, ...]:
    """The axes with the size that each image is fitted to; `size`: the run's, `multiple`: what sides are multiples of."""
    mode, area = image.mode, math.prod(size)
    if mode != "fit" and mode != "keep":
        return tuple(axes)
    if mode == "keep":
        area = image.max_pixels or KEPT_AREAS * area
    shared: dict[Sizes, tuple[Size, ...]] = {}

    def fitted(originals: Sizes) -> tuple[Size, ...]:
        if originals not in shared:
            shared[originals] = tuple(
                size if one is None else fitted_size(one, mode, area, multiple) for one in originals
            )
        return shared[originals]

    return tuple(
        replace(axis, sizes=tuple(map(fitted, axis.originals)))
        if isinstance(axis, ImageAxis) and axis.originals
        else axis
        for axis in axes
    )


def stretched(axes: Sequence[Axis], multiple: int) -> Iterator[str]:
    """A note for each axis with images whose proportions change by more than `STRETCHED`, as those of small images do."""
    for axis in axes:
        if not isinstance(axis, ImageAxis) or not axis.sizes:
            continue
        found = [
            (share, item.id, original, size)
            for item, originals, sizes in zip(axis.items, axis.originals, axis.sizes, strict=True)
            for original, size in zip(originals, sizes, strict=True)
            if original is not None and (share := _stretch(original, size)) > STRETCHED
        ]
        if found:
            share, name, original, size = max(found, key=lambda one: one[0])
            yield (
                f"{axis.name}s that are stretched by more than {STRETCHED:.0%}, since sides are multiples of {multiple} px: "
                f"{len(found):,} of {len(axis):,}; most of all {shown(name, 80)}, from {size_words([original])} to "
                f"{size_words([size])} ({share:.0%}). Next: leave small ones out with `min_side`, or take `mode: pad` or "
                "`center_crop`, which stretch none"
            )


def _stretch(original: Size, size: Size) -> float:
    """How much more one side grows than the other; 0.6 of 50 x 40 that become 64 x 32."""
    across, down = size[0] / original[0], size[1] / original[1]
    return max(across / down, down / across) - 1


def largest(axes: Sequence[Axis], size: Size) -> Size:
    """The size with the most pixels, of the run's and those of all images; memory is asked for it."""
    found = {
        one for axis in axes if isinstance(axis, ImageAxis) for sizes in axis.sizes for one in sizes
    }
    return max(found or {size}, key=lambda one: (math.prod(one), one))


def size_at(axes: Sequence[Axis], places: Sequence[int]) -> Size | None:
    """The size of the sample at a crossing: of its content or image, or of its set's reference; None for that of the run."""
    found = (
        axis.size_of(place) for axis, place in zip(axes, places, strict=False) if _shapes(axis)
    )
    return next((size for size in found if size is not None), None)


def sizes_of_samples(axes: Sequence[Axis], size: Size) -> tuple[Size, ...]:
    """All that samples may have, ascending by area; `size`: the run's."""
    found = {
        axis.size_of(place) or size for axis in axes if _shapes(axis) for place in range(len(axis))
    }
    return tuple(sorted(found or {size}, key=lambda one: (math.prod(one), one)))


def _shapes(axis: Axis) -> TypeGuard[ImageAxis]:
    """Whether samples have the sizes of this axis; a style lends none, since it suits any."""
    return isinstance(axis, ImageAxis) and bool(axis.sizes) and axis.name != STYLE.name


def size_words(sizes: Sequence[Size]) -> str:
    """For people: `512 x 512 px`, or the smallest and the largest of several."""
    first, last = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    return f"{first} px" if len(sizes) == 1 else f"{len(sizes)} sizes, {first} to {last} px"


def buckets_of(axes: Sequence[Axis]) -> tuple[int, ...]:
    """A number for the size of each row, in order of appearance; none where all rows have one size."""
    rows = axes[0]
    if not isinstance(rows, ImageAxis) or not rows.sizes:
        return ()
    numbers: dict[tuple[Size, ...], int] = {}
    # the first: a content has one size, only blends of styles have several
    found = tuple(numbers.setdefault(sizes[:1], len(numbers)) for sizes in rows.sizes)
    return found if len(numbers) > 1 else ()


def check_native(spec: RunSpec, options: MethodOptions) -> None:
    """Raise ManifestError where images shall keep their proportions and the method has one size for all."""
    if spec.image.mode not in NATIVE:
        return
    if getattr(options, "windows", None) is not None:
        raise ManifestError(
            f"image.mode: found {spec.image.mode} with method.windows, whose canvas has one size; accepted: center_crop, resize, pad"
        )
    if STYLE in options.input_kinds() and not options.takes_sizes:
        raise ManifestError(
            f"image.mode: found {spec.image.mode} with method {spec.method.name}, whose styles have one size; accepted: center_crop, "
            "resize, pad"
        )
