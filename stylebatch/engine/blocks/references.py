"""Reference images of StyleAligned, inverted: kept while their set is rendered, and in the style cache where one is given."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stylebatch.data.images import Picture
from stylebatch.features.cache_index import DamagedStyleError, MissingStyleError
from stylebatch.features.codecs import Codec
from stylebatch.features.style_cache import StyleCache, StyleKey, hash_pixels
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.stylealigned.algorithm import StyleAligned
from stylebatch.models.denoiser import Denoiser

Inversion = tuple[Tensor, ...]
"""`steps` + 1 latents (1, c, h, w), the noisiest first."""


class References:
    """Inversions for one method and model; the last one made is kept.

    `on_saved` gets the number of evaluations that the plan counts and that were not needed.
    """

    def __init__(
        self,
        method: StyleAligned,
        model: Denoiser,
        *,
        model_fingerprint: str,
        cache: str | None,
        on_saved: Callable[[int], None] | None,
    ) -> None:
        self.method, self.model, self.on_saved = method, model, on_saved
        self.model_fingerprint = model_fingerprint
        self.cache = None if cache is None else StyleCache(cache)
        self._kept: tuple[tuple[str, str], Inversion] | None = None

    def forget(self) -> None:
        """Drop the inversion that is kept."""
        self._kept = None

    def inverted(self, picture: Picture, prompt: str, name: str) -> Inversion:
        """The inversion of a picture that shows `prompt`; `name` is for people who look into the cache."""
        key = self._key(picture, prompt)
        wanted = name, key.digest  # one name a picture: the plan counts inversions by names
        if self._kept is None or self._kept[0] != wanted:
            self._kept = wanted, self._found_or_made(key, picture, prompt, name)
        return self._kept[1]

    def saved(self) -> None:
        """Note that an inversion which the plan counts was there."""
        if self.on_saved is not None:
            self.on_saved(self.method.prepare_evaluations("set"))

    def _key(self, picture: Picture, prompt: str) -> StyleKey:
        method, (height, width) = self.method, picture.pixels.shape[:2]
        conditions = {"prompt": prompt, "guidance": method.inversion_guidance}
        return StyleKey(
            pixels=hash_pixels(picture.pixels),
            model=self.model_fingerprint,
            dtype=str(self.model.dtype).removeprefix("torch."),
            size=(height, width),
            convention=method.name,
            start="",
            steps=method.steps,
            sites=(),
            prompt=json.dumps(conditions, sort_keys=True),
            codec=Codec("trajectory", "float32"),
        )

    def _found_or_made(self, key: StyleKey, picture: Picture, prompt: str, name: str) -> Inversion:
        if self.cache is not None and (found := self._found(self.cache, key.digest)) is not None:
            self.saved()
            return found
        image = to_tensor([picture.pixels])
        made = self.method.invert_image(self.model, image, prompt)
        if self.cache is not None:
            with self.cache.writer(key, {"style_id": name}) as writer:
                writer.commit({place: one[0].cpu().numpy() for place, one in enumerate(made)})
        return made

    def _found(self, cache: StyleCache, digest: str) -> Inversion | None:
        """Latents by their place in the inversion; None where the cache has none that can be used."""
        for _ in range(2):  # after damage once more, with the index rebuilt
            try:
                stored = cache.open(digest).trajectory()
            except MissingStyleError:
                return None
            except DamagedStyleError:
                cache.recover(digest)
                continue
            if sorted(stored) == list(range(self.method.steps + 1)):
                return tuple(
                    torch.from_numpy(np.array(stored[place]))[None].to(self.model.device)
                    for place in sorted(stored)
                )
            cache.set_aside(digest)
        return None
