"""Classifier-free guidance."""

from __future__ import annotations

from torch import Tensor


def guide(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """eps_negative + w (eps_positive - eps_negative), any equal shapes; w = 1 is no guidance.

    Classifier-free guidance (arXiv 2207.12598) with w counted from 1, as pipelines count it.
    """
    return negative + scale * (positive - negative)
