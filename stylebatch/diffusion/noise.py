"""One random stream per sample, so that batching never changes a draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal (B, *shape) float32 on the CPU; row i comes from a generator seeded with `seeds[i]`."""
    # On the CPU also for a GPU run: CUDA generators give other numbers for the same seed.
    return torch.stack(
        [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
