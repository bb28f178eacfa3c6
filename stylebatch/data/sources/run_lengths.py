"""COCO's masks of run lengths: column by column, how many pixels are outside the object, within, outside, ...; a list, or packed as text.

In a text each number is cut into five bits a character, the lowest first, 32 more where another follows, and 48 on top. From the fourth
number on it is the difference to the one two before. The last five bits tell the sign.

numpy is imported where it computes: a manifest is checked without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_PIXELS = 1 << 28
MOST_CHARACTERS = 6
"""Of a number: 30 bits."""


@dataclass(frozen=True, slots=True)
class Mask:
    """`counts`: run lengths as text; `size`: width and height."""

    counts: str
    size: tuple[int, int]

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> Mask:
        """Of (H, W), whatever is not 0 being within."""
        import numpy as np

        within = pixels.astype(bool).ravel(order="F")
        edges = np.flatnonzero(within[1:] != within[:-1]) + 1
        runs = np.diff(np.concatenate(([0], edges, [len(within)])))
        # The first run is outside, be it empty.
        runs = np.concatenate(([0], runs)) if within[0] else runs
        return cls(packed(runs), (pixels.shape[1], pixels.shape[0]))

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W), 1 within and 0 outside."""
        import numpy as np

        runs, (width, height) = unpacked(self.counts), self.size
        within = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)
        return within.reshape((height, width), order="F")

    @property
    def area(self) -> int:
        """Pixels within."""
        return int(unpacked(self.counts)[1::2].sum())

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """Left, top, width, height around what is within; None where nothing is."""
        import numpy as np

        rows, columns = np.nonzero(self.pixels)
        if not len(rows):
            return None
        left, top = int(columns.min()), int(rows.min())
        return left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top


def mask_of(counts: Any, size: Any) -> Mask:
    """The mask of `counts`, a list or a text, and `size`: height and width. Raises ValueError for one that cannot be."""
    import numpy as np

    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if not (isinstance(size, list) and len(size) == 2 and all(_is_whole(n) for n in size)):
        raise ValueError(f"found a mask of the size {str(size)[:40]}; accepted: height and width")
    height, width = map(int, size)
    if min(size) < 1 or height * width > MOST_PIXELS:
        raise ValueError(f"found a mask of the size {size}; accepted: 1 to {MOST_PIXELS:,} pixels")
    if isinstance(counts, str):
        runs = unpacked(counts)
    elif isinstance(counts, list) and all(type(n) is int and 0 <= n <= MOST_PIXELS for n in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise ValueError(f"found run lengths {str(counts)[:40]}; accepted: numbers from 0, or text")
    if runs.sum() != height * width:
        raise ValueError(
            f"found run lengths of {runs.sum():,} pixels; accepted: {height * width:,}, as many as the mask has"
        )
    return Mask(packed(runs), (width, height))


def _is_whole(number: Any) -> bool:
    return type(number) is int or (isinstance(number, float) and number.is_integer())


def unpacked(text: str) -> NDArray[np.int64]:
    """Run lengths of a text. Raises ValueError for another text."""
    import numpy as np

    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError(f"found run lengths {text[:40]!r}; accepted: text as COCO packs them")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    places = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    if places.max() >= MOST_CHARACTERS:
        raise ValueError(f"found run lengths {text[:40]!r}; accepted: numbers of 30 bits")
    values: NDArray[np.int64] = np.add.reduceat((codes & 31) << (5 * places), first)
    values -= (codes[last] >> 4 & 1) << (5 * (places[last] + 1))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise ValueError(f"found run lengths {text[:40]!r}; accepted: none below 0")
    return values


def packed(runs: NDArray[np.int64]) -> str:
    """Run lengths as text."""
    changes = runs.copy()
    changes[3:] -= runs[1:-2]
    return "".join(chr(48 + code) for number in changes.tolist() for code in _codes(number))


def _codes(number: int) -> Iterator[int]:
    is_more = True
    while is_more:
        code, number = number & 31, number >> 5
        is_more = number != (-1 if code & 16 else 0)
        yield code | (32 if is_more else 0)
