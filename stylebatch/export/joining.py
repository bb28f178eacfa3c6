"""What outputs that are joined have in common: samples that are the same, and contents, which stay in one split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stylebatch.data.sources.origins import COLUMNS
from stylebatch.data.tables.table_columns import shown
from stylebatch.errors import ManifestError
from stylebatch.methods.input_kinds import SET, TEXT, kinds_of
from stylebatch.words import counted


class Joined:
    """Looks through the samples of several outputs, which have the columns `names`; `outputs`: how people know them."""

    def __init__(self, names: Sequence[str], outputs: Sequence[str]) -> None:
        self.outputs = outputs
        self.num_repeated = 0
        self._content = next(name for name in COLUMNS["content"] if name in names)
        kinds = [kind.column for kind in kinds_of(names)]
        # pictures of the same bytes may be of two classes, or have two captions
        same = ("sha256", SET, TEXT, *kinds, "label", "caption")
        self._same = [name for name in same if name in names]
        self._samples: dict[int, int] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._torn: dict[str, tuple[str, int]] = {}

    def new(self, output: int, split: str, table: pa.Table) -> NDArray[np.bool_]:
        """Which samples no output before this one has; their contents are looked at as well."""
        for content in table[self._content].unique().to_pylist():
            former, first = self._places.setdefault(content, (split, output))
            if former != split and first != output:
                self._torn.setdefault(content, (split, output))
        found = np.ones(len(table), np.bool_)
        columns = [table[name].to_pylist() for name in self._same]
        for row, values in enumerate(zip(*columns, strict=True)):
            number = xxhash.xxh3_64_intdigest("\0".join(map(str, values)).encode())
            found[row] = self._samples.setdefault(number, output) == output
        self.num_repeated += int((~found).sum())
        return found

    def told(self) -> list[str]:
        if not self.num_repeated:
            return []
        return [f"{counted(self.num_repeated, 'sample')} of several outputs taken once"]

    def require_one_split(self) -> None:
        """Raise ManifestError where a content would be in two splits: what is measured on one would have been seen in the other."""
        if not self._torn:
            return
        content, (split, output) = next(iter(self._torn.items()))
        former, first = self._places[content]
        others = f", and so {counted(len(self._torn) - 1, 'other')}" if len(self._torn) > 1 else ""
        raise ManifestError(
            f"{self.outputs[first]} and {self.outputs[output]} cannot be joined: {shown(content)} is in split {former} of the first, and "
            f"in split {split} of the other{others}; accepted: each content in one split. Next: join one split alone, such as "
            f"`--split {former}`, or render one of them with the `split` of the other (the same fractions and `seed`)"
        )
