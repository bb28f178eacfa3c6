"""The styles of a run from a style cache; missing ones are inverted and written first.

A style is inverted alone, never in a batch, so that its bytes depend on the style and nothing else. A run that writes a style
renders with the bytes that a later run reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stylebatch.data.images import Component, Pixels
from stylebatch.features.cache_index import DamagedStyleError, MissingStyleError
from stylebatch.features.cached_style import CachedStyle, SiteArrays, prefetch
from stylebatch.features.codecs import LATENT_DTYPE, TENSORS, Codec
from stylebatch.features.style_cache import StyleCache, StyleKey, hash_pixels
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.codec import EXACT, FeatureCodec
from stylebatch.methods.styleid.features import (
    Inverted,
    Kept,
    RecomputedFeatures,
    SiteFeatures,
    concatenate,
)
from stylebatch.models.denoiser import Denoiser
from stylebatch.planning.plan import Plan

MAX_TRIES = 6
"""Tries to open one style: it may be repaired, set aside and made again, and another process may remove it meanwhile."""
_TORCH = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Style:
    """A style's image: its key in the cache, its pixels, and its name for people."""

    key: StyleKey
    pixels: Pixels
    name: str


class StyleBank:
    """Inverted styles for one method and model. `model_fingerprint`: that of the model's checkpoint."""

    def __init__(
        self,
        cache: StyleCache,
        codec: Codec,
        method: StyleID,
        model: Denoiser,
        *,
        model_fingerprint: str,
    ) -> None:
        self.cache, self.codec = cache, codec
        self.method, self.model = method, model
        self.model_fingerprint = model_fingerprint
        self.num_built = 0

    @classmethod
    def of_plan(cls, plan: Plan, method: StyleID, model: Denoiser) -> StyleBank:
        """The bank of a plan whose styles are cached; floats are stored in the network's precision."""
        cache = plan.spec.features.cache
        if cache is None or plan.choice is None:
            raise ValueError("features.cache: found none; accepted: a folder or fsspec URL")
        dtype: Literal["float16", "float32"] = (
            # numpy has no bfloat16: its features are stored as float32, without loss
            "float16" if model.dtype == torch.float16 else "float32"
        )
        # latents are float32 whatever the network is: a type of features would make two keys of the same bytes
        codec = Codec(plan.choice.codec, dtype if TENSORS[plan.choice.codec] else LATENT_DTYPE)
        identity = plan.identity
        # textual inversions and clip_skip change no features without a prompt
        whole = identity["model_fingerprint"]
        fingerprint = str(identity.get("fingerprint_without_prompts", whole))
        opened = StyleCache(cache, most_copies=plan.spec.features.most_copies)
        return cls(opened, codec, method, model, model_fingerprint=fingerprint)

    def style(self, pixels: Pixels, name: str) -> Style:
        """The style of `pixels`, which have the run's size; its key holds everything that affects its features."""
        method = self.method
        height, width = pixels.shape[:2]
        key = StyleKey(
            pixels=hash_pixels(pixels),
            model=self.model_fingerprint,
            dtype=str(self.model.dtype).removeprefix("torch."),
            size=(height, width),
            convention=method.convention,
            start=method.start or "",
            steps=method.steps,
            # latents hang on no site
            sites=method.sites if method.inject and self.codec.tensors else (),
            prompt="",
            codec=self.codec,
            # empty for the paper's: keys of caches from before these options must stay
            rule="" if method.rule == "ddim" else method.rule,
            grid=_grid_of(method),
        )
        return Style(key, pixels, name)

    def inverted(self, styles: Sequence[Style], *, batch: int = 16) -> Inverted:
        """The styles as one batch with features from the cache, or recomputed from its latents in evaluations of `batch` rows.

        Missing styles are written first.
        """
        opened = [self.open(style) for style in styles]
        if not self.codec.tensors:
            parts = [opened[i : i + batch] for i in range(0, len(opened), batch)]
            return concatenate([self._recomputed(part) for part in parts])
        latent = self._latents(opened, [self._last_level])[self._last_level]
        steps = self.method.trajectory(self.model).reverse
        timesteps = tuple(int(step.t) for step in steps) if self.method.inject else ()

        def reopen(row: int) -> CachedStyle:
            self.cache.recover(styles[row].key.digest)
            return self.open(styles[row])

        return Inverted(latent, CachedFeatures(opened, timesteps, self.model.device, reopen))

    def _recomputed(self, opened: Sequence[CachedStyle]) -> Inverted:
        """Styles whose latents alone are cached."""
        levels = self._latents(opened, sorted(opened[0].trajectory()))
        recompute = self.method.recomputing(self.model, levels, "key_value", EXACT)
        return Inverted(levels[self._last_level], RecomputedFeatures(recompute))

    def _latents(self, opened: Sequence[CachedStyle], levels: Sequence[int]) -> dict[float, Tensor]:
        """(S, c, h, w) on the device, by noise level."""
        each = [style.trajectory() for style in opened]
        stacked = {level: np.stack([latents[level] for latents in each]) for level in levels}
        device = self.model.device
        return {level: torch.from_numpy(array).to(device) for level, array in stacked.items()}

    def open(self, style: Style) -> CachedStyle:
        """The style from the cache. A damaged index is rebuilt; a missing, damaged or incomplete style is made again."""
        digest = style.key.digest
        for _ in range(MAX_TRIES):
            try:
                opened = self.cache.open(digest)
                if self._has_all(opened):
                    return opened
                self.cache.set_aside(digest)
            except MissingStyleError:
                self.build(style)
            except DamagedStyleError:
                self.cache.recover(digest)
        return self.cache.open(digest)

    def _has_all(self, opened: CachedStyle) -> bool:
        """Whether the style has the timesteps and latents of this method. Raises DamagedStyleError for damaged latents."""
        path = self.method.trajectory(self.model).inversion
        levels = {step.source for step in path} | {step.target for step in path}
        return opened.timesteps == self._timesteps() and levels == opened.trajectory().keys()

    @property
    def _last_level(self) -> int:
        """The noise level that the inversion ends at."""
        return int(self.method.trajectory(self.model).inversion[-1].target)

    def _timesteps(self) -> tuple[int, ...]:
        """Timesteps whose features are stored, ascending."""
        if not self.method.inject or not self.codec.tensors:
            return ()
        return tuple(sorted({int(step.t) for step in self.method.trajectory(self.model).reverse}))

    def has(self, style: Style) -> bool:
        """Whether the cache holds the style; its tar is not read."""
        return self.cache.contains(style.key.digest)

    def fill(self, images: Sequence[Component]) -> int:
        """Write the images that the cache lacks; returns their number."""
        styles = [self.style(image.pixels, image.name) for image in images]
        missing = [style for style in styles if not self.has(style)]
        for style in missing:
            self.build(style)
        return len(missing)

    def missing(self, images: Sequence[Component]) -> set[str]:
        """Keys of the images that the cache lacks."""
        styles = [self.style(image.pixels, image.name) for image in images]
        return {style.key.digest for style in styles if not self.has(style)}

    def build(self, style: Style) -> None:
        """Invert the style and write it."""
        latents = self.model.encode(to_tensor([style.pixels]))
        codec = feature_codec(self.codec) if self.codec.tensors else EXACT
        keep: Kept = "held" if self.codec.tensors else "recomputed"
        inverted = self.method.invert(self.model, latents, "key_value", codec=codec, keep=keep)
        with self.cache.writer(style.key, {"style_id": style.name}) as writer:
            for t in self._timesteps():
                sites = inverted.features.at(t)
                writer.append(
                    t,
                    {
                        site: {name: tensor[0].cpu().numpy() for name, tensor in tensors.items()}
                        for site, tensors in sites.items()
                    },
                )
            writer.commit({int(level): x[0].cpu().numpy() for level, x in inverted.levels.items()})
        self.num_built += 1


class CachedFeatures:
    """Features of S cached styles, read ahead by timestep. A damaged style is made again by `reopen`, and reading goes on."""

    def __init__(
        self,
        styles: list[CachedStyle],
        timesteps: Sequence[int],
        device: torch.device,
        reopen: Callable[[int], CachedStyle],
    ) -> None:
        self.styles, self.timesteps, self.device, self.reopen = styles, timesteps, device, reopen
        self._coming: Iterator[tuple[int, list[SiteArrays]]] = iter(())
        self._due: list[int] = []

    def at(self, t: float) -> SiteFeatures:
        """Features of all styles at `t`, (S, ...) on the device; called in the order of `timesteps`."""
        # a new reverse begins at the first timestep again, perhaps before the last one was read to its end
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

    def _start(self, t: float) -> None:
        self._due = list(self.timesteps[self.timesteps.index(int(t)) :])
        self._coming = prefetch(self.styles, tuple(self._due))

    def _repair(self, t: float) -> None:
        for row, style in enumerate(self.styles):
            try:
                style.at(int(t))
            except DamagedStyleError:
                self.styles[row] = self.reopen(row)
        self._start(t)

    def _stack(self, arrays: list[np.ndarray]) -> Tensor:
        """(S, ...) on the device. A GPU is not waited for: out of pinned memory the copy goes on by itself."""
        stacked = torch.from_numpy(np.stack(arrays))
        if self.device.type != "cuda":
            return stacked.to(self.device)
        return stacked.pin_memory().to(self.device, non_blocking=True)


def feature_codec(codec: Codec) -> FeatureCodec:
    """The codec of tensors whose encoded form is this one's stored form."""
    if codec.name == "trajectory":
        raise ValueError("codec: found trajectory, which stores no features; accepted: kv, x, x8")
    return FeatureCodec(codec.name, _TORCH[codec.dtype])


def _grid_of(method: StyleID) -> str:
    """`spread`, with its power where it has one."""
    if method.grid == "stride":
        return ""
    return method.grid if method.grid_power == 1.0 else f"{method.grid} {method.grid_power:g}"
