"""Blocks of StyleID: contents and styles are inverted, or styles taken from the cache; pairs advance in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylebatch.data.images import Component, Pixels
from stylebatch.engine.blocks.blending import components, latent_masks
from stylebatch.engine.blocks.block_method import (
    Context,
    DefaultBlocks,
    PicturesByIndex,
    Rendered,
    SampleRequest,
)
from stylebatch.features.style_bank import StyleBank
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import Mixture, Pairs, StyleID
from stylebatch.methods.styleid.block_pairs import back_in_order, by_style
from stylebatch.methods.styleid.codec import EXACT, FeatureCodec
from stylebatch.methods.styleid.features import FeatureKind, Inverted, InvertedStyles, Kept


@dataclass(frozen=True)
class Contents:
    """Inverted contents, and where each takes the style: (C, 1, h, w) or everywhere."""

    inverted: Inverted
    masks: Tensor | None


@dataclass(frozen=True)
class Styles:
    """Inverted images, and the styles as mixtures of them."""

    inverted: InvertedStyles
    mixtures: list[Mixture]


class StyleIDBlocks(DefaultBlocks):
    method: StyleID

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        plan = self.plan
        assert plan.choice is not None, "StyleID keeps features, so a choice was made"
        self.choice, self.on_saved = plan.choice, context.on_saved
        self._bank = None
        if self.choice.styles == "cached":
            self._bank = StyleBank.of_plan(plan, self.method, self.model)
        self._found: set[str] = set()
        self._names = [item.id for item in plan.images(1)]

    def prepare(self, axis: str, inputs: PicturesByIndex, batch: int) -> Contents | Styles:
        pictures = {index: one for index, one in inputs.items() if one is not None}
        if axis == "content":
            pixels = [picture.pixels for picture in pictures.values()]
            inverted = self._invert(pixels, "query", batch, self.choice.contents)
            cells = (inverted.latent.shape[-2], inverted.latent.shape[-1])
            return Contents(inverted, latent_masks(pictures.values(), cells))
        images, mixtures = components(pictures, self._names)
        return Styles(
            InvertedStyles(tuple(self._inverted_styles(some, batch) for some in images)), mixtures
        )

    def _inverted_styles(self, images: list[Component], batch: int) -> Inverted:
        """Images of one size."""
        if self._bank is not None:
            return self._from_bank(self._bank, images, batch)
        assert self.choice.styles != "cached", "cached styles have a bank"
        return self._invert(
            [image.pixels for image in images], "key_value", batch, self.choice.styles
        )

    def _invert(
        self, pixels: Sequence[Pixels], kind: FeatureKind, batch: int, keep: Kept
    ) -> Inverted:
        parts = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
        latents = torch.cat([self.model.encode(to_tensor(part)) for part in parts])
        codec = self.choice.codec
        kept = EXACT if codec == "trajectory" else FeatureCodec(codec)
        return self.method.invert(self.model, latents, kind, batch=batch, codec=kept, keep=keep)

    def _from_bank(self, bank: StyleBank, images: list[Component], batch: int) -> Inverted:
        """Styles from the cache; the plan counts each as inverted once, so those found there advance too."""
        built = bank.num_built
        styles = [bank.style(image.pixels, image.name) for image in images]
        inverted = bank.inverted(styles, batch=batch)
        new = {image.name for image in images} - self._found
        saved = len(new) - (bank.num_built - built)
        # counted once per worker, as the plan counts each style once
        self._found |= new
        if self.on_saved is not None and saved > 0:
            self.on_saved(saved * self.method.num_inversion_evaluations)
        return inverted

    def render(
        self, requests: Sequence[SampleRequest], rows: Contents, columns: Styles, batch: int
    ) -> Rendered:
        order = by_style([one.row for one in requests], [one.column for one in requests])
        pairs = Pairs(
            tuple(requests[i].row for i in order),
            tuple(requests[i].column for i in order),
            *self.method.drawn_by_pair([requests[i].seed for i in order]),
        )
        latents = self.method.stylise(
            self.model, rows.inverted, columns.inverted, pairs,
            batch=batch, mixtures=columns.mixtures, masks=rows.masks,
        )  # fmt: skip
        return Rendered(back_in_order(latents, order))

    def precompute(self, inputs: PicturesByIndex) -> int:
        if self._bank is None:
            return super().precompute(inputs)
        pictures = {index: one for index, one in inputs.items() if one is not None}
        images, _ = components(pictures, self._names)
        return sum(self._bank.fill(some) for some in images)
