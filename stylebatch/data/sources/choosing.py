"""Which of a source's items are taken, and in which order: by label, by size, by a seed, so many in all, so many of each class."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

import xxhash

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.size_filters import is_asked, of_size
from stylebatch.data.sources.source import Item, Source
from stylebatch.data.tables.table_columns import shown
from stylebatch.words import counted, written

NAMED = 12


def chosen(
    items: list[Item], source: Source, among: Sequence[Item] | None = None
) -> tuple[list[Item], list[str]]:
    """What the options leave of `items`, and what is told of it. Raises ManifestError for a label that nothing has.

    `among`: all images of the source, where `items` are those of a split.
    """
    options, kept = source.options, items
    # The order matters: limits take the first of what labels and the seed left.
    if options.labels is not None:
        wanted = _meant(options.labels, items if among is None else among, source)
        kept = [item for item in kept if item.label in wanted]
    if options.shuffle is not None:
        kept = shuffled(kept, options.shuffle)
    sizes: list[str] = []
    if is_asked(options):
        kept, sizes = of_size(kept, source)
    if options.limit_per_class is not None:
        kept = _first_of_each(kept, options.limit_per_class)
    if options.limit is not None:
        kept = kept[: options.limit]
    if len(kept) == len(items):
        return kept, sizes
    by = ", ".join(f"{name}: {written(value)}" for name, value in _filters(options).items())
    return kept, [
        f"{source.field}: {len(kept):,} of {counted(len(items), 'image')} taken ({by})",
        *sizes,
    ]


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """By a hash of seed and id, so that an item that is added moves no other past another."""
    hashes = {item.id: xxhash.xxh3_128_digest(item.id.encode(), seed=seed) for item in items}
    return sorted(items, key=lambda item: hashes[item.id])


def _first_of_each(items: Sequence[Item], most: int) -> list[Item]:
    counts: Counter[str] = Counter()
    kept = []
    for item in items:
        counts[item.label] += 1
        if counts[item.label] <= most:
            kept.append(item)
    return kept


def _filters(options: SourceOptions) -> dict[str, object]:
    names = ("labels", "min_side", "aspect", "limit_per_class", "limit")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _meant(labels: Sequence[str], items: Sequence[Item], source: Source) -> frozenset[str]:
    """Labels of images that are wanted: where all are numbers, also by the names that `classes` gives them."""
    counts = Counter(item.label for item in items)
    numbers: dict[str, str] = {}
    if all(label.isdecimal() for label in counts if label):
        numbers = {name: str(n) for n, name in enumerate(source.class_names) if str(n) in counts}
    wanted = [label if label in counts else numbers.get(label, label) for label in labels]
    _require_known(wanted, counts, [*numbers], source)
    return frozenset(wanted)


def _require_known(
    wanted: Sequence[str], counts: Counter[str], names: Sequence[str], source: Source
) -> None:
    for label in wanted:
        if label not in counts:
            close = difflib.get_close_matches(label, [*counts, *names], n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(shown(name, 40) for name, _ in counts.most_common(NAMED) if name)
            known += f"; or by name {', '.join(names[:NAMED])}" if names else ""
            more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
            raise source.fault(
                f"found {label!r}, which no image has; {hint}accepted: {known or 'none'}{more}",
                "labels",
            )
