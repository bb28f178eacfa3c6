"""What a picture looks like in 20 bytes, and which pictures look alike: near-duplicates, whatever their size and compression.

A look is the difference hash of the luma (dHash: N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013; as in the library
imagehash), and the mean colours of the picture's quarters, since a content in two styles may keep its luma.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylebatch.quality.reduction import Reduction

HASH_SIDE = 8
NUM_BITS = HASH_SIDE**2
MOST_BITS, MOST_LEVELS = 4, 12
"""Pictures look alike that differ in as many bits of the hash at most, and nowhere by more levels in the mean of a quarter."""
NUM_HEX = (NUM_BITS // 8 + 12) * 2
_BANDS = MOST_BITS + 1
"""Stretches of a hash: of hashes that differ in fewer bits than there are stretches, one stretch is the same."""

Pairs = NDArray[np.int64]


def look_of(picture: Reduction) -> str:
    """Of a picture, as 40 hexadecimal digits: 64 bits of dHash by rows, then red, green, blue of each quarter."""
    size = (HASH_SIDE + 1, HASH_SIDE)
    luma = Image.fromarray(np.rint(picture.luma).astype(np.uint8))
    cells = np.asarray(luma.resize(size, Image.Resampling.BOX)).astype(np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    half = picture.small.shape[0] // 2
    # in whole numbers, so that the same picture gives the same digits on every machine
    quarters = picture.small.reshape(2, half, 2, half, 3).astype(np.int64).sum(axis=(1, 3))
    means = (quarters + half * half // 2) // (half * half)
    digits: str = bits.tobytes().hex() + means.astype(np.uint8).tobytes().hex()
    return digits


def alike(looks: Sequence[str]) -> Pairs:
    """Pairs (n, 2) of places of looks that are alike, the first below the second, in order."""
    if len(looks) < 2:
        return np.empty((0, 2), np.int64)
    data = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8).reshape(len(looks), -1)
    hashes, colours = data[:, : NUM_BITS // 8], data[:, NUM_BITS // 8 :].astype(np.int16)
    bits = np.unpackbits(hashes, axis=1)
    found = [_close(places, bits, colours) for band in _bands(bits) for places in _shared(band)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return np.unique(pairs, axis=0)


def _bands(bits: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Of each hash, the numbers that its stretches are."""
    return [
        part.astype(np.int64) @ (1 << np.arange(part.shape[1], dtype=np.int64))
        for part in np.array_split(bits, _BANDS, axis=1)
    ]


def _shared(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Places of each number that comes more than once."""
    order = np.argsort(numbers, kind="stable")
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    return [places for places in np.split(order, ends) if len(places) > 1]


def _close(places: NDArray[np.int64], bits: NDArray[np.uint8], colours: NDArray[np.int16]) -> Pairs:
    """Pairs among these places that are alike; memory for one row of them at a time."""
    found = []
    for start, place in enumerate(places[:-1]):
        others = places[start + 1 :]
        near = np.abs(colours[others] - colours[place]).max(axis=1) <= MOST_LEVELS
        others = others[near]
        others = others[(bits[others] != bits[place]).sum(axis=1) <= MOST_BITS]
        found.append(np.stack([np.full_like(others, place), others], axis=1))
    return np.concatenate([np.empty((0, 2), np.int64), *found])
