"""Options of StyleAligned; the class of the algorithm derives from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    model_validator,
)

from stylebatch.errors import ManifestError
from stylebatch.methods.method import BlockSize, PromptMethod
from stylebatch.methods.plain.options import WindowOptions
from stylebatch.models.family import Family


class StyleAlignedOptions(PromptMethod):
    """Options of StyleAligned (arXiv 2312.02133). Defaults are those of the authors' code."""

    uses_sets: ClassVar[bool] = True
    relates_rows: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # the offset is a number of steps: with fewer of them, fewer reach the same level of noise
        "fast": {"steps": 25, "offset": 2},
        "draft": {"steps": 12, "offset": 1},
    }

    name: Literal["stylealigned"] = "stylealigned"
    steps: int = Field(50, ge=1, le=1000, description="DDIM steps, 1 to 1000")
    guidance: float = Field(
        10.0, ge=1.0, le=100.0, description="Classifier-free guidance scale; 1 is none"
    )
    share_attention: bool = Field(
        True, description="Every sample also attends to the reference's keys and values"
    )
    full_attention_share: bool = Field(
        False,
        description="All samples of a set attend to each other, without AdaIN; the set then cannot be split",
    )
    adain_queries: bool = Field(True, description="Queries take the reference's statistics")
    adain_keys: bool = Field(True, description="Keys take the reference's statistics")
    adain_values: bool = Field(False, description="Values take the reference's statistics")
    share_group_norm: bool = Field(
        True, description="Group norms take their statistics together with the reference"
    )
    share_layer_norm: bool = Field(
        True,
        description="Has no effect, since a layer norm's statistics are per token; kept for complete option lists",
    )
    only_self_level: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of the self-attention layers that stay plain"
    )
    shared_score_scale: float = Field(
        1.0, gt=0.0, le=10.0, description="Factor on the reference's keys as others see them"
    )
    shared_score_shift: float = Field(
        0.0,
        ge=-20.0,
        le=20.0,
        description="Added to the attention logits of the reference's tokens; log 2 doubles their weight",
    )
    inversion_guidance: float = Field(
        2.0, ge=1.0, le=100.0, description="Guidance scale when a reference image is inverted"
    )
    offset: int = Field(
        5,
        ge=0,
        description="A reference image starts this many steps less noisy than the samples; below `steps`, default 5 where "
        "there are as many",
    )
    windows: WindowOptions | None = Field(
        None,
        description="Samples are panoramas, denoised by overlapping windows; the reference has the size of a window",
    )

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        # `is int`: anything else, a bool too, is for the field to refuse
        if "offset" not in given and type(given.get("steps")) is int:
            return {**given, "offset": max(0, min(5, given["steps"] - 1))}
        return given

    @model_validator(mode="after")
    def _offset_below_steps(self) -> StyleAlignedOptions:
        if self.offset >= self.steps:
            raise ValueError(
                f"offset: found {self.offset} with steps {self.steps}; accepted: below steps"
            )
        return self

    def check_family(self, family: Family) -> None:
        if not family.takes_edits:
            raise ManifestError(
                f"method.name: found {self.name}, which edits self-attention; accepted by {family.about().title}, whose "
                "attention takes no edits: text2img, img2img, inpaint"
            )

    def prepare_evaluations(self, axis: str) -> int:
        """Network rows that invert a reference image; samples have nothing to prepare."""
        if axis != "set":
            return 0
        return self.steps * (1 if self.inversion_guidance == 1.0 else 2)

    def num_views(self, size: BlockSize) -> int:
        """Windows per sample."""
        if self.windows is None:
            return 1
        return self.windows.num_views(size.height, size.width, size.native)

    def most_with_reference(self, batch: int) -> int:
        """Samples of one network evaluation of `batch` rows, the reference among them."""
        return max(2, batch // self.rows_per_sample)

    def samples_per_block(self, size: BlockSize) -> int:
        """Samples beside the reference."""
        if self.full_attention_share:
            return self.most_with_reference(size.batch) - 1
        return max(1, (self.most_with_reference(size.batch) - 1) // self.num_views(size))

    def check_set(self, name: str, size: BlockSize) -> None:
        beside = self.samples_per_block(size)
        if self.full_attention_share and size.samples > beside:
            raise ManifestError(
                f"method.full_attention_share: found set {name!r} of {size.samples} samples beside its reference; accepted: up to "
                f"{beside}, since all of them are one network batch (batches of {size.batch} rows, {self.rows_per_sample} rows per "
                "sample). Next: raise engine.batch"
            )

    def rows_per_step(self, size: BlockSize) -> int:
        """`size.samples` are those beside the reference, which every network batch repeats."""
        views = size.samples * self.num_views(size)
        # a set of its reference alone still takes one batch
        batches = max(1, math.ceil(views / (self.most_with_reference(size.batch) - 1)))
        return (views + batches) * self.rows_per_sample

    def evaluations(self, size: BlockSize) -> int:
        return self.rows_per_step(size) * self.steps
