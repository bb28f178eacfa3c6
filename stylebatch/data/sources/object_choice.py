"""Which annotated objects of a source are taken: of the chosen classes, with an area, within their image. The others are counted."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stylebatch.data.sources.regions import Region, label_of
from stylebatch.data.sources.source import Item, Source
from stylebatch.data.tables.table_columns import shown
from stylebatch.words import counted

NAMED = 6
FLAT, OUTSIDE = "without area", "outside their image"


class Sifter:
    """Goes over the images of a source, or of all its parts, and keeps count."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._wanted = source.options.objects
        self._others: Counter[str] = Counter()
        self._known: set[str] = set()
        self._unusable: Counter[str] = Counter()
        self._example = ""
        self._emptied = 0

    def sifted(self, items: list[Item]) -> list[Item]:
        """The same list, its images with the objects that are taken. Those that lose all stay, without label where objects label them."""
        for place, item in enumerate(items):
            if item.regions:
                items[place] = self._sifted(item)
        return items

    def _sifted(self, item: Item) -> Item:
        chosen = item.regions
        if self._wanted is not None:
            self._known.update(region.label for region in chosen)
            self._others.update(one.label for one in chosen if one.label not in self._wanted)
            chosen = tuple(one for one in chosen if one.label in self._wanted)
            self._emptied += not chosen
        regions = tuple(self._usable(chosen, item.id))
        if len(chosen) < len(item.regions) and self._source.labels_by_objects:
            item = replace(item, label=label_of(chosen))
        # Most images keep all, and are not copied.
        same = len(regions) == len(item.regions) and all(map(_is, regions, item.regions))
        return item if same else replace(item, regions=regions)

    def _usable(self, regions: Sequence[Region], name: str) -> Iterator[Region]:
        for region in regions:
            why = ""
            if region.is_flat:
                # What is drawn beside a box tells where the object is.
                if region.has_shape:
                    region = replace(region, box=region.mask.box if region.mask else None)
                else:
                    why = FLAT
            elif region.is_outside:
                why = OUTSIDE
            if why:
                self._unusable[why] += 1
                self._example = self._example or name
            else:
                yield region

    def end(self) -> list[str]:
        """What was left out, for people. Classes of the source are then the chosen ones.

        Raises ManifestError for a chosen class that the source does not know.
        """
        return [*self._of_classes(), *self._of_unusable()]

    def _of_classes(self) -> Iterator[str]:
        source, wanted = self._source, self._wanted
        if wanted is None:
            return
        self._require_known(wanted)
        source.class_lists = [
            replace(
                one, names=tuple(pair for pair in one.names if pair[1] in wanted), is_chosen=True
            )
            if one.of_objects or source.labels_by_objects
            else one
            for one in source.class_lists
        ]
        count, named = self._others.total(), self._others.most_common(NAMED)
        others = ", ".join(f"{shown(name, 40)} {n:,}" for name, n in named)
        more = f" and {len(self._others) - NAMED} more classes" if len(self._others) > NAMED else ""
        emptied = f", among them all of {counted(self._emptied, 'image')}" if self._emptied else ""
        yield (
            f"{source.field}: {counted(count, 'object')} of other classes left out ({others}{more}){emptied}"
            if count
            else f"{source.field}: no objects are of other classes than the chosen"
        )

    def _of_unusable(self) -> Iterator[str]:
        if self._unusable:
            counts = " and ".join(f"{n:,} {why}" for why, n in sorted(self._unusable.items()))
            yield f"{self._source.field}: objects that cannot be used are left out: {counts} (such as in {shown(self._example, 80)})"

    def _require_known(self, wanted: Sequence[str]) -> None:
        listed = [name for one in self._source.class_lists for _, name in one.names]
        known = list(dict.fromkeys([*listed, *sorted(self._known)]))
        for name in wanted:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                more = f" and {len(known) - 12} more" if len(known) > 12 else ""
                accepted = ", ".join(shown(one, 40) for one in known[:12]) or "none: it has none"
                raise self._source.fault(
                    f"found {name!r}, which is no class of its objects; {hint}accepted: {accepted}{more}",
                    "objects",
                )


def _is(one: Region, other: Region) -> bool:
    return one is other
