"""Masks of run lengths, beside COCO's own library, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from stylebatch.data.sources.run_lengths import Mask, mask_of, unpacked

PIXELS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1))  # fmt: skip


@settings(deadline=None)
@given(PIXELS)
def test_masks_are_those_of_the_library(pixels: NDArray[np.uint8]) -> None:
    theirs = coco.encode(np.asfortranarray(pixels))
    ours = Mask.of(pixels)
    assert ours.counts == theirs["counts"].decode()
    assert ours.size == (pixels.shape[1], pixels.shape[0])
    assert np.array_equal(ours.pixels, pixels)
    assert ours.area == coco.area(theirs)
    assert ours.box == (tuple(coco.toBbox(theirs)) if pixels.any() else None)
    # a list of the same, as crowds have it, with empty runs that merge
    runs = unpacked(ours.counts).tolist()
    assert np.array_equal(mask_of(runs, list(pixels.shape)).pixels, pixels)
    assert np.array_equal(mask_of([*runs, 0, 0], list(pixels.shape)).pixels, pixels)


@settings(deadline=None)
@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=30))
def test_runs_of_any_length_are_packed_as_the_library_does(runs: list[int]) -> None:
    size = [sum(runs) or 1, 1]
    runs = runs if sum(runs) else [1]
    assert mask_of(runs, size).counts == coco.frPyObjects({"counts": runs, "size": size}, *size)["counts"].decode()  # fmt: skip


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = unpacked(text)
    except ValueError:
        return
    assert found.min() >= 0


@pytest.mark.parametrize(
    ("counts", "size", "told"),
    [
        ([1, 2], [2, 2], "found run lengths of 3 pixels; accepted: 4"),
        ([-1, 5], [2, 2], "accepted: numbers from 0, or text"),
        ([True, 3], [2, 2], "accepted: numbers from 0, or text"),
        (None, [2, 2], "accepted: numbers from 0, or text"),
        ("", [2, 2], "accepted: text as COCO packs them"),
        ("o", [2, 2], "accepted: text as COCO packs them"),
        ("é3", [2, 2], "accepted: text as COCO packs them|found run lengths"),
        ("ooooooo0", [2, 2], "numbers of 30 bits"),
        ("O5", [2, 2], "none below 0"),
        ([4], [2], "accepted: height and width"),
        ([4], None, "accepted: height and width"),
        ([0], [0, 4], "accepted: 1 to"),
        ([0], [10**9, 10**9], "accepted: 1 to"),
    ],
)
def test_broken_masks_are_named(counts: Any, size: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        mask_of(counts, size)
