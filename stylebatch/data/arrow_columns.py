"""Columns of Arrow from texts and numbers, and back, by way of their buffers.

`pa.array`, `pa.scalar` and `to_numpy` import pandas where it is installed, which takes half a second and 60 MB: a quarter of what
planning a million pairs takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def text_column(texts: Sequence[str]) -> pa.Array:
    """Texts that UTF-8 can hold."""
    encoded = [text.encode() for text in texts]
    ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)
    return _texts(ends, b"".join(encoded))


def constant_column(text: str, count: int) -> pa.Array:
    """One text so often."""
    encoded = text.encode()
    return _texts(np.arange(count + 1) * len(encoded), encoded * count)


def number_column(numbers: Numbers) -> pa.Array:
    """Numbers as they lie in memory."""
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def numbers_of(column: pa.Array) -> Numbers:
    """Whole numbers of a column without nulls, of its own width."""
    return np.asarray(np.from_dlpack(column))


def _texts(ends: Numbers, data: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers)
