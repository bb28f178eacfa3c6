"""Shares out what a run is made of among its splits, so that none has a content, or a style where asked, of another.

By fractions, the split of a content follows from seed and id alone: h = xxh3(id) / 2^64 falls into [0, 0.2) for `validation: 0.2`.
So a class of n has about 0.2 n there, with a deviation of sqrt(0.16 n), and contents that are added move no other. A prompt
goes with its copies, a set with all its prompts, and a sample of an earlier generation where the original of it went.

With `exact`, contents are dealt out class by class, in the order of h: each goes to the split that lacks most of its share so
far. So a class has its shares to within one or two; contents that an output has keep their splits as it grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from stylebatch.data.rows import Cell
from stylebatch.data.sources.origins import key_of, originals_of
from stylebatch.data.sources.path_items import with_facts
from stylebatch.data.sources.source import Sources
from stylebatch.data.sources.splitting import NO_SPLITS, SplitBy
from stylebatch.data.tables.table_columns import shown
from stylebatch.errors import ManifestError
from stylebatch.planning.axes import Axis, ImageAxis, PromptAxis
from stylebatch.planning.clusters import Numbers
from stylebatch.spec import RunSpec, SplitSpec
from stylebatch.spec.splits import USUAL, in_order, name_fault, usual_name
from stylebatch.words import counted

NAMED = 4
MOST_SPLITS = 20
OTHER_SEEDS = 1000
NO_SOURCES = Sources({})


def split_by(spec: RunSpec, field: str) -> SplitBy:
    """How contents or styles are listed, so that the listing knows their splits."""
    split = spec.split
    if split is None or (field == "styles" and not split.styles):
        return NO_SPLITS
    return SplitBy(split.source, split.column, origins=bool(split.fractions))


@dataclass(frozen=True, eq=False)
class Portion:
    """What a split has of rows and columns, by their places, ascending. `columns`: None for all."""

    split: str
    rows: Numbers
    columns: Numbers | None


def portions_of(axes: Sequence[Axis]) -> tuple[Portion, ...]:
    """The splits in order; none where a run makes none, and those without anything left out."""
    rows = axes[0].splits
    columns = axes[1].splits if len(axes) > 1 else ()
    found = []
    for split in in_order(set(rows)):
        portion = Portion(split, _places(rows, split), _places(columns, split) if columns else None)
        # a split without styles of its own has nothing to draw from
        if portion.columns is None or len(portion.columns):
            found.append(portion)
    return tuple(found)


def _places(splits: tuple[str, ...], split: str) -> Numbers:
    places = (place for place, name in enumerate(splits) if name == split)
    return np.fromiter(places, np.int64)


Shared = tuple[tuple[Axis, ...], Sequence[Cell] | None, tuple[str, ...]]
"""Axes with their splits, the cells that lie within one, and notes."""


def shared_out(
    spec: RunSpec,
    axes: tuple[Axis, ...],
    listed: Sequence[Cell] | None,
    set_of: tuple[int, ...] | None,
    former: Sequence[Mapping[str, str]] = (),
    sources: Sources = NO_SOURCES,
) -> Shared:
    """`former`: of each axis, the splits of ids that an output has. `sources`: those of the images.

    Raises ManifestError for a split that gets nothing, or has a name that no reader takes.
    """
    split = spec.split
    if split is None:
        return axes, listed, ()
    of_rows, of_columns = (*former, {}, {})[:2]
    rows = axes[0].in_splits(_splits_of(split, axes, set_of, of_rows, sources))
    notes = [_line(rows)]
    columns = list(axes[1:])
    if split.styles:
        styles = axes[1]
        assert isinstance(styles, ImageAxis)
        columns[0] = styles.in_splits(splits_of_images(split, styles, of_columns, sources))
        notes.append(_line(columns[0]))
        listed, crossing = _within(listed, rows, columns[0])
        if crossing:
            notes.append(
                f"pairing: {counted(crossing, 'pair')} passed over, whose content and style are in different splits"
            )
    _require_all(spec, split, rows, columns[0] if split.styles else None, listed)
    return (rows, *columns), listed, (*notes, *_classes_without(rows, listed))


def _splits_of(
    split: SplitSpec,
    axes: tuple[Axis, ...],
    set_of: tuple[int, ...] | None,
    former: Mapping[str, str],
    sources: Sources,
) -> tuple[str, ...]:
    """The split of each row."""
    rows = axes[0]
    if isinstance(rows, ImageAxis):
        return splits_of_images(split, rows, former, sources)
    assert isinstance(rows, PromptAxis)
    if split.exact:
        raise ManifestError(
            "split.exact: found with prompts alone; accepted: with images, such as contents"
        )
    if set_of is not None:
        sets = axes[1]
        assert isinstance(sets, ImageAxis)
        of_sets = splits_of_images(split, sets, {}, sources)
        return tuple(of_sets[column] for column in set_of)
    # copies of one prompt are as alike as samples of one content; records tell its text, for a second generation
    return tuple(_drawn(split, rows.at(place).prompt) for place in range(len(rows)))


def splits_of_images(
    split: SplitSpec, axis: ImageAxis, former: Mapping[str, str], sources: Sources = NO_SOURCES
) -> tuple[str, ...]:
    """The split of each image. Raises ManifestError for names that are none."""
    if split.exact:
        dealt = _dealt(split, axis, former)
        return tuple(dealt[key_of(item)] for item in axis.items)
    if split.fractions:
        return tuple(_drawn(split, key_of(item)) for item in axis.items)
    names = {item.split for item in axis.items}
    _require_few(split, axis, names)
    for name in sorted(names):
        if fault := name_fault(name):
            raise ManifestError(f"split: {axis.name}s: {fault}")
    fields = {item.ref.source for item in axis.items} & sources.by_field.keys()
    is_told = any(sources.by_field[field].names_splits for field in fields)
    usual = {name: usual_name(name) for name in names}
    if split.source and not is_told and USUAL.keys().isdisjoint(usual.values()):
        usual = _names_of_folders(axis, names)
    twice = [split for split, count in Counter(usual.values()).items() if count > 1]
    if twice:
        alike = ", ".join(name for name in sorted(names) if usual[name] == twice[0])
        raise ManifestError(
            f"split: {axis.name}s: found the splits {alike}, which `datasets` takes for one; accepted: each once. Next: rename one"
        )
    return tuple(usual[item.split] for item in axis.items)


def _names_of_folders(axis: ImageAxis, names: Collection[str]) -> dict[str, str]:
    """Splits by the names of folders. Raises ManifestError where these seem to be something else."""
    # COCO's folders are train2017 and val2017
    short = {name: usual_name(name.rstrip("0123456789")) for name in names}
    if USUAL.keys().isdisjoint(short.values()):
        found = ", ".join(shown(name, 40) for name in sorted(names)[:NAMED])
        raise ManifestError(
            f"split.source: {axis.name}s: found {found}, which look like no splits; accepted: at least one of {', '.join(USUAL)}. Next: "
            f"where these are classes, give fractions, such as `split: {{validation: 0.2}}`; where they belong to a data set with "
            f"annotations, name these with `{axis.name}s.annotations`, or say `kind: coco`; else rename them"
        )
    counts = Counter(short.values())
    return {
        name: short[name] if short[name] in USUAL and counts[short[name]] == 1 else name
        for name in names
    }


def _require_few(split: SplitSpec, axis: ImageAxis, names: Collection[str]) -> None:
    """Raise ManifestError for a column of values that are no splits, such as one for each image."""
    if split.column is not None and len(names) > MOST_SPLITS:
        found = ", ".join(shown(name, 40) for name in sorted(names)[:NAMED])
        raise ManifestError(
            f"split.column: {axis.name}s: found {counted(len(names), 'value')} of {split.column} in {counted(len(axis), 'image')}, "
            f"such as {found}; accepted: up to {MOST_SPLITS} splits. Next: name a column of few values, or give fractions, such as "
            "`split: {validation: 0.2}`"
        )


def _drawn(split: SplitSpec, id_: str) -> str:
    return split.split_at(_place(split, id_))


def _place(split: SplitSpec, text: str) -> float:
    """From 0 to 1."""
    # the word keeps these hashes apart from those that `shuffle` sorts by, with the same seed
    data = f"split\0{text}".encode("utf-8", "surrogateescape")
    return xxhash.xxh3_64_intdigest(data, seed=split.seed) / 2**64


def _dealt(split: SplitSpec, axis: ImageAxis, former: Mapping[str, str]) -> dict[str, str]:
    """The split of each key, class by class; those of ids in `former` as they are."""
    classes: dict[str, dict[str, None]] = {}
    copies = Counter(map(key_of, axis.items))
    labels = {key_of(item): item.label for item in reversed(axis.items)}
    for key, label in labels.items():
        classes.setdefault(label, {})[key] = None
    former = {key_of(item): former[item.id] for item in axis.items if item.id in former}
    shares = split.shares
    lacking = dict.fromkeys(shares, 0.0)
    dealt: dict[str, str] = {}
    # what one class lacks goes on to the next: of many small ones, some have an image in each split
    for label in sorted(classes, key=lambda label: (_place(split, label), label)):
        # what an output has already comes first: its part is no longer to be dealt
        keys = sorted(classes[label], key=lambda key: (key not in former, _place(split, key), key))
        for key in keys:
            for name, share in shares.items():
                lacking[name] += share * copies[key]
            dealt[key] = former.get(key) or max(lacking, key=lacking.__getitem__)
            if dealt[key] in lacking:
                lacking[dealt[key]] -= copies[key]
    return dealt


def _within(
    listed: Sequence[Cell] | None, rows: Axis, columns: Axis
) -> tuple[Sequence[Cell] | None, int]:
    """Cells whose row and column are in one split, and how many are not."""
    if listed is None:
        return None, 0
    kept = tuple(c for c in listed if rows.splits[c.row] == columns.splits[c.column])
    return kept, len(listed) - len(kept)


def _require_all(
    spec: RunSpec,
    split: SplitSpec,
    rows: Axis,
    styles: Axis | None,
    listed: Sequence[Cell] | None,
) -> None:
    """Raise ManifestError for a split that would have no samples, or too few styles to draw from."""
    names = split.names if split.fractions else in_order(set(rows.splits))
    axes = [rows] if styles is None else [rows, styles]
    for axis in axes:
        for name in names:
            if name not in axis.splits:
                raise ManifestError(
                    f"split.{name}: found none of {len(axis)} {axis.name}s in it; accepted: at least one. Next: "
                    + (_another_seed(split, axes) if split.fractions else f"add {axis.name}s to it")
                )
    if listed is not None:
        filled = {rows.splits[cell.row] for cell in listed}
        empty = [name for name in names if name not in filled]
        if empty:
            raise ManifestError(
                f"split.{empty[0]}: found no pair in it; accepted: at least one whose content and style are both in it"
            )
    if styles is not None and spec.pairing.mode == "sample":
        k, counts = spec.pairing.sampling(spec.seed).per_content, Counter(styles.splits)
        name = min(names, key=counts.__getitem__)
        if k > counts[name]:
            raise ManifestError(
                f"pairing.per_content: found {k}; accepted: 1 to {counts[name]}, as many as there are styles in split {name}"
            )


def _another_seed(split: SplitSpec, axes: Sequence[Axis]) -> str:
    """What helps where a hash left a split empty."""
    ids = [
        list({key_of(item) for item in axis.items}) for axis in axes if isinstance(axis, ImageAxis)
    ]
    # every seed hashes every id anew: a message must not take minutes
    is_quick = (
        not split.exact and len(ids) == len(axes) and all(len(one) <= OTHER_SEEDS for one in ids)
    )
    for seed in range(split.seed + 1, split.seed + OTHER_SEEDS) if is_quick else ():
        other = split.model_copy(update={"seed": seed})
        if all({_drawn(other, id_) for id_ in one} >= set(split.names) for one in ids):
            return f"`seed: {seed}` in `split` gives each split some"
    return "a larger fraction"


def _line(axis: Axis) -> str:
    counts = Counter(axis.splits)
    named = ", ".join(f"{split} {counts[split]:,}" for split in in_order(set(counts)))
    count = originals_of(with_facts(axis.items)) if isinstance(axis, ImageAxis) else 0
    follow = (
        f"; all that was made from one of {counted(count, 'original')} is in one split"
        if count
        else ""
    )
    return f"splits of {axis.name}s: {named}{follow}"


def _classes_without(rows: Axis, listed: Sequence[Cell] | None) -> Iterator[str]:
    """A note for each split that lacks classes which others have."""
    if not isinstance(rows, ImageAxis):
        return
    places = range(len(rows)) if listed is None else sorted({cell.row for cell in listed})
    labels: dict[str, set[str]] = {}
    for place in places:
        labels.setdefault(rows.splits[place], set()).add(rows.items[place].label)
    known = set[str]().union(*labels.values()) - {""}
    for split in in_order(set(labels)):
        missing = sorted(known - labels[split])
        if missing:
            named = ", ".join(shown(label, 40) for label in missing[:NAMED])
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            yield f"split {split} has nothing of {len(missing):,} of {counted(len(known), 'class')}: {named}{more}"
