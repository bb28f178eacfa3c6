"""Blocks of methods whose samples have a prompt, alone or over an image: each image is encoded once for all its prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stylebatch.data.images import Picture, Pixels
from stylebatch.engine.blocks.block_method import (
    DefaultBlocks,
    PicturesByIndex,
    Rendered,
    SampleRequest,
)
from stylebatch.engine.blocks.user_methods import (
    guarded,
    guarded_render,
    named_rows_fault,
    pixels_fault,
)
from stylebatch.methods.builtin import RendersSamples
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.samples import Samples
from stylebatch.models.denoiser import Denoiser

ImagesByName = dict[str, Tensor]
"""What the method made of the images and masks of a block, a row each."""


class PromptBlocks(DefaultBlocks):
    """Text to image, image to image, inpainting, and methods of users that render prompts."""

    method: RendersSamples

    def prepare(self, axis: str, inputs: PicturesByIndex, batch: int) -> ImagesByName:
        pictures = [picture for picture in inputs.values() if picture is not None]
        if axis != "image":
            return {}
        images = {"image": to_tensor([picture.pixels for picture in pictures])}
        if "mask" in self.plan.options.inputs:
            images["mask"] = torch.cat([_mask(picture) for picture in pictures])
        return guarded(
            self.plan.spec.method, self.method, "prepare",
            lambda: self.method.prepare(self.model, images, batch=batch),
            lambda found: named_rows_fault(found, len(pictures)),
        )  # fmt: skip

    def render(
        self,
        requests: Sequence[SampleRequest],
        rows: ImagesByName,
        columns: ImagesByName,
        batch: int,
    ) -> Rendered:
        places = [sample.row for sample in requests]
        images = {name: one[places] for name, one in rows.items()}
        samples = samples_of(requests, self.model, requests[0].size, images)
        expected = (len(samples), *samples.shape)
        return Rendered(
            guarded_render(
                self.plan.spec.method, self.method, expected, self.model.device,
                lambda: self.method.render(self.model, samples, batch=batch),
            )
        )  # fmt: skip

    def finished(self, request: SampleRequest, pixels: Pixels, picture: Picture | None) -> Pixels:
        original, mask = (None, None) if picture is None else (picture.pixels, picture.mask)
        return guarded(
            self.plan.spec.method, self.method, "finished",
            lambda: self.method.finished(pixels, original, mask),
            lambda found: pixels_fault(found, pixels.shape),
        )  # fmt: skip


def _mask(picture: Picture) -> Tensor:
    """(1, 1, H, W) in 0 to 1."""
    assert picture.mask is not None, "a plan gives each image its mask"
    return torch.from_numpy((picture.mask / 255.0).astype(np.float32))[None, None]


def samples_of(
    requests: Sequence[SampleRequest],
    model: Denoiser,
    size: tuple[int, int],
    images: dict[str, Tensor] | None = None,
) -> Samples:
    """Samples as a method sees them, on a canvas of `size` pixels (width, height)."""
    rows = [sample.prompt for sample in requests]
    cells = (size[1] // model.latent_factor, size[0] // model.latent_factor)
    return Samples(
        texts=tuple(row.prompt for row in rows if row is not None),
        negative=tuple(row.negative_prompt for row in rows if row is not None),
        seeds=tuple(sample.seed for sample in requests),
        shape=(model.latent_channels, *cells),
        images=images or {},
    )
