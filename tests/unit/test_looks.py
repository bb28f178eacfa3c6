"""What looks alike to people looks alike, whatever its size and compression; other pictures do not."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from stylebatch.quality.looks import MOST_BITS, MOST_LEVELS, NUM_HEX, alike, look_of
from stylebatch.quality.reduction import Reduction

DEMO = Path(__file__).parents[2] / "manifests/demo"
PHOTOGRAPHS = sorted(DEMO.glob("contents/*/*")) + sorted(DEMO.glob("styles/*"))


def _look(image: Image.Image) -> str:
    return look_of(Reduction(np.asarray(image.convert("RGB"))))


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    images = [Image.open(path).convert("RGB") for path in PHOTOGRAPHS]
    return [ImageOps.fit(image, (256, 256)) for image in images]


def test_copies_look_alike_and_other_photographs_do_not(photographs: list[Image.Image]) -> None:
    assert len(photographs) >= 10
    looks = [_look(image) for image in photographs]
    assert len(alike(looks)) == 0
    for place, image in enumerate(photographs):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=40)
        copies = (
            Image.open(buffer),
            image.resize((150, 150), Image.Resampling.LANCZOS),
            ImageEnhance.Brightness(image).enhance(1.03),
        )
        for copy in copies:
            assert alike([*looks, _look(copy)]).tolist() == [[place, len(looks)]], PHOTOGRAPHS[
                place
            ]
        assert len(alike([looks[place], _look(ImageOps.mirror(image))])) == 0
        assert len(alike([looks[place], _look(ImageOps.invert(image))])) == 0


def test_the_hash_is_the_difference_hash() -> None:
    """Luma that rises to the right sets every bit; a step sets its column alone."""
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None, :, None] * 2, (128, 1, 3))
    assert _look(Image.fromarray(ramp))[:16] == "f" * 16
    assert _look(Image.fromarray(ramp[:, ::-1].copy()))[:16] == "0" * 16
    half = np.zeros((90, 90, 3), np.uint8)
    half[:45, 45:] = (200, 100, 50)
    look = _look(Image.fromarray(half))
    assert len(look) == NUM_HEX
    assert [bytes.fromhex(look[i : i + 6]) for i in range(16, 40, 6)][1] == bytes((200, 100, 50))
    assert look[16:22] == "000000"
    # 4 rows with the step between the middle cells, 4 rows without
    assert look[:16] in ("18" * 4 + "00" * 4, "10" * 4 + "00" * 4, "08" * 4 + "00" * 4)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=3), st.integers(0, 14)),
        max_size=14,
    )
)
@settings(max_examples=60, deadline=None)
def test_all_pairs_are_found(drawn: list[tuple[int, set[int], int]]) -> None:
    base = np.random.default_rng(0).integers(0, 2, (4, 64), np.uint8)
    looks = []
    for kind, flipped, level in drawn:
        bits = base[kind].copy()
        bits[list(flipped)] ^= 1
        looks.append(np.packbits(bits).tobytes().hex() + bytes([100 + level] * 12).hex())

    def are_alike(one: str, other: str) -> bool:
        bits = (int(one[:16], 16) ^ int(other[:16], 16)).bit_count()
        levels = abs(int(one[16:18], 16) - int(other[16:18], 16))
        return bits <= MOST_BITS and levels <= MOST_LEVELS

    places = range(len(looks))
    expected = [[i, j] for i, j in combinations(places, 2) if are_alike(looks[i], looks[j])]
    assert sorted(sorted(pair) for pair in alike(looks).tolist()) == expected
