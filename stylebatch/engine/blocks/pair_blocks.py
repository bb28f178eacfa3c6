"""Blocks of a user's method of pairs: contents and styles are prepared once, and selected for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylebatch.data.images import Pixels
from stylebatch.engine.blocks.blending import components, latent_masks
from stylebatch.engine.blocks.block_method import (
    Context,
    DefaultBlocks,
    PicturesByIndex,
    Rendered,
    SampleRequest,
)
from stylebatch.engine.blocks.user_methods import guarded, guarded_render, rows_fault
from stylebatch.methods.builtin import RendersPairs
from stylebatch.methods.pair_samples import PairSamples
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.block_pairs import Mixture


@dataclass(frozen=True)
class Contents:
    """What the method made of contents, a row each, and their masks in latent cells (C, 1, h, w)."""

    prepared: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Styles:
    """What the method made of the images of styles, a row each, and the styles as mixtures of them."""

    prepared: Tensor
    mixtures: list[Mixture]

    def parts(self, style: int) -> tuple[tuple[float, Tensor], ...]:
        """The images of a style, each with its weight."""
        mixture = self.mixtures[style]
        prepared = [self.prepared[row] for row in mixture.rows]
        return tuple(zip(mixture.weights, prepared, strict=True))


class PairBlocks(DefaultBlocks):
    """Every method that derives from `PairMethod`, except StyleID."""

    method: RendersPairs

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._names = [item.id for item in self.plan.images(1)]

    def prepare(self, axis: str, inputs: PicturesByIndex, batch: int) -> Contents | Styles:
        pictures = {index: one for index, one in inputs.items() if one is not None}
        if axis != "content":
            # all of one size: methods of users take no styles of other sizes
            (images,), mixtures = components(pictures, self._names)
            return Styles(self._made(axis, [one.pixels for one in images], batch), mixtures)
        pixels = [picture.pixels for picture in pictures.values()]
        factor = self.model.latent_factor
        cells = pixels[0].shape[0] // factor, pixels[0].shape[1] // factor
        masks = latent_masks(pictures.values(), cells)
        if masks is None:
            masks = torch.ones(len(pixels), 1, *cells)
        return Contents(self._made(axis, pixels, batch), masks.to(self.model.device))

    def _made(self, axis: str, pixels: Sequence[Pixels], batch: int) -> Tensor:
        images, method = to_tensor(pixels), self.method

        def make() -> Tensor:
            parts = images.split(batch)
            made: list[Any] = [method.prepare(self.model, axis, part) for part in parts]
            odd = [one for one in made if not isinstance(one, Tensor)]
            return odd[0] if odd else torch.cat(made).detach()

        def fault(found: object) -> str:
            return rows_fault(found, len(pixels))

        return guarded(self.plan.spec.method, method, "prepare", make, fault)

    def render(
        self, requests: Sequence[SampleRequest], rows: Contents, columns: Styles, batch: int
    ) -> Rendered:
        (wide, tall), factor = requests[0].size, self.model.latent_factor
        contents, styles = [one.row for one in requests], [one.column for one in requests]
        pairs = PairSamples(
            contents=rows.prepared[contents],
            styles=columns.prepared[[columns.mixtures[style].rows[0] for style in styles]],
            seeds=tuple(sample.seed for sample in requests),
            shape=(self.model.latent_channels, tall // factor, wide // factor),
            masks=rows.masks[contents],
            parts=tuple(columns.parts(style) for style in styles),
        )
        return Rendered(
            guarded_render(
                self.plan.spec.method, self.method, (len(pairs), *pairs.shape), self.model.device,
                lambda: self.method.render(self.model, pairs, batch=batch),
            )
        )  # fmt: skip
