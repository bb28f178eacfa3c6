"""Options of text-to-image, image-to-image and inpainting, and of windows over a large canvas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from stylebatch.errors import ManifestError
from stylebatch.methods.method import BlockSize, PromptMethod
from stylebatch.models.family import Family
from stylebatch.section import Section

Scheduler = Literal["ddim", "euler", "euler_ancestral", "dpmpp", "unipc"]


class WindowOptions(Section):
    """MultiDiffusion (arXiv 2302.08113): the canvas is denoised as overlapping windows whose noise estimates are averaged."""

    size: int | None = Field(
        None,
        ge=4,
        le=512,
        description="Latent cells per side of a window; default the network's own size",
    )
    stride: int = Field(
        8, ge=1, le=512, description="Latent cells from one window to the next, at most `size`"
    )
    circular: bool = Field(
        False, description="The canvas wraps around in width: its right edge continues at the left"
    )

    def side(self, native: int) -> int:
        """Cells per side of a window for a network trained on `native` cells."""
        return native if self.size is None else self.size

    def num_views(self, height: int, width: int, native: int) -> int:
        """Windows over a canvas of `height` x `width` cells."""
        side = self.side(native)
        across = _num_starts(width, side, self.stride)
        # a canvas that is no wider than a window is one view, which wraps nowhere
        if self.circular and width > side:
            across = math.ceil(width / self.stride)
        return _num_starts(height, side, self.stride) * across


def _num_starts(length: int, size: int, stride: int) -> int:
    return math.ceil(max(0, length - size) / stride) + 1


class PlainOptions(PromptMethod):
    """What the plain methods share."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"steps": 20, "scheduler": "dpmpp"},
        "draft": {"steps": 10, "scheduler": "dpmpp"},
    }

    scheduler: Scheduler = Field(
        "ddim",
        description="ddim (eta 0); euler, euler_ancestral, dpmpp (DPM-Solver++ 2M), unipc: those of diffusers",
    )
    windows: WindowOptions | None = Field(
        None,
        description="Denoise by overlapping windows, for canvases larger than the network's own",
    )

    def check_family(self, family: Family) -> None:
        if self.scheduler != "ddim" and family.num_timesteps is None:
            raise ManifestError(
                f"method.scheduler: found {self.scheduler}, which walks a table of training timesteps; accepted by "
                f"{family.about().title}, which has none: ddim (a first-order step between its own levels)"
            )

    @property
    def num_steps_walked(self) -> int:
        """Steps that are taken of `steps`."""
        return self.steps

    @property
    def retried(self) -> tuple[str, ...]:
        # images are encoded before either matters
        return tuple(name for name in ("guidance", "strength") if name in type(self).model_fields)

    def num_views(self, size: BlockSize) -> int:
        """Windows per sample."""
        if self.windows is None:
            return 1
        return self.windows.num_views(size.height, size.width, size.native)

    def samples_per_block(self, size: BlockSize) -> int:
        return max(1, super().samples_per_block(size) // self.num_views(size))

    def rows_per_step(self, size: BlockSize) -> int:
        return size.samples * self.num_views(size) * self.rows_per_sample

    def evaluations(self, size: BlockSize) -> int:
        return self.rows_per_step(size) * self.num_steps_walked


class Text2ImgOptions(PlainOptions):
    """Options of text-to-image (arXiv 2112.10752)."""

    name: Literal["text2img"] = "text2img"


class Img2ImgOptions(PlainOptions):
    """Options of image-to-image (SDEdit, arXiv 2108.01073, on latents)."""

    inputs: ClassVar[tuple[str, ...]] = ("image",)

    name: Literal["img2img"] = "img2img"
    strength: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="How much of the way from noise is walked: 0 returns the image, 1 keeps nothing of it",
    )

    @property
    def num_steps_walked(self) -> int:
        return int(self.steps * self.strength)


class InpaintOptions(PlainOptions):
    """Options of inpainting with a network of 4 input channels: what the mask leaves black is kept."""

    inputs: ClassVar[tuple[str, ...]] = ("image", "mask")
    newer: ClassVar[tuple[str, ...]] = ("keep_original",)

    name: Literal["inpaint"] = "inpaint"
    strength: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="As for img2img, inside the mask; 1 starts from noise alone",
    )

    keep_original: bool = Field(
        False,
        description="Outside the mask the fitted image itself, pixel by pixel, and grey mixes by its level; else what the "
        "autoencoder makes of it",
    )

    @property
    def num_steps_walked(self) -> int:
        return int(self.steps * self.strength)
