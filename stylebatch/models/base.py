"""What methods see of a network: `Denoiser`, `Conditioning`, `SelfAttention` and attention edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stylebatch.diffusion.schedule import Schedule

Site = int
"""Self-attention of the decoder, 0..11: three positions for each of four levels, deepest first.

Layer b of a position with several transformer blocks (SDXL) has the number `site + NUM_SITES * b`.
"""
NUM_SITES = 12


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning: `hidden` (B, tokens, features). Batch 1 is broadcast to any batch.

    SDXL also takes `pooled` (B, features) and `time_ids` (B, 6): original height and width, top and left of
    the crop, target height and width, in pixels; without them the size of the latents at hand is told.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def expand(self, batch: int) -> Tensor:
        return self.hidden if self.hidden.shape[0] == batch else self.hidden.expand(batch, -1, -1)

    def select(self, rows: Sequence[int]) -> Conditioning:
        """The rows with these numbers, modulo the number of rows there are."""

        def pick(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[[row % x.shape[0] for row in rows]]

        return Conditioning(
            self.hidden[[row % self.hidden.shape[0] for row in rows]],
            pick(self.pooled),
            pick(self.time_ids),
        )

    def joined(self, other: Conditioning) -> Conditioning:
        """These rows, then those of `other`; parts that only one of them has are an error."""

        def join(name: str, a: Tensor | None, b: Tensor | None) -> Tensor | None:
            if (a is None) != (b is None):
                raise ValueError(f"conditioning: {name} is given on one side only")
            return None if a is None or b is None else torch.cat([a, b])

        return Conditioning(
            torch.cat([self.hidden, other.hidden]),
            join("pooled", self.pooled, other.pooled),
            join("time_ids", self.time_ids, other.time_ids),
        )


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
    """A latent diffusion model. Latents are float32; H W pixels, h w latent cells.

    `native_cells`: cells per side that the network was trained on.
    """

    schedule: Schedule
    device: torch.device
    sites: tuple[Site, ...]
    latent_factor: int
    latent_channels: int
    native_cells: int

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, c, h, w), the posterior's mode, scaled as the network expects."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`: (B, 3, H, W), clamped to [-1, 1]."""
        ...

    def embed(self, prompts: list[str]) -> Conditioning: ...

    def embed_nothing(self) -> Conditioning:
        """What guidance without a negative prompt leads away from: the empty prompt, or zeros (SDXL)."""
        ...

    def predict_noise(
        self, x: Tensor, t: int, cond: Conditioning, *, level: int | None = None
    ) -> Tensor:
        """eps for `x` (B, c, h, w) at timestep `t`, whatever the network was trained to predict.

        `level` is the noise level of `x` where it differs from `t`.
        """
        ...

    def editing(self, edit: AttentionEdit, sites: tuple[Site, ...]) -> AbstractContextManager[None]:
        """Install `edit` at `sites`, all their layers, for the duration of a `with` block; always removed."""
        ...

    @property
    def num_self_attentions(self) -> int:
        """Self-attention layers of the whole network, in the order of `editing_layers`."""
        ...

    def editing_layers(
        self, edit: AttentionEdit, layers: tuple[int, ...]
    ) -> AbstractContextManager[None]:
        """As `editing`, for any self-attention layers of the network; `edit` is given the layer's number."""
        ...

    def sharing_norms(self, reference: Tensor) -> AbstractContextManager[None]:
        """Group norms take the statistics of row i and of row `reference[i]` (B,) together."""
        ...
