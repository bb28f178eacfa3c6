"""Attention features of inverted images, one timestep at a time.

Inversion visits timesteps ascending, the reverse descending; a source hands out what one timestep needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from stylebatch.models.base import SelfAttention, Site

FeatureKind = Literal["query", "key_value"]
SiteFeatures = dict[Site, tuple[Tensor, ...]]
"""Per site: (q,) of contents or (k, v) of styles, each (B, H, L, d) for the B inverted images."""


class FeatureSource(Protocol):
    """Where the features of B images come from; `at(t)` is asked for descending timesteps."""

    def at(self, t: int) -> SiteFeatures: ...


@dataclass
class HeldFeatures:
    """Features kept in memory since the inversion that made them."""

    by_timestep: dict[int, SiteFeatures] = field(default_factory=dict)

    def at(self, t: int) -> SiteFeatures:
        return self.by_timestep[t]


@dataclass(frozen=True)
class Inverted:
    """B images turned to noise: last latent (B, c, h, w) and the features seen on the way."""

    latent: Tensor
    features: FeatureSource

    @property
    def num_images(self) -> int:
        return int(self.latent.shape[0])


class Recorder:
    """Attention edit that computes a layer as usual and keeps its q, or its k and v."""

    def __init__(self, kind: FeatureKind, attend: Callable[..., Tensor]) -> None:
        self.kind = kind
        self.attend = attend
        self.seen: SiteFeatures = {}

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        q, k, v = layer.query(hidden), layer.key(hidden), layer.value(hidden)
        self.seen[site] = (
            (q.contiguous(),) if self.kind == "query" else (k.contiguous(), v.contiguous())
        )
        return layer.output(self.attend(q, k, v, scale=layer.scale))

    def take(self) -> SiteFeatures:
        """Features since the last call."""
        seen, self.seen = self.seen, {}
        return seen


def concatenate(parts: list[Inverted]) -> Inverted:
    """One `Inverted` of several batches, all with held features of the same timesteps."""
    if len(parts) == 1:
        return parts[0]
    held = [part.features for part in parts]
    first = held[0]
    if not isinstance(first, HeldFeatures):
        raise TypeError("only held features can be concatenated")
    joined = {
        t: {
            site: tuple(
                torch.cat(tensors)
                for tensors in zip(*(source.at(t)[site] for source in held), strict=True)
            )
            for site in sites
        }
        for t, sites in first.by_timestep.items()
    }
    return Inverted(torch.cat([part.latent for part in parts]), HeldFeatures(joined))
