"""Options of StyleID; the class of the algorithm derives from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from stylebatch.errors import ManifestError
from stylebatch.methods.method import BlockSize, PairMethod
from stylebatch.methods.ranges import NUMBER, RANGE, Range, number_or_range, within
from stylebatch.models.family import Family, Memory

RECORDED = {
    "gamma": "double",
    "tau": "double",
    "steps": "int32",
    "convention": "string",
    "start": "string",
    "sites": "list<int32>",
    "init_adain": "bool",
    "inject": "bool",
}
"""Columns of the paper's options, with Arrow's names of their types."""
RECORDED_BEYOND = {
    "gamma_schedule": "string",
    "gamma_end_share": "double",
    "site_gammas": "list<double>",
    "grid": "string",
    "solver": "string",
    "inversion": "string",
    "blend": "string",
}
"""Columns of the others, in runs that use one of them; `site_gammas`: at each of `sites`."""
BEYOND_THE_PAPER = tuple(RECORDED_BEYOND)
"""Options of StyleID that its paper does not have."""
FEWER_STEPS = {"grid": "spread", "start": "paper", "solver": "ab2"}
"""With 16 steps within 2 % of the paper in colour, texture and structure (docs/beyond_the_paper.md)."""
Gamma = Annotated[
    Annotated[float, Field(ge=0.0, le=1.0), Tag(NUMBER)]
    | Annotated[Range, AfterValidator(within(0.0, 1.0)), Tag(RANGE)],
    Discriminator(number_or_range),
]
Tau = Annotated[
    Annotated[float, Field(gt=0.0, le=10.0), Tag(NUMBER)]
    | Annotated[Range, AfterValidator(within(0.01, 10.0)), Tag(RANGE)],
    Discriminator(number_or_range),
]


class StyleIDOptions(PairMethod):
    """Options of StyleID (arXiv 2312.09008). Defaults are the paper's."""

    keeps_features: ClassVar[bool] = True
    takes_sizes: ClassVar[bool] = True
    takes_masks: ClassVar[bool] = True
    takes_blends: ClassVar[bool] = True
    newer: ClassVar[tuple[str, ...]] = (*BEYOND_THE_PAPER, "grid_power")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"steps": 16, **FEWER_STEPS},
        "draft": {"steps": 8, **FEWER_STEPS},
    }

    name: Literal["styleid"] = "styleid"
    gamma: Gamma = Field(
        0.75,
        description="Query preservation: 1 keeps the content's structure most, 0 to 1; or a range that each sample draws from",
    )
    tau: Tau = Field(
        1.5,
        description="Attention temperature where features are injected, above 0, at most 10; or a range that each sample draws from",
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
    grid_power: float = Field(
        1.0,
        ge=0.5,
        le=4.0,
        description="With grid: spread. 1: evenly; above 1: closer together near the picture (2: DDIM's quadratic grid)",
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

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        port = given.get("convention") == "diffusers"
        if port and given.get("preset") in cls.presets:
            raise ValueError(
                f"preset: found {given['preset']} with convention diffusers; accepted: paper, or fewer `steps` by themselves"
            )
        filled = {
            "steps": 20 if port else 50,
            "sites": [7, 8, 9, 10, 11] if port else [6, 7, 8, 9, 10, 11],
            **given,
        }
        if filled.get("start") is None and not port:
            exact = filled.get("inversion", "ddim") != "ddim"
            filled["start"] = "paper" if filled["steps"] == 50 and not exact else "level"
        return filled

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
                f"steps: found {self.steps}; convention ldm accepts divisors of 1000: 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, "
                "500, and any number with grid: spread"
            )
        if self.grid == "spread" and not 2 <= self.steps <= 500:
            raise ValueError(f"steps: found {self.steps}; grid spread accepts 2 to 500")
        if self.grid_power != 1.0 and self.grid != "spread":
            raise ValueError(
                f"grid_power: found {self.grid_power:g}; accepted with grid {self.grid}: 1"
            )
        parts = [(i / (self.steps - 1)) ** self.grid_power for i in range(self.steps)]
        # of 960 timesteps, where the paper's reverse starts
        if self.grid == "spread" and len({round(960 * part) for part in parts}) < self.steps:
            raise ValueError(
                f"grid_power: found {self.grid_power:g}, with which {self.steps} steps repeat timesteps; accepted: fewer steps, "
                "or a power nearer to 1"
            )
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

    @model_validator(mode="after")
    def _one_way_to_give_gammas(self) -> StyleIDOptions:
        if self.site_gammas is not None and isinstance(self.gamma, Range):
            raise ValueError(
                "gamma: found a range beside site_gammas, which stand in its place; accepted: one of them"
            )
        return self

    def check_family(self, family: Family) -> None:
        """Raise ManifestError, naming the field, where networks of this family cannot run the method."""
        total, title = family.num_timesteps, family.about().title
        if total is None or not family.takes_edits:
            lacks = "training timesteps" if total is None else "self-attention that takes edits"
            raise ManifestError(
                f"method.name: found {self.name}, which needs {lacks}; accepted by {title}, which has none: text2img, "
                "img2img, inpaint"
            )
        if self.convention == "ldm" and self.grid == "stride" and total % self.steps:
            raise ManifestError(
                f"method.steps: found {self.steps}; accepted by this model, whose schedule has {total} timesteps: "
                f"divisors of {total}, or `grid: spread`"
            )

    def fitted_to(self, sites: tuple[int, ...]) -> Self:
        """On a network without any of the default sites, such as SDXL, these stand for all that it has."""
        fitted = self
        # sites that differ from the default were meant: those that the model lacks are refused
        unchanged = StyleIDOptions(convention=self.convention).sites
        if self.sites == unchanged and sites and not set(unchanged) & set(sites):
            fitted = self.model_copy(update={"sites": sites})
        missing = sorted(set(fitted.sites) - set(sites))
        if missing:
            raise ManifestError(
                f"method.sites: found {missing}, where this model has no self-attention; accepted: {list(sites)}"
            )
        return fitted

    @property
    def retried(self) -> tuple[str, ...]:
        if not self.inject:
            return ()
        # gammas of sites stand in place of gamma
        return ("gamma", "tau") if self.site_gammas is None else ("tau",)

    @property
    def uses_seed(self) -> bool:
        return any(isinstance(option, Range) for option in (self.gamma, self.tau))

    def evaluations(self, size: BlockSize) -> int:
        return size.samples * self.num_reverse_evaluations

    def prepare_evaluations(self, axis: str) -> int:
        return self.num_inversion_evaluations

    def feature_bytes(self, memory: Memory) -> int:
        steps = self.num_reverse_evaluations if self.inject else 0
        return steps * sum(memory.features.get(site, 0) for site in self.sites)

    def trajectory_bytes(self, size: BlockSize) -> int:
        # the level that `start: level` ends at is that of its last timestep
        levels = self.steps if self.start == "level" else self.steps + 1
        return levels * self.prepared_bytes(size)

    def record_types(self, *, blends: bool = False) -> Mapping[str, str]:
        fields = type(self).model_fields
        goes_beyond = blends or any(
            getattr(self, name) != fields[name].default for name in BEYOND_THE_PAPER
        )
        preset = {} if self.preset is None else {"preset": "string"}
        power = {} if self.grid_power == 1.0 else {"grid_power": "double"}
        return preset | RECORDED | (RECORDED_BEYOND if goes_beyond else {}) | power

    def record_values(self) -> dict[str, Any]:
        each = self.site_gammas or (self.gamma,) * len(self.sites)
        found = {name: getattr(self, name) for name in RECORDED | RECORDED_BEYOND}
        return found | {
            "preset": self.preset or "",
            "grid_power": self.grid_power,
            "start": self.start or "",
            "sites": list(self.sites),
            "site_gammas": list(each),
        }

    @property
    def num_inversion_evaluations(self) -> int:
        """Network evaluations that invert one image."""
        return self.steps if self.inversion == "ddim" else self.steps + 1

    @property
    def num_reverse_evaluations(self) -> int:
        """Network evaluations that render one pair."""
        if self.inversion != "ddim":
            return self.steps - 1
        # the paper's reverse skips its first step
        return self.steps - 1 if self.start == "paper" and self.grid == "stride" else self.steps
