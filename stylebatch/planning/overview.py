"""What a plan tells before any work: classes, captions, paths that lead nowhere, and what order and cache have to do with its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from stylebatch.data.sources.kinds import name_of
from stylebatch.data.sources.source import Item, Ref, Sources
from stylebatch.data.tables.table_columns import shown
from stylebatch.planning.layout import Layout

MAX_CLASSES = 12
MAX_TRIED = 64
"""A plan looks for this many paths at most, so that it stays quick on a slow file system."""


def classes_and_captions(labels: Iterable[str], captions: Iterable[str], of: str) -> str:
    """One line: `classes of contents: 2 (cat 10, dog 9), 1 without; captions: 20 of 20`."""
    counts = Counter(labels)
    total, without = counts.total(), counts.pop("", 0)
    named = ", ".join(f"{shown(name, 40)} {n}" for name, n in counts.most_common(MAX_CLASSES))
    more = f" and {len(counts) - MAX_CLASSES} more" if len(counts) > MAX_CLASSES else ""
    classes = f"{len(counts)} ({named}{more})" if counts else "none"
    rest = f", {without} without" if counts and without else ""
    captioned = sum(map(bool, captions))
    return f"classes of {of}: {classes}{rest}; captions: " + (
        f"{captioned} of {total}" if captioned else "none"
    )


def share_of_inversions(layout: Layout) -> str:
    """What order and cache have to do with the cost."""
    fewest, planned, cached = (
        f"{evaluations / layout.grid.num_samples:.1f}"
        for evaluations in (
            layout.fewest_evaluations,
            layout.evaluations,
            layout.cached_evaluations,
        )
    )
    return (
        f"per sample: {fewest} if each image were inverted once, {planned} as planned, "
        f"{cached} once a cache holds all styles"
    )


def lost_images(items: Sequence[Item], sources: Sources, field: str) -> list[str]:
    """A note where images of the items are not there."""
    # evenly spaced: a table often names the files of one folder after those of another
    chosen = items[:: max(1, len(items) // MAX_TRIED)][:MAX_TRIED]
    return lost_refs([image for item in chosen for image in item.images()], sources, field)


def lost_refs(tried: Sequence[tuple[str, Ref]], sources: Sources, field: str) -> list[str]:
    """A note where of these images, by name, some are not there."""
    lost = [name for name, ref in tried if sources.size(ref) is None]
    if not lost:
        return []
    source = sources.by_field.get(field)
    is_listed = source is None or name_of(source) == "table"
    base = "; those of a table are relative to its folder" if is_listed else ""
    what = "all" if len(lost) == len(tried) else f"{len(lost)} of"
    return [
        f"{field}: {what} {len(tried)} paths that were tried lead nowhere (no such file), such as {shown(lost[0], 120)}{base}. "
        "Those samples will fail"
    ]
