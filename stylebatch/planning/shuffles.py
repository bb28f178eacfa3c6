"""Shuffles that a seed decides for good: they sort raw PCG64 words, which numpy keeps (it may change `Generator.permutation`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_words(count: int, *key: int) -> NDArray[np.uint64]:
    """Words of a stream that `key` decides."""
    # raw words stay the same in every numpy; distributions drawn from them may change
    return np.random.PCG64(key).random_raw(count)


def shuffled(count: int, *key: int) -> NDArray[np.intp]:
    """0 .. count - 1 in an order that `key` decides."""
    return np.argsort(random_words(count, *key), kind="stable")
