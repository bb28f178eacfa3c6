"""The inputs along an axis as a worker has them: what one block needs, decoded ahead, and what the next can reuse.

What is prepared of them (inversions, latents) is kept per group (the rows or columns of a block), never per item, so that a
batch is always composed as the plan says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from stylebatch.data.geometry import Size
from stylebatch.data.image_section import ImageFormat, ImageSpec
from stylebatch.data.images import Picture, encode
from stylebatch.data.inputs import load_input, load_labelled
from stylebatch.data.source_sizes import Sizes
from stylebatch.data.sources.source import NOWHERE, Item, Sources
from stylebatch.engine.decoders import Decoders
from stylebatch.errors import SampleError
from stylebatch.methods.input_kinds import REFERENCE, STYLE
from stylebatch.planning.plan import Plan

LABELLED = ("content", "image")
"""Kinds of pictures whose labels the samples take over."""


@dataclass
class Group:
    """Items prepared together. `loaded` maps the plan's index to a picture, to why there is none, or to None for no image.

    `good`: those that can be used; `position` maps the index of each to its row in `prepared` (None when all failed).
    """

    loaded: dict[int, Picture | SampleError | None]
    prepared: Any = None
    jpegs: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.good = {i: one for i, one in self.loaded.items() if not isinstance(one, SampleError)}
        # dicts keep the order in which indices were given, which is that of `prepared`
        self.position = {index: row for row, index in enumerate(self.good)}

    def picture(self, index: int) -> Picture | None:
        """The picture of an item, None where it has none or that cannot be used."""
        return self.good.get(index)

    def jpeg(self, index: int) -> bytes:
        """The fitted picture as JPEG, encoded once."""
        if index not in self.jpegs:
            picture = self.good[index]
            assert picture is not None, "items without a picture have no member"
            self.jpegs[index] = encode(picture.pixels, ImageFormat())
        return self.jpegs[index]

    def mask_jpeg(self, index: int) -> bytes:
        """The fitted mask as JPEG."""
        picture = self.good[index]
        assert picture is not None, "a sample that succeeded has its image"
        assert picture.mask is not None, "a plan gives each image its mask"
        return encode(np.repeat(picture.mask[..., None], 3, axis=2), ImageFormat())


Prepare = Callable[[dict[int, Picture | None]], Any]
"""Prepares the good items of a group, given by the plan's index."""


@dataclass(frozen=True)
class PictureLoader:
    """How the pictures of an axis are read. `name`: their kind; `size`: width and height that they are fitted to.

    `sizes`: those of the images of each item, in runs whose images keep their own proportions, and `originals` what they measure.
    """

    name: str
    items: Sequence[Item]
    sources: Sources
    size: tuple[int, int]
    image: ImageSpec
    sizes: tuple[tuple[Size, ...], ...] = ()
    originals: tuple[Sizes, ...] = ()

    @classmethod
    def of(cls, plan: Plan, axis: int) -> PictureLoader:
        """For an axis of the plan."""
        kind, items = plan.inputs_of(axis)
        size = plan.window if kind == REFERENCE.name else plan.image_size
        sizes, originals = plan.sizes_of_inputs(axis)
        image = plan.spec.image
        if kind in (STYLE.name, REFERENCE.name):
            image = image.of_looks
        return cls(kind, items, plan.sources, size, image, sizes, originals)

    def load(self, index: int) -> Picture | None:
        """A picture; None where there is no image. Raises SampleError."""
        item = self.items[index] if self.items else None
        if item is None or (item.ref == NOWHERE and not item.parts):
            return None
        return self.require(index)

    def require(self, index: int) -> Picture:
        """The picture of an item that has one. Raises SampleError."""
        item = self.items[index]
        load = load_labelled if self.name in LABELLED else load_input
        if not self.sizes:
            return load(item, self.sources, self.size, self.image)
        return load(item, self.sources, self.sizes[index], self.image, self.originals[index])

    def attempt(self, index: int) -> Picture | SampleError | None:
        """As `load`, with the error as a value."""
        try:
            return self.load(index)
        except SampleError as error:
            return error


class AxisInputs:
    """Items of an axis, by group, with at most `capacity` groups of what was prepared kept.

    `check` gets each good picture before it is used, also those that were kept: a shard is made of them too.
    """

    def __init__(
        self,
        loader: PictureLoader,
        *,
        capacity: int,
        pool: Decoders,
        check: Callable[[Picture], None],
    ) -> None:
        self.loader, self.capacity, self.pool, self.check = loader, capacity, pool, check
        self._groups: OrderedDict[tuple[int, ...], Group] = OrderedDict()
        self._ahead: dict[tuple[int, ...], list[Future[Picture | SampleError | None]]] = {}

    def forget(self) -> None:
        """Drop all that was prepared, and what was decoded ahead for it."""
        self._groups.clear()
        self._ahead.clear()

    def prefetch(self, indices: tuple[int, ...]) -> None:
        """Start decoding a group, unless it is kept or under way."""
        if indices not in self._groups and indices not in self._ahead:
            self._ahead[indices] = [
                self.pool.submit(partial(self.loader.attempt, index)) for index in indices
            ]

    def group(self, indices: tuple[int, ...], prepare: Prepare) -> Group:
        """The group of `indices`, decoded and prepared now unless it is still kept."""
        if indices in self._groups:
            self._groups.move_to_end(indices)
            kept = self._groups[indices]
            # again: the stats of this shard must name these files too
            self._check(kept)
            return kept
        # room first: the old group and the new one at once would exceed the plan's memory
        while len(self._groups) >= self.capacity:
            self._groups.popitem(last=False)
        self.prefetch(indices)
        loaded = {
            index: future.result()
            for index, future in zip(indices, self._ahead.pop(indices), strict=True)
        }
        group = Group(loaded)
        self._check(group)
        if group.good:
            group.prepared = prepare(group.good)
        self._groups[indices] = group
        return group

    def _check(self, group: Group) -> None:
        for picture in group.good.values():
            if picture is not None:
                self.check(picture)
