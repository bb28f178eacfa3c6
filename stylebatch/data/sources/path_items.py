"""Items that are paths and nothing more, as columns: a million of them take 40 MB, and a million objects six times as much."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.data.arrow_columns import Numbers, number_column, numbers_of, text_column
from stylebatch.data.sources.source import Item, Ref
from stylebatch.masking import masked
from stylebatch.paths import is_address

AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class PathItems(Sequence[Item]):
    """Files by path from `folder`, or by address. `names`: the paths; `ids`: these without credentials, by which they ascend.

    `field`: name of the source that reads them.
    """

    names: pa.Array
    ids: pa.Array
    folder: str
    field: str

    @classmethod
    def sorted(cls, names: pa.Array, folder: str, field: str) -> tuple[PathItems, Numbers]:
        """The items of paths that ascend, and for each the place of its path."""
        # what `masked` looks for; few paths have any of it
        is_odd = pc.or_(pc.match_substring(names, ":/"), pc.match_substring(names, "="))
        if not pc.any(is_odd).as_py():
            return cls(names, names, folder, field), np.arange(len(names))
        ids = text_column(list(map(masked, names.to_pylist())))
        order = pc.array_sort_indices(ids)
        return cls(names.take(order), ids.take(order), folder, field), numbers_of(order).astype(
            np.int64
        )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, len(self), AT_ONCE):
            part = self[start : start + AT_ONCE]
            yield from map(self._item, part.names.to_pylist(), part.ids.to_pylist())

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> PathItems: ...
    def __getitem__(self, index: int | slice) -> Item | PathItems:
        if isinstance(index, slice):
            places = range(len(self))[index]
            if places.step == 1:
                names, ids = (
                    one.slice(places.start, len(places)) for one in (self.names, self.ids)
                )
            else:
                chosen = number_column(np.array(places, np.int64))
                names, ids = self.names.take(chosen), self.ids.take(chosen)
            return PathItems(names, ids, self.folder, self.field)
        place = range(len(self))[index]  # counts from the end below 0
        return self._item(self.names[place].as_py(), self.ids[place].as_py())

    def _item(self, name: str, id_: str) -> Item:
        if is_address(name) or os.path.isabs(name):
            return Item(id_, Ref(name, source=self.field))
        return Item(id_, Ref(self.folder, name, self.field))


def with_facts(items: Sequence[Item]) -> Sequence[Item]:
    """Those of the items that may have more than an id and an image: labels, captions, masks, objects, ..."""
    return () if isinstance(items, PathItems) else items
