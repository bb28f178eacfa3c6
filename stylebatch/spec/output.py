"""Place and form of what is rendered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from stylebatch.data.image_section import ImageFormat
from stylebatch.paths import Place
from stylebatch.section import Bytes, Section

OutputFormat = Literal["webdataset", "parquet", "files"]
MOST_IN_A_SHARD = 256
"""Samples, where nobody says."""


class OutputSpec(Section):
    """Where the dataset goes and in what form."""

    path: Place = Field(
        description="Output directory, relative to the working directory, or a place in a store such as s3://bucket/folder"
    )
    format: OutputFormat = Field(
        "webdataset",
        description="webdataset: tars; parquet: rows with images, as datasets stores them; files: pictures in class folders with "
        "metadata.jsonl. datasets loads each of them",
    )
    image: ImageFormat = ImageFormat()
    shard_size: int | None = Field(
        None,
        ge=1,
        le=9999,
        description="Aim for samples per shard; a shard is a whole number of blocks. Default 256, or fewer where that costs nothing, so "
        "that four workers of a loader have a shard each",
    )
    shard_bytes: Bytes | None = Field(
        None,
        description="Bytes per shard at most, such as 500MB, by an estimate of what a sample takes, which the plan tells; a shard is a "
        "whole number of blocks",
    )
    inputs: Literal[True, False, "reference"] = Field(
        True,
        description="Store content and style as fitted: true: beside each result; reference: each once per shard, in "
        "input_images/, where records name it; false: not at all",
    )

    @field_validator("inputs", mode="before")
    @classmethod
    def _is_no_number(cls, value: Any) -> Any:
        # Python takes 1 for True
        if type(value) is int:
            raise ValueError("accepted: true, false or reference")
        return value

    @property
    def facts(self) -> dict[str, Any]:
        """For a plan's identity; `shard_bytes` where it is given, so that older plans agree. An output may be moved."""
        left_out = {"path", *(() if self.shard_bytes is not None else ("shard_bytes",))}
        return self.model_dump(mode="json", exclude=left_out)

    @property
    def most_in_a_shard(self) -> int:
        """Samples of a shard at most, and so of a block."""
        return self.shard_size or MOST_IN_A_SHARD

    @model_validator(mode="after")
    def _can_be_read(self) -> OutputSpec:
        if self.format == "files" and self.image.format == "avif":
            raise ValueError(
                "image.format: found avif, which `datasets` passes over in folders of pictures; accepted with format files: jpg, "
                "png, webp"
            )
        return self
