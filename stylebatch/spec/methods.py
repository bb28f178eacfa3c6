"""Options of the methods; each method is its own configuration."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from stylebatch.spec.method import BlockSize, PromptMethod
from stylebatch.spec.plain import WindowOptions
from stylebatch.spec.section import Section

BEYOND_THE_PAPER = (
    "gamma_schedule",
    "gamma_end_share",
    "site_gammas",
    "grid",
    "solver",
    "inversion",
    "blend",
)
"""Options of StyleID that its paper does not have."""


class StyleIDOptions(Section):
    """Options of StyleID (arXiv 2312.09008). Defaults are the paper's.

    Options beyond the paper are left out of dumps while they have their defaults: a plan's digest is taken of a dump,
    and a new option must not change what it was.
    """

    name: Literal["styleid"] = "styleid"
    gamma: float = Field(
        0.75,
        ge=0.0,
        le=1.0,
        description="Query preservation: 1 keeps the content's structure most, 0 to 1",
    )
    tau: float = Field(
        1.5,
        gt=0.0,
        le=10.0,
        description="Attention temperature where features are injected, above 0, at most 10",
    )
    convention: Literal["ldm", "diffusers"] = Field(
        "ldm", description="ldm: the paper's code; diffusers: the authors' port"
    )
    steps: int = Field(
        50,
        ge=1,
        lt=1000,
        description="DDIM steps; default 50 (ldm, divides 1000) or 20 (diffusers)",
    )
    sites: Annotated[tuple[Annotated[int, Field(ge=0, le=11)], ...], Field(strict=False)] = Field(
        (6, 7, 8, 9, 10, 11),
        description="Decoder self-attention layers that are injected, 0 to 11; default 6..11 (ldm) or 7..11 (diffusers)",
    )
    start: Literal["paper", "level"] | None = Field(
        None,
        description="ldm only: paper inverts to level 999 and skips the first reverse step (default at 50 steps); level skips none",
    )
    init_adain: bool = Field(
        True, description="Start from the content's noise with the style's channel statistics"
    )
    inject: bool = Field(True, description="Inject the style's keys and values")
    gamma_schedule: Literal["constant", "linear", "cosine", "sqrt"] = Field(
        "constant",
        description="How gamma falls from the first to the last timestep of the reverse (arXiv 2605.26538); constant is the paper",
    )
    gamma_end_share: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Share of gamma that a schedule leaves at the last timestep, 0 to 1",
    )
    site_gammas: Annotated[
        tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None, Field(strict=False)
    ] = Field(None, description="A gamma for each of `sites`, in their order, in place of `gamma`")
    grid: Literal["stride", "spread"] = Field(
        "stride",
        description="ldm only. stride: timesteps 1, 1 + 1000 / steps, ... (steps divides 1000); spread: any number of steps "
        "evenly from 1 to where 50 steps end",
    )
    solver: Literal["ddim", "ab2", "dpmpp_2m"] = Field(
        "ddim",
        description="Of inversion and reverse. ab2 (Adams-Bashforth) and dpmpp_2m (DPM-Solver++) are of second order, for few steps",
    )
    inversion: Literal["ddim", "bdia"] = Field(
        "ddim",
        description="bdia: an exactly invertible rule, both ways; with `convention: ldm`, `start: level`, `solver: ddim`",
    )
    blend: Literal["tokens", "outputs"] = Field(
        "tokens",
        description="Blended styles: one attention over the keys of all of them, or the weighted mean of one attention each",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_convention(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        port = data.get("convention") == "diffusers"
        filled = {
            "steps": 20 if port else 50,
            "sites": [7, 8, 9, 10, 11] if port else [6, 7, 8, 9, 10, 11],
            **data,
        }
        if filled.get("start") is None and not port:
            exact = filled.get("inversion", "ddim") != "ddim"
            filled["start"] = "paper" if filled["steps"] == 50 and not exact else "level"
        return filled

    @model_serializer(mode="wrap")
    def _without_defaults_beyond_the_paper(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dumped.items()
            if name not in BEYOND_THE_PAPER or getattr(self, name) != fields[name].default
        }

    @field_validator("sites")
    @classmethod
    def _sites_once_in_order(cls, sites: tuple[int, ...]) -> tuple[int, ...]:
        if not sites or list(sites) != sorted(set(sites)):
            raise ValueError(
                "sites are given once each, ascending, at least one; `inject: false` turns injection off"
            )
        return sites

    @model_validator(mode="after")
    def _steps_fit_convention(self) -> StyleIDOptions:
        if (
            self.convention == "ldm"
            and self.grid == "stride"
            and (self.steps < 2 or 1000 % self.steps)
        ):
            raise ValueError(
                f"steps: {self.steps} does not divide 1000; convention ldm accepts 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, "
                "500, and any number with grid: spread"
            )
        if self.grid == "spread" and not 2 <= self.steps <= 500:
            raise ValueError(f"steps: found {self.steps}; grid spread accepts 2 to 500")
        if self.convention == "diffusers" and self.grid != "stride":
            raise ValueError(
                "grid: found spread; convention diffusers accepts stride, its own timesteps"
            )
        if self.convention == "diffusers" and self.start is not None:
            raise ValueError(
                "start belongs to convention ldm; leave it out with convention diffusers"
            )
        return self

    @model_validator(mode="after")
    def _exact_inversion_is_its_own_solver(self) -> StyleIDOptions:
        if self.inversion == "ddim":
            return self
        found = {"convention": self.convention, "start": self.start, "solver": self.solver}
        needed = {"convention": "ldm", "start": "level", "solver": "ddim"}
        for field, value in needed.items():
            if found[field] != value:
                raise ValueError(
                    f"inversion: {self.inversion} goes both ways by its own rule; found {field} {found[field]}, accepted: {value}"
                )
        if self.steps < 3:
            raise ValueError(
                f"steps: found {self.steps}; inversion {self.inversion} needs 3 or more"
            )
        return self

    @model_validator(mode="after")
    def _a_gamma_per_site(self) -> StyleIDOptions:
        if self.site_gammas is not None and len(self.site_gammas) != len(self.sites):
            raise ValueError(
                f"site_gammas: found {len(self.site_gammas)} values; accepted: {len(self.sites)}, one for each of sites {list(self.sites)}"
            )
        return self

    @property
    def num_inversion_evaluations(self) -> int:
        """Network evaluations that invert one image."""
        return self.steps if self.inversion == "ddim" else self.steps + 1

    @property
    def num_reverse_evaluations(self) -> int:
        """Network evaluations that render one pair."""
        if self.inversion != "ddim":
            return self.steps - 1
        return self.steps - 1 if self.start == "paper" and self.grid == "stride" else self.steps


class StyleAlignedOptions(PromptMethod):
    """Options of StyleAligned (arXiv 2312.02133). Defaults are those of the authors' code."""

    uses_sets: ClassVar[bool] = True

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

    @model_validator(mode="before")
    @classmethod
    def _offset_of_few_steps(cls, data: Any) -> Any:
        if isinstance(data, dict) and "offset" not in data and type(data.get("steps")) is int:
            return {**data, "offset": max(0, min(5, data["steps"] - 1))}
        return data

    @model_validator(mode="after")
    def _offset_below_steps(self) -> StyleAlignedOptions:
        if self.offset >= self.steps:
            raise ValueError(
                f"offset: found {self.offset} with steps {self.steps}; accepted: below steps"
            )
        return self

    @property
    def num_inversion_evaluations(self) -> int:
        """Network rows that invert a reference image."""
        return self.steps * (1 if self.inversion_guidance == 1.0 else 2)

    def num_views(self, size: BlockSize) -> int:
        """Windows per sample."""
        if self.windows is None:
            return 1
        return self.windows.num_views(size.height, size.width, size.native)

    def samples_per_batch(self, batch: int) -> int:
        """Samples of one network evaluation of `batch` rows, the reference among them."""
        return max(2, batch // self.rows_per_sample)

    def samples_per_block(self, size: BlockSize) -> int:
        """Samples beside the reference."""
        return max(1, (self.samples_per_batch(size.batch) - 1) // self.num_views(size))

    def evaluations(self, size: BlockSize) -> int:
        """`size.samples` are those beside the reference, which every network batch repeats."""
        views = size.samples * self.num_views(size)
        batches = max(1, math.ceil(views / (self.samples_per_batch(size.batch) - 1)))
        return (views + batches) * self.rows_per_sample * self.steps
