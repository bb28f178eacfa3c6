"""The attention edit of StyleID's reverse, with per-site gammas, blends of styles and masks."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.diffusion import attention
from stylebatch.methods.codec import keys_values
from stylebatch.methods.features import SiteFeatures
from stylebatch.methods.pairs import Mixture, Pairs
from stylebatch.models.base import NUM_SITES, SelfAttention, Site


class StyleFeatures:
    """What a timestep's styles lend; keys and values are projected once, whatever number of batches and threads reads them."""

    def __init__(self, features: SiteFeatures) -> None:
        self.features = features
        self._projected: dict[Site, tuple[Tensor, Tensor]] = {}
        self._projecting = threading.Lock()

    def at(self, site: Site, layer: SelfAttention, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """k and v (S, H, L, d)."""
        with self._projecting:
            if site not in self._projected:
                self._projected[site] = keys_values(self.features[site], layer, dtype)
            return self._projected[site]


class Injection:
    """Attention edit of the reverse: blended content queries against the style's keys and values.

    `mixtures`: each style of the pairs as rows of the features. `masks` (C, 1, h, w) in [0, 1] at latent
    resolution: 0 keeps a layer's own attention. `gammas` by site, `content` and `style` are set per timestep.
    """

    def __init__(
        self,
        pairs: Pairs,
        mixtures: Sequence[Mixture],
        tau: float,
        device: torch.device,
        *,
        blend: str = "tokens",
        masks: Tensor | None = None,
    ) -> None:
        self.tau, self.blend = tau, blend
        distinct = list(dict.fromkeys(pairs.style))
        self.counts = [pairs.style.count(style) for style in distinct]
        self.mixtures = [mixtures[style] for style in distinct]
        self.content_rows = torch.tensor(pairs.content, device=device)
        rows = [mixture.rows[0] for mixture in self.mixtures]
        self.first, self.stop = rows[0], rows[-1] + 1
        self.style_rows = (
            None
            if rows == list(range(self.first, self.stop))
            else torch.tensor(rows, device=device)
        )
        self.masks = None if masks is None else masks.to(device)[self.content_rows]
        self.gammas: Mapping[Site, float] = {}
        self.content: SiteFeatures = {}
        self.style = StyleFeatures({})

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        # by token, as the projection wrote it: rows are then copied whole, and folding them copies nothing
        by_token = self.content[site]["q"].transpose(1, 2)
        content_q = by_token.index_select(0, self.content_rows).transpose(1, 2)
        own = layer.query(hidden)
        q = attention.blend_query(own, content_q, self.gammas[site % NUM_SITES])
        k, v = self.style.at(site, layer, q.dtype)
        attended = self._attend(q, k, v, layer.scale)
        if self.masks is not None:
            plain = attention.attend(own, layer.key(hidden), layer.value(hidden), scale=layer.scale)
            mask = _at_tokens(self.masks, hidden.shape[1]).to(attended.dtype)
            attended = mask * attended + (1.0 - mask) * plain
        return layer.output(attended)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        if not any(mixture.is_blend for mixture in self.mixtures):
            k, v = self._chosen(k), self._chosen(v)
            return attention.attend_shared(q, k, v, self.counts, tau=self.tau, scale=scale)
        parts = []
        for part, mixture in zip(q.split(self.counts), self.mixtures, strict=True):
            rows = list(mixture.rows)
            if self.blend == "tokens":
                parts.append(
                    attention.attend_blended(
                        part, k[rows], v[rows], mixture.weights, tau=self.tau, scale=scale
                    )
                )
                continue
            each = [
                attention.attend_shared(
                    part, k[[row]], v[[row]], [len(part)], tau=self.tau, scale=scale
                )
                for row in rows
            ]
            weighted = [w * out for w, out in zip(mixture.weights, each, strict=True)]
            parts.append(torch.stack(weighted).sum(dim=0))
        return torch.cat(parts)

    def _chosen(self, x: Tensor) -> Tensor:
        if self.style_rows is None:
            return x[self.first : self.stop]
        return x.index_select(0, self.style_rows)


def _at_tokens(masks: Tensor, num_tokens: int) -> Tensor:
    """Masks (P, 1, h, w) -> (P, 1, L, 1): means over the latent cells of each token."""
    height, width = masks.shape[-2:]
    factor = math.isqrt(height * width // num_tokens)
    pooled = F.avg_pool2d(masks, factor) if factor > 1 else masks
    return pooled.flatten(2)[..., None]
