"""Attention, sharing of keys and values, blending and AdaIN against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylebatch.diffusion.attention import adain, align, attend, attend_shared, blend_query


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def formula(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * scale, dim=-1) @ v


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.5])
def test_attend_is_softmax_of_scaled_products(tau: float) -> None:
    q, k, v = (rand(2, 3, 16, 8, seed=seed, dtype=torch.float64) for seed in range(3))
    torch.testing.assert_close(
        attend(q, k, v, tau=tau), formula(q, k, v, tau * 8**-0.5), rtol=1e-10, atol=1e-10
    )


def test_tau_multiplies_the_scale_that_a_layer_brings() -> None:
    q, k, v = (rand(2, 3, 16, 8, seed=seed, dtype=torch.float64) for seed in range(3))
    torch.testing.assert_close(
        attend(q, k, v, tau=1.5, scale=0.2), formula(q, k, v, 0.3), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(
        attend(q, k, v, tau=1.5), attend(1.5 * q, k, v), rtol=1e-10, atol=1e-10
    )
    assert not torch.allclose(attend(q, k, v, tau=1.5), attend(q, k, v), atol=1e-3)


@pytest.mark.parametrize("key_tokens", [16, 4, 25])
@pytest.mark.parametrize("counts", [(1,), (3,), (1, 1, 1), (2, 2), (3, 1), (1, 4, 2)])
def test_shared_attention_equals_attention_per_pair(
    counts: tuple[int, ...], key_tokens: int
) -> None:
    q = rand(sum(counts), 4, 16, 8, seed=1)
    k, v = (rand(len(counts), 4, key_tokens, 8, seed=seed) for seed in (2, 3))
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    separate = torch.cat(
        [
            attend(q[i : i + 1], k[row : row + 1], v[row : row + 1], tau=1.5, scale=0.3)
            for i, row in enumerate(rows)
        ]
    )
    shared = attend_shared(q, k, v, counts, tau=1.5, scale=0.3)
    assert shared.shape == q.shape
    torch.testing.assert_close(shared, separate, rtol=1e-6, atol=1e-6)


def test_shared_attention_accepts_queries_that_are_views() -> None:
    q = rand(4, 16, 3, 8).transpose(1, 2)  # as a layer hands out its heads
    k, v = (rand(2, 3, 16, 8, seed=seed) for seed in (2, 3))
    torch.testing.assert_close(
        attend_shared(q, k, v, (2, 2)),
        attend_shared(q.contiguous(), k, v, [2, 2]),
        rtol=1e-6,
        atol=1e-6,
    )


def test_adain_gives_the_styles_moments_per_sample_and_channel() -> None:
    content, style = 3.0 * rand(2, 4, 8, 8) - 1.0, 0.5 * rand(2, 4, 6, 10, seed=1) + 2.0
    out = adain(content, style)
    assert out.shape == content.shape
    torch.testing.assert_close(out.mean((2, 3)), style.mean((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.std((2, 3)), style.std((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        adain(content[1:], style[1:]), out[1:], rtol=1e-6, atol=1e-6
    )  # no statistics over the batch


def test_adain_of_a_latent_with_itself_changes_nothing() -> None:
    content = rand(2, 4, 8, 8)
    torch.testing.assert_close(adain(content, content), content, rtol=1e-5, atol=1e-6)


def test_adain_matches_its_formula_with_unbiased_std_and_eps_on_the_content_only() -> None:
    content, style = (
        rand(1, 4, 8, 8, dtype=torch.float64),
        2.0 * rand(1, 4, 8, 8, seed=1, dtype=torch.float64),
    )
    mean_c, mean_s = content.mean((2, 3), keepdim=True), style.mean((2, 3), keepdim=True)
    std_c, std_s = (
        ((x - x.mean((2, 3), keepdim=True)) ** 2).sum((2, 3), keepdim=True).div(63).sqrt()
        for x in (content, style)
    )
    for eps in (0.0, 1e-4, 0.1):
        expected = (content - mean_c) / (std_c + eps) * std_s + mean_s
        torch.testing.assert_close(adain(content, style, eps=eps), expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(adain(content, style, eps=1e-4), adain(content, style))


@pytest.mark.parametrize("eps", [0.0, 1e-4])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1 / 3])
def test_adain_only_shifts_a_constant_channel(value: float, eps: float) -> None:
    content, style = rand(1, 4, 16, 16), rand(1, 4, 16, 16, seed=1) + 5.0
    content[:, 2] = value
    out = adain(content, style, eps=eps)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(
        out[:, 2], style[:, 2].mean().expand_as(out[:, 2]), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(out[:, 0].std(), style[:, 0].std(), rtol=1e-3, atol=1e-3)


def test_adain_to_a_constant_style_is_that_constant() -> None:
    out = adain(rand(1, 4, 8, 8), torch.full((1, 4, 8, 8), 0.25))
    torch.testing.assert_close(out, torch.full_like(out, 0.25), rtol=1e-6, atol=1e-6)


def test_blend_ends_are_the_own_and_the_content_query() -> None:
    own, content = rand(2, 3, 16, 8), rand(2, 3, 16, 8, seed=1)
    assert torch.equal(blend_query(own, content, 0.0), own)
    assert torch.equal(blend_query(own, content, 1.0), content)
    torch.testing.assert_close(blend_query(own, content, 0.75), 0.75 * content + 0.25 * own)


def test_a_single_token_takes_the_reference_without_nan() -> None:
    x, reference = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4)
    assert torch.allclose(align(x, reference), reference)
    x = torch.randn(2, 3, 5, 4)
    std = (x.var(dim=2, keepdim=True) + 1e-5).sqrt()
    assert torch.equal(
        align(x, x), (x - x.mean(dim=2, keepdim=True)) / std * std + x.mean(dim=2, keepdim=True)
    )
