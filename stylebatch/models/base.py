"""What methods see of a network: `Denoiser`, `Conditioning`, `SelfAttention` and attention edits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stylebatch.diffusion.schedule import Schedule

Site = int
"""Self-attention layer of the decoder, 0..11: three positions for each of four levels, deepest first."""


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning: `hidden` (B, tokens, features). Batch 1 is broadcast to any batch."""

    hidden: Tensor

    def expand(self, batch: int) -> Tensor:
        return self.hidden if self.hidden.shape[0] == batch else self.hidden.expand(batch, -1, -1)


class SelfAttention(Protocol):
    """One self-attention layer, as an edit sees it. `hidden` is its input, (B, L, features)."""

    @property
    def scale(self) -> float: ...
    def query(self, hidden: Tensor) -> Tensor:
        """-> (B, H, L, d)"""
        ...

    def key(self, hidden: Tensor) -> Tensor:
        """-> (B, H, L, d)"""
        ...

    def value(self, hidden: Tensor) -> Tensor:
        """-> (B, H, L, d)"""
        ...

    def output(self, attended: Tensor) -> Tensor:
        """(B, H, L, d) -> (B, L, features), through the output projection."""
        ...


AttentionEdit = Callable[[Site, Tensor, SelfAttention], Tensor]
"""`edit(site, hidden, layer) -> (B, L, features)` replaces the layer's computation while installed."""


class Denoiser(Protocol):
    """A latent diffusion model. Latents are float32; H W pixels, h w latent cells."""

    schedule: Schedule
    device: torch.device
    sites: tuple[Site, ...]
    latent_factor: int

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, c, h, w), the posterior's mode, scaled as the network expects."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`: (B, 3, H, W), clamped to [-1, 1]."""
        ...

    def embed(self, prompts: list[str]) -> Conditioning: ...

    def predict_noise(
        self, x: Tensor, t: int, cond: Conditioning, *, level: int | None = None
    ) -> Tensor:
        """eps for `x` (B, c, h, w) at timestep `t`, whatever the network was trained to predict.

        `level` is the noise level of `x` where it differs from `t`.
        """
        ...

    def editing(self, edit: AttentionEdit, sites: tuple[Site, ...]) -> AbstractContextManager[None]:
        """Install `edit` at `sites` for the duration of a `with` block; always removed."""
        ...
