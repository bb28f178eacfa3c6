"""Size, form and place of what is rendered."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stylebatch.spec.section import Section


class ImageSpec(Section):
    """Size of the rendered images and how inputs are fitted to it."""

    size: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="Pixels per side; default the model's own size (tiny 128, SD 1.x 512)",
    )
    width: int | None = Field(
        None,
        ge=32,
        le=16384,
        description="Pixels, where it is not `size`; for methods that render prompts",
    )
    height: int | None = Field(
        None,
        ge=32,
        le=16384,
        description="Pixels, where it is not `size`; for methods that render prompts",
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
