"""Styles of a run out of a style cache: opened where they are there, inverted and written where they are not.

A style is inverted alone, never in a batch, so that what the cache holds depends on the style and nothing else, and
the run that writes it goes on with the bytes that a later run reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stylebatch.data.images import Component, Pixels
from stylebatch.data.plan import PairPlan
from stylebatch.methods.codec import FeatureCodec
from stylebatch.methods.features import Inverted, SiteFeatures
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid import StyleID
from stylebatch.models.stable_diffusion import StableDiffusion
from stylebatch.store.cache_index import DamagedStyleError, MissingStyleError
from stylebatch.store.cached_style import CachedStyle, SiteArrays, prefetch
from stylebatch.store.codecs import Codec
from stylebatch.store.style_cache import StyleCache, StyleKey, hash_pixels

MAX_BUILDS = 3
"""Of one style in a row: another process may remove what was just written."""
_TORCH = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Style:
    """A style's image as the cache knows it: its key, its pixels, and its name for people."""

    key: StyleKey
    pixels: Pixels
    name: str


class StyleBank:
    """Inverted styles for one method and model. `model_fingerprint` and `dtype` are those of the network."""

    def __init__(
        self,
        cache: StyleCache,
        codec: Codec,
        method: StyleID,
        model: StableDiffusion,
        *,
        model_fingerprint: str,
    ) -> None:
        self.cache, self.codec = cache, codec
        self.method, self.model = method, model
        self.model_fingerprint = model_fingerprint
        self.num_built = 0

    @classmethod
    def of_plan(cls, plan: PairPlan, method: StyleID, model: StableDiffusion) -> StyleBank:
        """The bank of a plan whose styles are cached; floats are stored in the network's own precision."""
        cache = plan.spec.features.cache
        if cache is None:
            raise ValueError("features.cache: found none; accepted: a folder or fsspec URL")
        dtype: Literal["float16", "float32"] = (
            "float16" if model.unet.dtype == torch.float16 else "float32"
        )
        codec = Codec(plan.choice.codec, dtype)
        fingerprint = str(plan.identity["model_fingerprint"])
        return cls(StyleCache(cache), codec, method, model, model_fingerprint=fingerprint)

    def style(self, pixels: Pixels, name: str) -> Style:
        """`pixels` of the run's size under the key of everything that decides their features."""
        method = self.method
        height, width = pixels.shape[:2]
        key = StyleKey(
            pixels=hash_pixels(pixels),
            model=self.model_fingerprint,
            dtype=str(self.model.unet.dtype).removeprefix("torch."),
            size=(height, width),
            convention=method.convention,
            start=method.start or "",
            steps=method.steps,
            sites=method.sites if method.inject else (),
            prompt="",
            codec=self.codec,
            rule="" if method.rule == "ddim" else method.rule,
            grid="" if method.grid == "stride" else method.grid,
        )
        return Style(key, pixels, name)

    def inverted(self, styles: Sequence[Style]) -> Inverted:
        """The styles as one batch, features streamed from the cache; those it lacks are written first."""
        opened = [self.open(style) for style in styles]
        levels = [cached.trajectory() for cached in opened]
        last = max(levels[0])
        latent = torch.from_numpy(np.stack([latents[last] for latents in levels]))
        steps = self.method.trajectory(self.model).reverse
        timesteps = tuple(step.t for step in steps) if self.method.inject else ()

        def again(row: int) -> CachedStyle:
            self.cache.set_aside(styles[row].key.digest)
            return self.open(styles[row])

        features = CachedFeatures(opened, timesteps, self.model.device, again)
        return Inverted(latent.to(self.model.device), features)

    def open(self, style: Style) -> CachedStyle:
        """The style from the cache, made now if it is missing or damaged."""
        digest = style.key.digest
        for _ in range(MAX_BUILDS):
            try:
                opened = self.cache.open(digest)
                opened.trajectory()  # read now, so that its damage is seen here
                return opened
            except MissingStyleError:
                pass
            except DamagedStyleError:
                self.cache.set_aside(digest)
            self.build(style)
        return self.cache.open(digest)

    def has(self, style: Style) -> bool:
        """Whether the cache holds the style; nothing is read of it."""
        return self.cache.contains(style.key.digest)

    def fill(self, images: Sequence[Component]) -> int:
        """Write those of the images that the cache lacks; how many."""
        wanted = [self.style(image.pixels, image.name) for image in images]
        missing = [style for style in wanted if not self.has(style)]
        for style in missing:
            self.build(style)
        return len(missing)

    def build(self, style: Style) -> None:
        """Invert the style and write it."""
        latents = self.model.encode(to_tensor([style.pixels]))
        codec = feature_codec(self.codec)
        inverted = self.method.invert(self.model, latents, "key_value", codec=codec)
        path = self.method.trajectory(self.model)
        used = {step.t for step in path.reverse} if self.method.inject else set()
        with self.cache.writer(style.key, {"style_id": style.name}) as writer:
            for t in sorted(used):
                sites = inverted.features.at(t)
                writer.append_encoded(
                    t,
                    {
                        site: {name: tensor[0].cpu().numpy() for name, tensor in tensors.items()}
                        for site, tensors in sites.items()
                    },
                )
            writer.commit(
                {level: latent[0].cpu().numpy() for level, latent in inverted.levels.items()}
            )
        self.num_built += 1


class CachedFeatures:
    """Features of S cached styles, the next timestep read meanwhile; a damaged style is made `again` on the spot."""

    def __init__(
        self,
        styles: list[CachedStyle],
        timesteps: Sequence[int],
        device: torch.device,
        again: Callable[[int], CachedStyle],
    ) -> None:
        self.styles, self.timesteps, self.device, self.again = styles, timesteps, device, again
        self._coming: Iterator[tuple[int, list[SiteArrays]]] = iter(())
        self._due: list[int] = []

    def at(self, t: int) -> SiteFeatures:
        """Features of all styles at `t`, (S, ...) on the device; asked in the order of `timesteps`."""
        if not self._due or self._due[0] != t:
            self._start(t)
        try:
            _, loaded = next(self._coming)
        except DamagedStyleError:
            self._repair(t)
            _, loaded = next(self._coming)
        self._due.pop(0)
        return {
            site: {name: self._stack([arrays[site][name] for arrays in loaded]) for name in tensors}
            for site, tensors in loaded[0].items()
        }

    def _start(self, t: int) -> None:
        self._due = list(self.timesteps[self.timesteps.index(t) :])
        self._coming = prefetch(self.styles, tuple(self._due), decode=False)

    def _repair(self, t: int) -> None:
        for row, style in enumerate(self.styles):
            try:
                style.encoded_at(t)
            except DamagedStyleError:
                self.styles[row] = self.again(row)
        self._start(t)

    def _stack(self, arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)


def feature_codec(codec: Codec) -> FeatureCodec:
    """The codec on tensors that keeps what this one stores."""
    if codec.name == "trajectory":
        raise ValueError("codec: found trajectory, which stores no features; accepted: kv, x, x8")
    return FeatureCodec(codec.name, _TORCH[codec.dtype])
