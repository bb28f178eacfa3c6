"""uint8 pixels to network tensors and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylebatch.methods.pixels import overlaid, to_pixels, to_tensor
from tests.support.images import picture


def test_range_and_layout() -> None:
    picture = np.zeros((2, 3, 3), dtype=np.uint8)
    picture[0, 2] = (255, 0, 127)
    tensor = to_tensor([picture, picture])
    assert tensor.shape == (2, 3, 2, 3)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()  # channels-last input costs exactness in GroupNorm on the CPU
    assert tensor[0, :, 0, 2].tolist() == pytest.approx([1.0, -1.0, 127 / 127.5 - 1.0])


def test_every_level_comes_back() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    other = 255 - picture
    back = to_pixels(to_tensor([picture, other]))
    assert np.array_equal(back[0], picture)
    assert np.array_equal(back[1], other)
    assert back[0].dtype == np.uint8
    assert back[0].flags.c_contiguous


def test_values_beyond_the_range_are_clamped_not_wrapped() -> None:
    images = torch.tensor([-7.0, -1.0, 1.0, 7.0]).reshape(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert to_pixels(images)[0][0, :, 0].tolist() == [0, 0, 255, 255]


def test_levels_are_rounded_half_to_even_not_truncated() -> None:
    levels = torch.tensor([99.5, 100.5, 100.9, 100.1], dtype=torch.float64)
    images = (levels / 255.0 * 2.0 - 1.0).reshape(1, 1, 1, 4).expand(1, 3, 1, 4)
    found = to_pixels(images.double())[0][0, :, 0].tolist()
    assert found[2:] == [101, 100]
    half = torch.zeros(1, 3, 1, 1)  # 127.5 exactly
    assert to_pixels(half)[0][0, 0].tolist() == [128, 128, 128]


def test_float16_images_are_converted_before_scaling() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(to_pixels(to_tensor([picture]).half())[0], picture)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_never_become_a_picture(value: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 0, 2, 2] = value
    with pytest.raises(ValueError, match="not finite; use a wider dtype"):
        to_pixels(images)


def test_an_overlay_is_that_of_diffusers() -> None:
    made, original = (picture(seed, 40, 32) for seed in (1, 2))
    mask = Image.linear_gradient("L").resize((40, 32))
    mask.paste(0, (0, 0, 10, 32))
    mask.paste(255, (30, 0, 40, 32))
    stock = VaeImageProcessor().apply_overlay(mask, original, made)
    ours = overlaid(np.asarray(made), np.asarray(original), np.asarray(mask) / 255.0)
    assert np.abs(ours.astype(int) - np.asarray(stock)).max() <= 2  # Pillow premultiplies in 8 bits
    assert np.array_equal(ours[:, :10], np.asarray(original)[:, :10])
    assert np.array_equal(ours[:, 30:], np.asarray(made)[:, 30:])


def test_every_level_is_the_float_nearest_to_its_formula_and_comes_back() -> None:
    levels = np.arange(256, dtype=np.uint8)
    picture = np.stack(
        [levels.reshape(16, 16), levels[::-1].reshape(16, 16), np.full((16, 16), 7, np.uint8)],
        axis=-1,
    )
    tensor = to_tensor([picture, picture[::-1]])
    exact = (picture.transpose(2, 0, 1).astype(np.float64) / 127.5 - 1.0).astype(np.float32)
    assert tensor.is_contiguous()
    assert np.array_equal(tensor[0].numpy(), exact)
    assert np.array_equal(tensor[1].numpy(), exact[:, ::-1])
    for one, back in zip((picture, picture[::-1]), to_pixels(tensor), strict=True):
        assert back.flags.c_contiguous
        assert np.array_equal(back, one)


@given(st.lists(st.floats(-4, 4, width=32), min_size=12, max_size=12), st.booleans())
def test_values_between_levels_round_half_to_even(values: list[float], has_grad: bool) -> None:
    near = torch.tensor(values).reshape(1, 3, 2, 2)
    # Halves between levels too, which drawn floats hardly meet.
    halves = (torch.arange(12).reshape(1, 3, 2, 2) * 20 + 0.5) / 127.5 - 1.0
    for images in (near, halves, near.double(), near.half()):
        found = to_pixels(images.clone().requires_grad_(has_grad))[0]
        levels = ((images.float().clamp(-1.0, 1.0) / 2.0 + 0.5) * 255.0).round()
        assert np.array_equal(found, levels[0].permute(1, 2, 0).numpy().astype(np.uint8))


def test_sums_beyond_float32_are_no_infinity() -> None:
    """And infinities that cancel out are."""
    assert to_pixels(torch.full((1, 3, 8, 8), 3e38))[0].min() == 255
    for bad in (float("nan"), float("inf"), -float("inf")):
        images = torch.zeros(2, 3, 8, 8)
        images[1, 2, 3, 4], images[1, 0, 0, 0] = bad, -bad
        with pytest.raises(ValueError, match="not finite"):
            to_pixels(images)
