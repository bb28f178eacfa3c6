"""What is kept of a style at a site: k and v, or the layer's input x (k = W_k x, v = W_v x), as floats or int8.

The same forms as `stylebatch.features.codecs`, bit for bit, on tensors with a batch axis and on any device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stylebatch.models.denoiser import SelfAttention

LARGEST_INT8 = 127
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class FeatureCodec:
    """`kv`: k and v; `x`: the layer's input; `x8`: that as int8 with a float32 scale per image and channel.

    `dtype`: precision of k, v and x; None leaves them as the network computes them.
    """

    name: Literal["kv", "x", "x8"] = "kv"
    dtype: torch.dtype | None = None

    def encode(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is kept of k, v (B, H, L, d) and x (B, L, features)."""
        if self.name == "kv":
            return {name: self._cast(tensors[name]) for name in ("k", "v")}
        if self.name == "x":
            return {"x": self._cast(tensors["x"])}
        values = tensors["x"].float()
        largest = values.abs().amax(dim=1)
        # not `> 0`: the scale of a channel with NaN must be NaN, which the cache refuses, and not 0
        scale = (largest / LARGEST_INT8).clamp_min(SMALLEST_SCALE).where(largest != 0, 0.0)
        # a channel of zeros has scale 0; divided by 1 it stays 0
        steps = values / scale.where(scale > 0, 1.0)[:, None]
        return {"x": steps.round().to(torch.int8), "x.scale": scale}

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype or tensor.dtype).contiguous()


EXACT = FeatureCodec()
"""Keys and values as they were computed."""


def keys_values(
    kept: Mapping[str, Tensor], layer: SelfAttention, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """k and v (B, H, L, d) of what any codec kept, in `dtype`."""
    if "x" not in kept:
        return kept["k"].to(dtype), kept["v"].to(dtype)
    x = kept["x"]
    if "x.scale" in kept:
        x = x.float() * kept["x.scale"][:, None]
    x = x.to(dtype)
    return layer.key(x), layer.value(x)
