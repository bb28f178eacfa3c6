"""Distances between two pictures by the maps that a network makes of them, (1, c, h, w) each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = 1e-10
_ROWS_AT_ONCE = 1024


def perceptual_distance(
    first: Sequence[Tensor], second: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> float:
    """LPIPS: Zhang et al., CVPR 2018, arXiv 1801.03924, equation 1; 0 or more.

    Sum over layers of the mean over positions of the weighted squared difference of features of unit length. `weights`: (c,) of each
    layer; without, every channel weighs 1.
    """
    total = 0.0
    for layer, (one, other) in enumerate(zip(first, second, strict=True)):
        squares = (_unit(one) - _unit(other)) ** 2
        if weights is not None:
            squares = squares * weights[layer].reshape(1, -1, 1, 1)
        total += float(squares.sum(1).mean())
    return total


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(1, keepdim=True).sqrt() + _TINY)


def self_similarity_distance(result: Tensor, content: Tensor) -> float:
    """CFSD, as the evaluation of Chung et al. (CVPR 2024, arXiv 2312.09008) computes it; 0 or more.

    Rows of softmax(F F^T / c^2) say how alike a position is to all others; the sum over positions of KL(content || result).
    """
    one, other = _rows(result), _rows(content)
    total = 0.0
    # by parts: all positions of a picture of 512 px against all others would take 1 GB
    for start in range(0, len(one), _ROWS_AT_ONCE):
        end = start + _ROWS_AT_ONCE
        ours = torch.log_softmax(one[start:end] @ one.T, -1).cpu().double()
        theirs = torch.log_softmax(other[start:end] @ other.T, -1).cpu().double()
        total += float((theirs.exp() * (theirs - ours)).sum())
    return max(0.0, total)


def _rows(maps: Tensor) -> Tensor:
    """(h w, c), divided by c."""
    channels = maps.shape[1]
    return maps[0].reshape(channels, -1).T / channels
