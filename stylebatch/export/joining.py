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
from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import INPUT_KINDS, SET, TEXT, kinds_of
from stylebatch.store.fingerprints import Fingerprints
from stylebatch.words import counted


class Contents:
    """Which contents of several outputs are the same, by the column that names them: those of the same bytes, where both are known.

    Where an output does not know the bytes, such as an export, those of the same name.
    """

    def __init__(self, outputs: Sequence[Folder], column: str) -> None:
        self._kind = next((kind.name for kind in INPUT_KINDS if kind.column == column), "")
        self._known = [Fingerprints(output) for output in outputs]
        self._places: list[tuple[str, int]] = []
        self._first: dict[int, int] = {}
        self._alike: set[int] = set()

    @property
    def num_alike(self) -> int:
        """How many names stand for other bytes in another output."""
        return len(self._alike)

    def named(self, output: int, content: str) -> str:
        """A name of its own for each: its bytes, or those that another output knows under its name, else this."""
        others = (self._bytes_of(other, content) for other in range(len(self._known)))
        data = self._bytes_of(output, content) or next(filter(None, others), "")
        return f"bytes {data}" if data else f"unknown {content}"

    def _bytes_of(self, output: int, content: str) -> str:
        # ids of originals are names in another output
        found = self._known[output].find(f"{self._kind} {content}") if self._kind else None
        return found or ""

    def former(self, output: int, split: str, content: str) -> list[tuple[str, int]]:
        """Splits and outputs in which the content was met before."""
        place, data = self._place(split, output), self._bytes_of(output, content)
        # hashes: of a million contents the names would take twice the memory
        known, unknown, of_bytes = (
            xxhash.xxh3_64_intdigest(text.encode())
            for text in (f"known {content}", f"unknown {content}", f"bytes {data}")
        )
        asked = (of_bytes, unknown) if data else (known, unknown)
        met = [self._first[one] for one in asked if one in self._first]
        other = self._first.get(known)
        if data and not met and other is not None and self._places[other][1] != output:
            self._alike.add(known)
        for one in (known, of_bytes) if data else (unknown,):
            self._first.setdefault(one, place)
        return [self._places[one] for one in met]

    def _place(self, split: str, output: int) -> int:
        if (split, output) not in self._places:
            self._places.append((split, output))
        return self._places.index((split, output))


class Joined:
    """Looks through the samples of several outputs, which have the columns `names`; `outputs`: how people know them."""

    def __init__(self, names: Sequence[str], outputs: Sequence[Folder]) -> None:
        self.outputs = outputs
        self.num_repeated = 0
        self._content = next(name for name in COLUMNS["content"] if name in names)
        self.contents = Contents(outputs, self._content)
        kinds = [kind.column for kind in kinds_of(names)]
        # pictures of the same bytes may be of two classes, or have two captions
        same = ("sha256", SET, TEXT, *kinds, "label", "caption")
        self._same = [name for name in same if name in names]
        self._samples: dict[int, int] = {}
        self._torn: dict[str, tuple[str, int, str, int]] = {}

    def new(self, output: int, split: str, table: pa.Table) -> NDArray[np.bool_]:
        """Which samples no output before this one has; their contents are looked at as well."""
        for content in table[self._content].unique().to_pylist():
            for met in self.contents.former(output, split, content):
                if met[0] != split and met[1] != output:
                    self._torn.setdefault(content, (*met, split, output))
        found = np.ones(len(table), np.bool_)
        columns = [table[name].to_pylist() for name in self._same]
        for row, values in enumerate(zip(*columns, strict=True)):
            number = xxhash.xxh3_64_intdigest("\0".join(map(str, values)).encode())
            found[row] = self._samples.setdefault(number, output) == output
        self.num_repeated += int((~found).sum())
        return found

    def told(self) -> list[str]:
        told = []
        if self.num_repeated:
            told.append(f"{counted(self.num_repeated, 'sample')} of several outputs taken once")
        if count := self.contents.num_alike:
            told.append(
                f"{counted(count, 'content')} of one name with other bytes in each output, taken for different ones"
            )
        return told

    def require_one_split(self) -> None:
        """Raise ManifestError where a content would be in two splits: what is measured on one would have been seen in the other."""
        if not self._torn:
            return
        content, (former, first, split, output) = next(iter(self._torn.items()))
        others = f", and so {counted(len(self._torn) - 1, 'other')}" if len(self._torn) > 1 else ""
        raise ManifestError(
            f"{self.outputs[first]} and {self.outputs[output]} cannot be joined: {shown(content)} is in split {former} of the first, and "
            f"in split {split} of the other{others}; accepted: each content in one split, whatever it is called. "
            f"Next: join one split alone, such as `--split {former}`, or render one of them with the `split` of the other (the same "
            "fractions and `seed`)"
        )
