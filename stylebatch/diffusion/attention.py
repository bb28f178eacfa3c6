"""Attention with temperature over shared keys and values, query blending, and AdaIN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fall = Literal["constant", "linear", "cosine", "sqrt"]


def adain(
    content: Tensor, style: Tensor, *, eps: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Give `content` the per-channel mean and std of `style`; both (B, c, h, w), any spatial sizes.

    Statistics are per sample over (h, w) with the unbiased std (StyleID eq. 8; AdaIN, arXiv
    1703.06868). `eps` is added to the content's std (the diffusers port uses 1e-4, the paper's own
    code 0). A channel of constant content is only shifted. `mask` (B, 1, h, w) in [0, 1] says where: the
    content's statistics are weighted with it, and at 0 the content stays.
    """
    mean_c, std_c = _moments(content) if mask is None else _weighted_moments(content, mask)
    mean_s, std_s = _moments(style)
    one = torch.ones_like(std_c)
    # The inner `where` keeps 0 / 0 out: the outer one computes both branches.
    gain = torch.where(std_c == 0, one, std_s / torch.where(std_c == 0, one, std_c + eps))
    styled = (content - mean_c) * gain + mean_s
    return styled if mask is None else mask * styled + (1.0 - mask) * content


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True, unbiased=True)


def _weighted_moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """As `_moments`, each position counted `weight` (B, 1, h, w) times; a total weight below 2 counts as all ones."""
    total = weight.sum(dim=(2, 3), keepdim=True)
    # The unbiased variance divides by total - 1, which is 0 or negative for a mask of one cell.
    weight = torch.where(total < 2.0, torch.ones_like(weight), weight)
    total = weight.sum(dim=(2, 3), keepdim=True)
    mean = (weight * x).sum(dim=(2, 3), keepdim=True) / total
    variance = (weight * (x - mean) ** 2).sum(dim=(2, 3), keepdim=True) / (total - 1.0)
    return mean, variance.sqrt()


def align(x: Tensor, reference: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Give `x` the mean and std over tokens of `reference`, per sample, head and channel; (B, H, L, d).

    AdaIN of StyleAligned (arXiv 2312.02133); std is sqrt(unbiased variance + eps), and a single token has variance 0.
    """
    # eps stands under the root, as in the paper's code; `adain` adds its own to the std.
    mean, std = x.mean(dim=2, keepdim=True), (_variance(x) + eps).sqrt()
    mean_r = reference.mean(dim=2, keepdim=True)
    std_r = (_variance(reference) + eps).sqrt()
    return (x - mean) / std * std_r + mean_r


def _variance(x: Tensor) -> Tensor:
    """Unbiased variance over tokens, and 0 for a single token."""
    # The middle of the network has a single token at very small sizes, where the unbiased variance is NaN.
    return x.var(dim=2, keepdim=True, correction=min(1, x.shape[2] - 1))


def attend_extended(
    q: Tensor,
    keys: tuple[Tensor, Tensor],
    values: tuple[Tensor, Tensor],
    *,
    shift: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attention to a row's tokens and to those of its reference: `keys`, `values` are (row's, reference's), (B, H, L, d) each.

    `shift` is added to the logits of the reference's tokens (StyleAligned's shared score shift).
    """
    k, v = torch.cat(keys, dim=2), torch.cat(values, dim=2)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    mask = None  # a mask of zeros would give the same, but flash kernels take none
    if shift != 0.0:
        mask = q.new_zeros(1, 1, 1, k.shape[2])
        mask[..., keys[0].shape[2] :] = shift
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def attend_blended(
    q: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    weights: Sequence[float],
    *,
    tau: float = 1.0,
    scale: float | None = None,
) -> Tensor:
    """One attention over the tokens of M styles, each style counted `weights[m]` (above 0, sum 1) times.

    q (C, H, L, d) of the pairs that share the blend; `keys`, `values`: (H, L_m, d) of each style. The log of the weights is added to
    the logits, as a mask that every query shares, so that fused kernels serve. A style blended with itself is
    that style. Returns (C, H, L, d).
    """
    tokens = [k.shape[1] for k in keys]
    # A style of more tokens than the first does not count for more.
    each = [math.log(w) + math.log(tokens[0] / n) for w, n in zip(weights, tokens, strict=True)]
    # filled on the device: a copy of numbers would wait for all that a GPU computes
    mask = torch.cat(
        [q.new_full((1, 1, 1, n), log) for n, log in zip(tokens, each, strict=True)], -1
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    joined_k, joined_v = (torch.cat(list(x), dim=1)[None] for x in (keys, values))
    out = F.scaled_dot_product_attention(
        _fold(q, q.shape[0]), joined_k, joined_v, attn_mask=mask, scale=tau * scale
    )
    return _unfold(out, q.shape[0])


def fall(shape: Fall, progress: float) -> float:
    """The share 0 to 1 of a decrease that is done at `progress` 0 to 1: the schedules of arXiv 2605.26538, and none."""
    if shape == "constant":
        return 0.0
    if shape == "linear":
        return progress
    if shape == "cosine":
        return (1.0 - math.cos(math.pi * progress)) / 2.0
    return math.sqrt(progress)


def blend_query(query: Tensor, content: Tensor, gamma: float | Tensor) -> Tensor:
    """Query preservation: gamma q_content + (1 - gamma) q, StyleID eq. 5; shapes (B, H, L, d), `gamma` also (B, 1, 1, 1)."""
    return torch.lerp(query, content, gamma)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, tau: float = 1.0, scale: float | None = None
) -> Tensor:
    """softmax(tau q k^T scale) v with fused kernels; (B, H, L, d) each, scale 1/sqrt(d) unless given.

    `tau` is StyleID's attention temperature (eq. 7), folded into the kernel's scale.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return F.scaled_dot_product_attention(q, k, v, scale=tau * scale)


def attend_shared(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Sequence[int],
    *,
    tau: float = 1.0,
    scale: float | None = None,
) -> Tensor:
    """Attention of P queries to S keys and values, the first `counts[0]` to row 0 and so on.

    q (P, H, L, d) with P = sum(counts); k, v (S, H, M, d) with S = len(counts). Queries of one style
    are laid end to end as one long sequence: rows of a softmax are independent, so this is exact and
    copies neither k nor v. Returns (P, H, L, d).
    """
    if len(set(counts)) == 1:  # one kernel call for all styles
        return _unfold(attend(_fold(q, counts[0]), k, v, tau=tau, scale=scale), counts[0])
    # Uneven counts take a call per style: padding them to one length would compute rows that are thrown away.
    parts = []
    for row, part in enumerate(q.split(list(counts))):
        out = attend(
            _fold(part, counts[row]), k[row : row + 1], v[row : row + 1], tau=tau, scale=scale
        )
        parts.append(_unfold(out, counts[row]))
    return torch.cat(parts)


def _fold(q: Tensor, count: int) -> Tensor:
    """(S * count, H, L, d) -> (S, H, count * L, d); a view where heads lie within tokens, as projections give them."""
    rows, heads, tokens, dim = q.shape
    return q.transpose(1, 2).reshape(rows // count, count * tokens, heads, dim).transpose(1, 2)


def _unfold(out: Tensor, count: int) -> Tensor:
    """(S, H, count * L, d) -> (S * count, H, L, d); a view where heads lie within tokens, as kernels give them."""
    rows, heads, tokens, dim = out.shape
    return out.transpose(1, 2).reshape(rows * count, tokens // count, heads, dim).transpose(1, 2)
