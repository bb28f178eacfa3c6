"""Passes over images by their size and proportions, as their headers tell them; nothing is decoded.

Headers are read of no more images than the limits need: an item whose class is full, or that comes after the last, is not asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.source_sizes import Sizes, sizes_of
from stylebatch.data.sources.source import Item, Source, Sources

AT_ONCE = 4096


def is_asked(options: SourceOptions) -> bool:
    """Whether the options pass over any by size."""
    return options.min_side is not None or options.aspect is not None


def of_size(items: Sequence[Item], source: Source) -> tuple[list[Item], list[str]]:
    """Those of a size that the options accept, as many as the limits need at least; and what is told of the others.

    An image whose header cannot be read stays: its samples say what is wrong with it.
    """
    options = source.options
    passed_over: Counter[str] = Counter()
    examples: dict[str, str] = {}
    kept: list[Item] = []
    for item, sizes in _with_sizes(items, source, kept):
        reason = _fault(sizes, options)
        if reason:
            passed_over[reason] += 1
            examples.setdefault(reason, item.id)
        else:
            # one image with one size: a run that needs sizes need not read its header again
            size = sizes[0] if len(sizes) == 1 else None
            kept.append(replace(item, size=size) if size else item)
    if not kept:
        raise source.fault(f"found no image with {_accepted(options)}", _option(options))
    kinds = ", ".join(
        f"{count:,} with {reason} (such as {examples[reason]})"
        for reason, count in passed_over.most_common()
    )
    return kept, [f"{source.field}: passed over: {kinds}"] if kinds else []


def _with_sizes(
    items: Sequence[Item], source: Source, kept: Sequence[Item]
) -> Iterator[tuple[Item, Sizes]]:
    """Items with their sizes until the limits have enough of those that were `kept`."""
    options = source.options
    at_once = AT_ONCE if options.limit is None else max(64, min(AT_ONCE, options.limit))
    for start in range(0, len(items), at_once):
        counts = Counter(item.label for item in kept)
        most = options.limit_per_class or len(items)
        if options.limit is not None and _total(counts, most) >= options.limit:
            return
        wanted = [item for item in items[start : start + at_once] if counts[item.label] < most]
        sizes, _ = sizes_of(wanted, Sources.of(source))
        yield from zip(wanted, sizes, strict=True)


def _total(counts: Counter[str], most: int) -> int:
    return sum(min(count, most) for count in counts.values())


def _fault(sizes: Sizes, options: SourceOptions) -> str:
    """Why an image, or one of a blend, is passed over; "" for one that is taken."""
    for size in sizes:
        if size is None:
            continue
        width, height = size
        if options.min_side is not None and min(width, height) < options.min_side:
            return f"a side under {options.min_side} px"
        if options.aspect is not None:
            least, most = options.aspect
            if not least * height <= width <= most * height:
                return f"width / height outside {least:g} to {most:g}"
    return ""


def _accepted(options: SourceOptions) -> str:
    side = [] if options.min_side is None else [f"sides of {options.min_side} px or more"]
    aspect = options.aspect
    return " and ".join(
        [*side, *([] if aspect is None else [f"width / height of {aspect[0]:g} to {aspect[1]:g}"])]
    )


def _option(options: SourceOptions) -> str:
    return "min_side" if options.min_side is not None else "aspect"
