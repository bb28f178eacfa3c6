"""What methods see of a network: `Denoiser`, `Conditioning`, `SelfAttention` and attention edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.diffusion.schedule import Schedule
from stylebatch.models.lanes import Lanes

Site = int
"""Self-attention of the decoder, 0..11: three positions for each of four levels, deepest first.

Layer b of a position with several transformer blocks (SDXL) has the number `site + NUM_SITES * b`.
"""


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning: `hidden` (B, tokens, features). Batch 1 is broadcast to any batch.

    SDXL also takes `pooled` (B, features) and `time_ids` (B, 6): original height and width, top and left of
    the crop, target height and width, in pixels; None: those of the latents at hand.
    `mask` (B, tokens) is true where a row has tokens; None: everywhere.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    mask: Tensor | None = None

    def expand(self, batch: int) -> Tensor:
        return self.hidden if self.hidden.shape[0] == batch else self.hidden.expand(batch, -1, -1)

    def select(self, rows: Sequence[int]) -> Conditioning:
        """The rows with these numbers, modulo the number of rows, so that batch 1 gives any row."""

        def pick(x: Tensor | None) -> Tensor | None:
            return None if x is None else _picked(x, rows)

        return Conditioning(
            _picked(self.hidden, rows),
            pick(self.pooled),
            pick(self.time_ids),
            pick(self.mask),
        )

    def joined(self, other: Conditioning) -> Conditioning:
        """These rows, then those of `other`. Rows of fewer tokens are padded, and the padding is masked.

        Raises ValueError if only one of them has `pooled` or `time_ids`.
        """

        def join(name: str, a: Tensor | None, b: Tensor | None) -> Tensor | None:
            if (a is None) != (b is None):
                raise ValueError(f"conditioning: {name} is given for one of two batches only")
            return None if a is None or b is None else torch.cat([a, b])

        sizes = self.hidden.shape[1], other.hidden.shape[1]
        most = max(sizes)
        # No mask where none is needed: with one, attention cannot use the fastest kernels.
        is_masked = sizes[0] != sizes[1] or self.mask is not None or other.mask is not None
        return Conditioning(
            torch.cat([self._padded(most), other._padded(most)]),
            join("pooled", self.pooled, other.pooled),
            join("time_ids", self.time_ids, other.time_ids),
            torch.cat([self._padded_mask(most), other._padded_mask(most)]) if is_masked else None,
        )

    def _padded(self, tokens: int) -> Tensor:
        return F.pad(self.hidden, (0, 0, 0, tokens - self.hidden.shape[1]))

    def _padded_mask(self, tokens: int) -> Tensor:
        mask = self.mask
        if mask is None:
            mask = torch.ones(self.hidden.shape[:2], dtype=torch.bool, device=self.hidden.device)
        return F.pad(mask, (0, tokens - mask.shape[1]))


def _picked(x: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows with these numbers, modulo the number of rows.

    Neighbours are a view, and a single row is repeated: numbers of rows would be copied to a GPU, and the copy waits for all that it
    computes.
    """
    places = [row % len(x) for row in rows]
    if len(x) == 1:
        return x.repeat(len(places), *[1] * (x.dim() - 1))
    if places and places == list(range(places[0], places[0] + len(places))):
        return x[places[0] : places[-1] + 1]
    return x[places]


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


Lenders = Callable[[int], Tensor]
"""`lenders(B) -> (B,)`: for each row of a batch of B the row that it borrows from."""


class Denoiser(Protocol):
    """A latent diffusion model. Latents are float32; H W pixels, h w latent cells.

    A class that derives from it has the members for text, memory and edits as those of a network without text and self-attention.
    `native_cells`: cells per side that the network was trained on. Callers may set the last four. `chunks`: long prompts are
    encoded in windows instead of cut. `on_evaluations` is called with the number of rows of each evaluation.
    `pictures_at_once`: the most pictures per call of the autoencoder, which needs more memory per picture than the network
    (None: no limit). `lanes`: on a CPU, evaluations whose rows no edit relates are cut into that many, side by side.
    """

    device: torch.device
    sites: tuple[Site, ...] = ()
    latent_factor: int
    latent_channels: int
    native_cells: int
    chunks: bool = False
    on_evaluations: Callable[[int], None] | None = None
    pictures_at_once: int | None = None
    lanes: Lanes | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's weights."""
        ...

    @property
    def schedule(self) -> Schedule: ...

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, c, h, w), the posterior's mode, scaled as the network expects."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`: (B, 3, H, W), clamped to [-1, 1]."""
        ...

    def num_windows(self, prompt: str) -> int:
        """Number of windows of the text encoder's context that a prompt takes; 1 unless `chunks`."""
        return 1

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt is too long and loses tokens."""
        return False

    def embed(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        """Conditioning of prompts. `windows`: the least number of windows of each; surplus ones are empty."""
        ...

    def embed_negative(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        """As `embed`, of negative prompts: `clip_skip` leaves out no layers of theirs."""
        return self.embed(prompts, windows) if windows else self.embed(prompts)

    def embed_nothing(self) -> Conditioning:
        """Conditioning for "no prompt", the negative side of guidance: the empty prompt, or zeros (SDXL)."""
        return self.embed_negative([""])

    def predict_noise(
        self, x: Tensor, t: float, cond: Conditioning, *, level: float | None = None
    ) -> Tensor:
        """The estimate for `x` (B, c, h, w) at timestep `t`, as `schedule.split` expects it.

        For a diffusion schedule that is eps, whatever the network was trained to predict.
        `level` is the noise level of `x` where it differs from `t`.
        """
        ...

    def editing(self, edit: AttentionEdit, sites: tuple[Site, ...]) -> AbstractContextManager[None]:
        """Install `edit` at all layers of `sites` for a `with` block; it is removed even after an error."""
        raise _no_edits(self)

    @property
    def num_self_attentions(self) -> int:
        """Self-attention layers of the whole network, in the order of `editing_layers`."""
        return 0

    def editing_layers(
        self, edit: AttentionEdit, layers: tuple[int, ...]
    ) -> AbstractContextManager[None]:
        """As `editing`, for any self-attention layers of the network; `edit` is given the layer's number."""
        raise _no_edits(self)

    def sharing_norms(self, lenders: Lenders) -> AbstractContextManager[None]:
        """Inside, group norms of row i of B use the statistics of rows i and `lenders(B)[i]` together."""
        raise _no_edits(self)


def _no_edits(model: object) -> ValueError:
    return ValueError(
        f"model: {type(model).__name__} has no self-attention that takes edits; accepted: a network of a family that takes them"
    )
