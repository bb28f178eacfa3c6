"""Attention features of inverted images, one timestep at a time, behind one interface.

Inversion visits timesteps ascending, the reverse descending. Features of a timestep are *held* since the inversion, on the
device or *hosted* in the machine's memory (`hosted.py`), *recomputed* from the latent that the inversion passed, or read by
a source of the engine's. All go through the codec, so that every source gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from stylebatch.methods.styleid.codec import EXACT, FeatureCodec
from stylebatch.models.denoiser import SelfAttention, Site

FeatureKind = Literal["query", "key_value"]
Kept = Literal["held", "hosted", "recomputed"]
"""Where an inversion leaves features: on the device, in the machine's memory, or nowhere but in its latents."""
SiteFeatures = dict[Site, dict[str, Tensor]]
"""Per site, by name, for the B inverted images: q of contents, (B, H, L, d); of styles what the codec stores."""


class FeatureSource(Protocol):
    """Where the features of B images come from; `at(t)` is asked for descending timesteps."""

    def at(self, t: float) -> SiteFeatures: ...


@dataclass
class HeldFeatures:
    """Features kept in memory since the inversion that made them."""

    by_timestep: dict[float, SiteFeatures] = field(default_factory=dict)

    def keep(self, t: float, features: SiteFeatures) -> None:
        self.by_timestep[t] = features

    def at(self, t: float) -> SiteFeatures:
        return self.by_timestep[t]


@dataclass
class RecomputedFeatures:
    """Features made again from the latents of the inversion; the timestep asked for last is kept."""

    recompute: Callable[[float], SiteFeatures]
    _last: tuple[float, SiteFeatures] | None = None

    def at(self, t: float) -> SiteFeatures:
        # timesteps are asked for in order, so that the last one is enough
        if self._last is None or self._last[0] != t:
            self._last = (t, self.recompute(t))
        return self._last[1]


@dataclass(frozen=True)
class Inverted:
    """B images turned to noise: last latent (B, c, h, w), features, and the latents at each noise level.

    `residual` (B, c, h, w), of a two-step rule: the latent before the last, less where a DDIM step would go back to.
    """

    latent: Tensor
    features: FeatureSource
    levels: dict[float, Tensor] = field(default_factory=dict)
    residual: Tensor | None = None

    @property
    def num_images(self) -> int:
        return int(self.latent.shape[0])


@dataclass(frozen=True)
class InvertedStyles:
    """Inverted images, those of one size together; rows count through the sizes."""

    by_size: tuple[Inverted, ...]

    @classmethod
    def of(cls, styles: Inverted | InvertedStyles) -> InvertedStyles:
        return cls((styles,)) if isinstance(styles, Inverted) else styles

    @property
    def num_images(self) -> int:
        return sum(one.num_images for one in self.by_size)

    def place(self, row: int) -> tuple[int, int]:
        """Which size a row is of, and its row there."""
        for number, one in enumerate(self.by_size):
            if row < one.num_images:
                return number, row
            row -= one.num_images
        raise IndexError(f"row {row} after the last; accepted: below {self.num_images}")

    def latent(self, row: int) -> Tensor:
        """(1, c, h, w) of one row."""
        number, inner = self.place(row)
        return self.by_size[number].latent[[inner]]


class Recorder:
    """Attention edit that computes a layer as usual and keeps what the codec stores of it."""

    def __init__(
        self, kind: FeatureKind, attend: Callable[..., Tensor], codec: FeatureCodec = EXACT
    ) -> None:
        self.kind = kind
        self.attend = attend
        self.codec = codec
        self.seen: SiteFeatures = {}

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        q, k, v = layer.query(hidden), layer.key(hidden), layer.value(hidden)
        if self.kind == "query":
            # a codec is about styles; queries are of contents
            self.seen[site] = {"q": q}
        else:
            self.seen[site] = self.codec.encode({"k": k, "v": v, "x": hidden})
        return layer.output(self.attend(q, k, v, scale=layer.scale))

    def take(self) -> SiteFeatures:
        """Features since the last call."""
        seen, self.seen = self.seen, {}
        return seen


def concatenate(parts: list[Inverted]) -> Inverted:
    """One `Inverted` of several batches whose features are of the same timesteps and come from the same kind of source."""
    if len(parts) == 1:
        return parts[0]
    sources = [part.features for part in parts]
    features: FeatureSource
    if all(isinstance(source, HeldFeatures) for source in sources):
        held = [source for source in sources if isinstance(source, HeldFeatures)]
        # taken out one timestep at a time: parts and whole together would be twice the memory
        timesteps = list(held[0].by_timestep)
        features = HeldFeatures(
            {t: join([source.by_timestep.pop(t) for source in held]) for t in timesteps}
        )
    else:
        features = RecomputedFeatures(lambda t: join([source.at(t) for source in sources]))
    levels = {level: torch.cat([part.levels[level] for part in parts]) for level in parts[0].levels}
    residuals = [part.residual for part in parts if part.residual is not None]
    return Inverted(
        torch.cat([part.latent for part in parts]),
        features,
        levels,
        torch.cat(residuals) if residuals else None,
    )


def join(parts: list[SiteFeatures]) -> SiteFeatures:
    """Features of several batches as those of one."""
    return {
        site: {name: torch.cat([part[site][name] for part in parts]) for name in tensors}
        for site, tensors in parts[0].items()
    }
