"""One random stream per sample, so that batching never changes a draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal (B, *shape) float32 on the CPU, row i from a generator of its own with `seeds[i]`."""
    return torch.stack(
        [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
