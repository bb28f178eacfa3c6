"""The axes of a run with what is along them, and what a sample at their crossing asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

import pyarrow as pa

from stylebatch.data.geometry import Size
from stylebatch.data.source_sizes import Sizes
from stylebatch.data.sources.captions import drawn
from stylebatch.data.sources.path_items import PathItems
from stylebatch.data.sources.source import Item
from stylebatch.planning.prompts import PromptRow, Prompts, sample_seed

T = TypeVar("T")
SIZE = "size "
"""Begins the facts that are sizes of images."""
SPLIT_FACT = "\0split "
"""Begins the last fact of what is in a split; no caption has its first character."""


class Axis(Protocol):
    """Something along which samples differ, in order. `name`: as the method's `axes` say; `splits`: of each thing, or empty."""

    @property
    def name(self) -> str: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def facts(self) -> Iterator[tuple[str, ...]]:
        """Of each thing its id, which no other has, and all else that affects pixels or records, as texts."""
        ...

    def chosen(self, places: Sequence[int]) -> Axis:
        """The axis with the things at these places alone, in this order."""
        ...

    def in_splits(self, splits: tuple[str, ...]) -> Axis:
        """The axis with its things in these splits."""
        ...


@dataclass(frozen=True)
class ImageAxis:
    """Images: contents, styles, images of prompts, or the sets of prompts with the images whose style they take.

    `masks`: ids of the masks of images of prompts, "" where there is none. An image comes once with each of its masks, and is
    then known by both. In runs whose images keep their own proportions, `originals` are the sizes that those of each item have,
    and `sizes` those that they are fitted to.
    """

    name: str
    items: Sequence[Item]
    masks: tuple[str, ...] = ()
    originals: tuple[Sizes, ...] = ()
    sizes: tuple[tuple[Size, ...], ...] = ()
    splits: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def facts(self) -> Iterator[tuple[str, ...]]:
        for place, item in enumerate(self.items):
            parts = (f"{part.weight!r} {part.id}" for part in item.parts)
            mask = [f"mask {item.mask_id}"] if item.mask else []
            id_ = f"{item.id}\0{self.masks[place]}" if self.masks else item.id
            sizes = map(_told, self.originals[place]) if self.originals else ()
            split = [SPLIT_FACT + self.splits[place]] if self.splits else []
            others = [f"\0or {caption}" for caption in item.captions[1:]]
            yield (id_, item.label, item.caption, *others, *mask, *parts, *sizes, *split)

    @property
    def bare_ids(self) -> pa.Array | None:
        """Ids of the items where these are all of their facts, else None."""
        has_more = self.masks or self.originals or self.splits
        return self.items.ids if isinstance(self.items, PathItems) and not has_more else None

    def chosen(self, places: Sequence[int]) -> ImageAxis:
        return replace(
            self,
            items=tuple(self.items[place] for place in places),
            masks=_chosen(self.masks, places),
            originals=_chosen(self.originals, places),
            sizes=_chosen(self.sizes, places),
            splits=_chosen(self.splits, places),
        )

    def in_splits(self, splits: tuple[str, ...]) -> ImageAxis:
        return replace(self, splits=splits)

    def as_planned(self, former: Sequence[tuple[str, ...]]) -> ImageAxis:
        """With the recorded size of an image, by its item's former facts, where that or the present one is unknown.

        So a file that was broken and is whole now, or is gone, does not change what was planned.
        """
        if not self.originals:
            return self
        recorded = {facts[0]: facts for facts in former}
        originals = []
        for sizes, facts in zip(self.originals, self.facts(), strict=True):
            # Behind id, label and caption, which are anybody's texts.
            told = [fact for fact in recorded.get(facts[0], facts)[3:] if fact.startswith(SIZE)]
            both = zip(sizes, map(_size_told, told), strict=False)
            originals.append(tuple(old if old is None or now is None else now for now, old in both))
        return replace(self, originals=tuple(originals))

    def size_of(self, place: int) -> Size | None:
        """The size that an item's image, or the first of a blend, is fitted to; None where the run's holds."""
        sizes = self.sizes[place] if self.sizes else ()
        return sizes[0] if sizes else None


def _told(size: Size | None) -> str:
    return f"{SIZE}unknown" if size is None else f"{SIZE}{size[0]} x {size[1]}"


def _size_told(fact: str) -> Size | None:
    found = re.fullmatch(rf"{SIZE}(\d+) x (\d+)", fact)
    return None if found is None else (int(found[1]), int(found[2]))


def _chosen(values: tuple[T, ...], places: Sequence[int]) -> tuple[T, ...]:
    return tuple(values[place] for place in places) if values else ()


@dataclass(frozen=True)
class PromptAxis:
    """Prompts. `order`: their places in `prompts`, None for all."""

    prompts: Prompts
    order: tuple[int, ...] | None = None
    name: str = "prompt"
    splits: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts) if self.order is None else len(self.order)

    @property
    def places(self) -> Sequence[int]:
        return range(len(self.prompts)) if self.order is None else self.order

    def facts(self) -> Iterator[tuple[str, ...]]:
        for place in range(len(self)):
            split = [SPLIT_FACT + self.splits[place]] if self.splits else []
            yield (*self.at(place).facts, *split)

    def at(self, place: int, image: Item | None = None, mask: str = "") -> PromptRow:
        """The prompt at a place of this axis."""
        index = place if self.order is None else self.order[place]
        return self.prompts.at(index, image, mask)

    @property
    def labels(self) -> set[str]:
        """Labels of the prompts themselves; "" where one has none."""
        if self.order is None:
            return self.prompts.labels
        return {self.at(place).label for place in range(len(self))}

    def chosen(self, places: Sequence[int]) -> PromptAxis:
        before = self.places
        order = tuple(before[place] for place in places)
        return replace(self, order=order, splits=_chosen(self.splits, places))

    def in_splits(self, splits: tuple[str, ...]) -> PromptAxis:
        return replace(self, splits=splits)


def former_splits(facts: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """The splits of ids, from facts of things along an axis; none where these have none."""
    return {
        one[0].partition("\0")[0]: one[-1].removeprefix(SPLIT_FACT)
        for one in facts
        if one[-1].startswith(SPLIT_FACT)
    }


class Request(NamedTuple):
    """What a sample asks for. `prompt`: None for methods without; `place`: where it is asked, for people, or ""."""

    label: str
    caption: str
    seed: int
    prompt: PromptRow | None = None
    place: str = ""


def request_of(axes: Sequence[Axis], run_seed: int, row: int, column: int) -> Request:
    """What is asked at the crossing of `row` and `column`."""
    first = axes[0]
    if isinstance(first, PromptAxis):
        # the set that a prompt is in, if any, changes nothing of what is asked
        return _of_prompt(first, first.at(row))
    second = axes[1]
    assert isinstance(first, ImageAxis)
    if isinstance(second, PromptAxis):
        if not second.prompts.over_images:  # the row of the table names its image itself
            return _of_prompt(second, second.at(column))
        mask = first.masks[row] if first.masks else ""
        image = first.items[row]
        if image.captions:
            seed = sample_seed(run_seed, image.id, second.at(column).id)
            image = replace(image, caption=drawn(image, seed))
        return _of_prompt(second, second.at(column, image, mask))
    assert isinstance(second, ImageAxis)
    content, style = first.items[row], second.items[column]
    seed = sample_seed(run_seed, content.id, style.id)
    return Request(content.label, drawn(content, seed), seed)


def _of_prompt(axis: PromptAxis, row: PromptRow) -> Request:
    return Request(row.label, row.caption, row.seed, row, axis.prompts.place(row.number))
