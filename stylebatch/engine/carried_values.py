"""Reads the further columns of inputs for the records of their samples."""

from __future__ import annotations

import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stylebatch.data.reading import hash_of
from stylebatch.data.sources.further import value_as
from stylebatch.errors import SampleError, StorageError
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.carried import OF_PAIRS
from stylebatch.planning.plan import Plan, Sample
from stylebatch.store.fingerprints import OF_COLUMNS, PAIR

MOST_KEPT = 1024
"""Inputs whose values are kept: an input has many samples in a block."""


class CarriedValues:
    """Values of a plan's carried columns. `check` gets a name and a hash of what was read for each input, as of its picture."""

    def __init__(self, plan: Plan, check: Callable[[Iterable[tuple[str, str]]], None]) -> None:
        self.plan, self.check = plan, check
        found = {one.axis for one in plan.carried}
        self.axes = sorted(n for n in found if n >= 0 and isinstance(plan.axes[n], ImageAxis))
        # rows of prompts and of pairs have their cells with them
        self.of_rows = sorted(found.difference(self.axes))
        self._kept: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()
        self._reading = threading.Lock()

    def of(self, sample: Sample) -> dict[str, Any]:
        """Columns of a sample's record."""
        found: dict[str, Any] = {}
        for axis in self.axes:
            found |= self._of_item(axis, (sample.row, sample.column)[axis])
        for name, values in self._of_rows(sample):
            self.check([(name, _hash_of(values))])
            found |= values
        return found

    def changed(self, shard_id: int, known: Mapping[str, str]) -> Iterator[str]:
        """Names of rows of a shard's samples that are known with other cells."""
        for _, samples in self.plan.samples(self.plan.shard(shard_id)):
            for name, values in itertools.chain.from_iterable(map(self._of_rows, samples)):
                if name in known and known[name] != _hash_of(values):
                    yield name

    def _of_rows(self, sample: Sample) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of the rows of prompts and of pairs that a sample is made of, names and cells."""
        for axis in self.of_rows:
            name, extra = f"{PAIR}{sample.listed.number}", sample.listed.extra
            if axis != OF_PAIRS and sample.prompt is not None:
                name, extra = f"prompt {sample.prompt.id}", sample.prompt.extra
            yield f"{name}{OF_COLUMNS}", self._values(axis, dict(extra))

    def _of_item(self, axis: int, index: int) -> Mapping[str, Any]:
        place = (axis, index)
        # a block is judged while the samples of the one before are written
        with self._reading:
            if place not in self._kept:
                while len(self._kept) >= MOST_KEPT:
                    self._kept.popitem(last=False)
                self._kept[place] = self._read(axis, index)
            values = self._kept[place]
        # each time: the stats of every shard that it is in must name it
        item = self.plan.images(axis)[index]
        self.check([(f"{self.plan.axes[axis].name} {item.id}{OF_COLUMNS}", _hash_of(values))])
        return values

    def _read(self, axis: int, index: int) -> dict[str, Any]:
        item = self.plan.images(axis)[index]
        source = self.plan.sources.by_field.get(item.ref.source)
        try:
            found = item.extra if source is None else source.further(item)
        except StorageError:
            raise
        except (SampleError, OSError):
            # a damaged row or a file that is gone: its picture tells
            found = {}
        return self._values(axis, found)

    def _values(self, axis: int, found: Mapping[str, Any]) -> dict[str, Any]:
        """In the types of the plan's columns."""
        return {
            one.column: value_as(found.get(one.name), one.kind)
            for one in self.plan.carried
            if one.axis == axis
        }


def _hash_of(values: Mapping[str, Any]) -> str:
    return hash_of(json.dumps(values, ensure_ascii=False).encode())
