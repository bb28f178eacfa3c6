"""Files of textual inversions."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def vectors(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 4


def written(folder: Path, name: str, tensors: dict[str, Tensor]) -> str:
    save_file(tensors, folder / f"{name}.safetensors")
    return str(folder / f"{name}.safetensors")
