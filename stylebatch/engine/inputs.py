"""Decoded and inverted inputs of a worker: what one block needs, and what the next can reuse.

Images are decoded ahead on a thread. Inversions are kept per group (the contents of a block row, the
styles of a block column), never per image, so that a batch is always composed as the plan says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from stylebatch.data.images import FitMode, Picture, encode
from stylebatch.data.loading import load_input
from stylebatch.data.sources import ImageRow
from stylebatch.errors import SampleError
from stylebatch.methods.features import Inverted
from stylebatch.spec import ImageFormat


@dataclass
class Group:
    """Images inverted together. `pictures` maps the run's index to a picture or why there is none.

    `position` maps the index of a good picture to its row in `inverted` (None when all failed).
    """

    pictures: dict[int, Picture | SampleError]
    position: dict[int, int]
    inverted: Inverted | None
    jpegs: dict[int, bytes] = field(default_factory=dict)

    def jpeg(self, index: int) -> bytes:
        """The fitted input as JPEG, encoded once."""
        if index not in self.jpegs:
            picture = self.pictures[index]
            if isinstance(picture, SampleError):
                raise picture
            self.jpegs[index] = encode(picture.pixels, ImageFormat())
        return self.jpegs[index]


Invert = Callable[[dict[int, Picture]], Inverted]
"""Inverts the good pictures of a group, given by the run's index."""


class Inputs:
    """Contents or styles of a plan, by group, with at most `capacity` groups of inversions kept."""

    def __init__(
        self, rows: Sequence[ImageRow], *, size: int, mode: FitMode, capacity: int, pool: Executor
    ) -> None:
        self.rows = rows
        self.size = size
        self.mode: FitMode = mode
        self.capacity = capacity
        self.pool = pool
        self._groups: OrderedDict[tuple[int, ...], Group] = OrderedDict()
        self._ahead: dict[tuple[int, ...], list[Future[Picture | SampleError]]] = {}

    def forget(self) -> None:
        """Drop all inversions, and what was decoded ahead for them."""
        self._groups.clear()
        self._ahead.clear()

    def prefetch(self, indices: tuple[int, ...]) -> None:
        """Start decoding a group, unless it is kept or under way."""
        if indices not in self._groups and indices not in self._ahead:
            self._ahead[indices] = [self.pool.submit(self._load, index) for index in indices]

    def group(self, indices: tuple[int, ...], invert: Invert) -> Group:
        """The group of `indices`, decoded and inverted now unless it is still kept."""
        if indices in self._groups:
            self._groups.move_to_end(indices)
            return self._groups[indices]
        while len(self._groups) >= self.capacity:
            self._groups.popitem(last=False)
        self.prefetch(indices)
        pictures = {
            index: future.result()
            for index, future in zip(indices, self._ahead.pop(indices), strict=True)
        }
        good = {
            index: picture for index, picture in pictures.items() if isinstance(picture, Picture)
        }
        group = Group(
            pictures,
            {index: row for row, index in enumerate(good)},
            invert(good) if good else None,
        )
        self._groups[indices] = group
        return group

    def _load(self, index: int) -> Picture | SampleError:
        try:
            return load_input(self.rows[index], self.size, self.mode)
        except SampleError as error:
            return error
