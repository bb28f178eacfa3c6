"""The attention edit of StyleID's reverse, with per-site gammas, blends of styles and masks."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.diffusion import attention
from stylebatch.methods.styleid.block_pairs import Mixture, Pairs
from stylebatch.methods.styleid.codec import keys_values
from stylebatch.methods.styleid.features import InvertedStyles, SiteFeatures
from stylebatch.models.denoiser import SelfAttention, Site
from stylebatch.models.family import NUM_SITES


class StyleFeatures:
    """What a timestep's styles lend; keys and values are projected once, whatever number of batches and threads reads them."""

    def __init__(self, features: SiteFeatures) -> None:
        self.features = features
        self._projected: dict[Site, tuple[Tensor, Tensor]] = {}
        self._projecting = threading.Lock()

    def at(self, site: Site, layer: SelfAttention, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """k and v (S, H, L, d)."""
        # lanes ask at once: two projections would be right, and twice the memory
        with self._projecting:
            if site not in self._projected:
                self._projected[site] = keys_values(self.features[site], layer, dtype)
            return self._projected[site]


class Injection:
    """Attention edit of the reverse: blended content queries against the style's keys and values.

    `mixtures`: each style of the pairs as rows of `inverted`. `masks` (C, 1, h, w) in [0, 1] at latent
    resolution: 0 keeps a layer's own attention. `gammas` by site, `content` and `styles` (by size) are set per timestep.
    """

    def __init__(
        self,
        pairs: Pairs,
        mixtures: Sequence[Mixture],
        tau: float,
        inverted: InvertedStyles,
        *,
        blend: str = "tokens",
        masks: Tensor | None = None,
    ) -> None:
        self.tau, self.blend = tau, blend
        device = inverted.by_size[0].latent.device
        distinct = list(dict.fromkeys(pairs.style))
        self.counts = [pairs.style.count(style) for style in distinct]
        self.mixtures = [mixtures[style] for style in distinct]
        self.has_blends = any(mixture.is_blend for mixture in self.mixtures)
        self.places = [[inverted.place(row) for row in mixture.rows] for mixture in self.mixtures]
        self.sizes = sorted({number for places in self.places for number, _ in places})
        self.content_rows = torch.tensor(pairs.content, device=device)
        self.pair_gammas = _by_pair(pairs.gammas, device)
        self.pair_taus = _by_pair(pairs.taus, device)
        rows = [places[0][1] for places in self.places]
        self.first, self.stop = rows[0], rows[-1] + 1
        self.style_rows = (
            None
            # neighbouring rows are a view; index_select would copy k and v at every site and timestep
            if rows == list(range(self.first, self.stop))
            else torch.tensor(rows, device=device)
        )
        self.masks = None if masks is None else masks.to(device)[self.content_rows]
        self.gammas: Mapping[Site, float] = {}
        self.content: SiteFeatures = {}
        self.styles: Sequence[StyleFeatures] = ()

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        # by token, as the projection wrote it: rows are then copied whole, and folding them copies nothing
        by_token = self.content[site]["q"].transpose(1, 2)
        content_q = by_token.index_select(0, self.content_rows).transpose(1, 2)
        unblended = layer.query(hidden)
        gamma: float | Tensor = self.gammas[site % NUM_SITES]
        if self.pair_gammas is not None:
            gamma = (gamma * self.pair_gammas).to(unblended.dtype)
        q = attention.blend_query(unblended, content_q, gamma)
        if self.pair_taus is not None:
            # a kernel has one scale for all pairs; that of the logits may as well be in the queries
            q = q * self.pair_taus.to(q.dtype)
        lent = {number: self.styles[number].at(site, layer, q.dtype) for number in self.sizes}
        attended = self._attend(q, lent, layer.scale)
        if self.masks is not None:
            plain = attention.attend(
                unblended, layer.key(hidden), layer.value(hidden), scale=layer.scale
            )
            mask = _at_tokens(self.masks, hidden.shape[1]).to(attended.dtype)
            attended = mask * attended + (1.0 - mask) * plain
        return layer.output(attended)

    def _attend(self, q: Tensor, lent: Mapping[int, tuple[Tensor, Tensor]], scale: float) -> Tensor:
        """`lent`: k and v of the styles of each size."""
        if len(lent) == 1 and not self.has_blends:
            ((k, v),) = lent.values()
            k, v = self._chosen(k), self._chosen(v)
            return attention.attend_shared(q, k, v, self.counts, tau=self.tau, scale=scale)
        parts = []
        for part, mixture, places in zip(
            q.split(self.counts), self.mixtures, self.places, strict=True
        ):
            of_images = [(k[row], v[row]) for k, v, row in ((*lent[n], row) for n, row in places)]
            parts.append(self._attend_one(part, mixture, of_images, scale))
        return torch.cat(parts)

    def _attend_one(
        self, q: Tensor, mixture: Mixture, lent: Sequence[tuple[Tensor, Tensor]], scale: float
    ) -> Tensor:
        """Pairs of one style; `lent`: k and v (H, L, d) of each of its images."""
        if self.blend == "tokens" and self.has_blends:
            keys, values = zip(*lent, strict=True)
            return attention.attend_blended(
                q, keys, values, mixture.weights, tau=self.tau, scale=scale
            )
        each = [
            attention.attend_shared(q, k[None], v[None], [len(q)], tau=self.tau, scale=scale)
            for k, v in lent
        ]
        if not mixture.is_blend:
            return each[0]
        weighted = [w * out for w, out in zip(mixture.weights, each, strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def _chosen(self, x: Tensor) -> Tensor:
        if self.style_rows is None:
            return x[self.first : self.stop]
        return x.index_select(0, self.style_rows)


def _by_pair(values: tuple[float, ...], device: torch.device) -> Tensor | None:
    """(P, 1, 1, 1), None for no values."""
    return torch.tensor(values, device=device)[:, None, None, None] if values else None


def _at_tokens(masks: Tensor, num_tokens: int) -> Tensor:
    """Masks (P, 1, h, w) -> (P, 1, L, 1): means over the latent cells of each token."""
    height, width = masks.shape[-2:]
    # the tokens of deeper sites are squares of f x f cells
    factor = math.isqrt(height * width // num_tokens)
    pooled = F.avg_pool2d(masks, factor) if factor > 1 else masks
    return pooled.flatten(2)[..., None]
