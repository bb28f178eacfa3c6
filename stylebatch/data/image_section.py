"""Sections about images: where they come from, how they are fitted and encoded."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from stylebatch.data.fit_modes import GREY, FitMode
from stylebatch.paths import Place
from stylebatch.section import Section


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int and value >= 0 else value


Host = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?$")]
Level = Annotated[int, Field(ge=0, le=255)]
Label = Annotated[
    str,
    BeforeValidator(_as_text, json_schema_input_type=str | Annotated[int, Field(ge=0)]),
]
"""A label, or a whole number that is one."""
MIN_VISIBILITY = 0.1


class SourceOptions(Section):
    """How what lies at a path is read, where that does not follow from the files, and how much of it."""

    kind: str | None = Field(
        None,
        min_length=1,
        description="What is at `path`, where it is not recognised as meant: folder, table, webdataset, parquet, saved, coco, "
        "voc, yolo",
    )
    annotations: Place | None = Field(
        None,
        description="Of the images in the folder `path`: a COCO file (.json), a folder of Pascal VOC files (.xml) or of YOLO "
        "files (.txt)",
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="Which split is read, of sources that have several; `all` reads them as one. `split` of the manifest makes some",
    )
    image: str | None = Field(
        None,
        min_length=1,
        description="Column of the images (parquet, saved), or their extension (webdataset), where several could be meant",
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="Column, or JSON key, of the labels, where it is not `label`",
    )
    caption: str | None = Field(
        None,
        min_length=1,
        description="Column, or JSON key, of the captions, where it is not `caption`",
    )
    captions: Literal["first", "drawn"] = Field(
        "first",
        description="Of images with several captions (a list, COCO's, lines of a .txt). first: that one (of a .txt the whole text); drawn: "
        "each sample has one of them by its seed, and all in a column `captions`",
    )
    label_from: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Which folder above an image is its label, counted from the source: 1 (the default of folders) is the first; "
        "0 for none",
    )
    labels: tuple[Label, ...] | None = Field(
        None,
        min_length=1,
        description="Labels of the images that are read, or names that `classes` gives their numbers; default all",
    )
    objects: tuple[Label, ...] | None = Field(
        None,
        min_length=1,
        description="Classes of the annotated objects that are read; the others are left out, and counted. Default all",
    )
    min_side: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Pixels of the shorter side that an image has at least; smaller ones are passed over",
    )
    aspect: tuple[float, float] | None = Field(
        None,
        description="Width / height that images have, from and to, such as [0.5, 2]; others are passed over. As they are displayed",
    )
    shuffle: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Seed of a random order, the same on every machine; default the source's own order",
    )
    limit: int | None = Field(
        None, ge=1, description="Images that are read at most, the first in the order"
    )
    limit_per_class: int | None = Field(
        None, ge=1, description="Images of each label that are read at most"
    )
    web_hosts: tuple[Host, ...] | None = Field(
        None,
        min_length=1,
        description="Hosts that https:// addresses in a table may name, such as images.example.org or *.example.org; by default the "
        "web is not asked",
    )
    carry: tuple[str, ...] | None = Field(
        None,
        description="Further columns, or JSON keys, that go along to the records and samples; default all, [] for none",
    )
    damaged: Literal["refuse", "pass_over"] = Field(
        "refuse",
        description="Tars and annotations that are cut short or damaged: refuse: they stop the plan; pass_over: what can be read "
        "of them is used, and what is lost counted",
    )

    @model_validator(mode="after")
    def _aspect_is_a_range(self) -> Self:
        if self.aspect is not None and not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise ValueError(
                f"aspect: found {list(self.aspect)}; accepted: two numbers above 0, the smaller first, such as [0.5, 2]"
            )
        return self

    @field_validator("split", mode="before")
    @classmethod
    def _is_read(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise ValueError(
                "names the split of the source that is read; splits are made by `split` of the manifest itself, beside `contents`"
            )
        return value


class SourcePath(Section):
    """Where images lie."""

    path: Place = Field(
        description="Folder of images (in a store as well, such as s3://bucket/folder), of .tar or of .parquet files, a saved dataset, "
        "or a table of rows with a `path` column; several files by a pattern such as shards/{00..99}.tar; hf://datasets/OWNER/NAME is "
        "fetched from the hub",
    )
    license: str | None = Field(
        None,
        min_length=1,
        description="Licence of the images, for the dataset card; a `license` column of rows goes first",
    )


class SourceSpec(SourceOptions, SourcePath):
    """Where contents or styles come from."""


class ContentSpec(SourceSpec):
    """Where contents come from, and their masks."""

    masks: Place | None = Field(
        None,
        description="Folder of masks, one for each content, with the content's path but for the suffix; white is where the style "
        "applies (styleid) or what is made anew (inpaint); a `mask` column of rows goes first",
    )

    segmentation: Place | None = Field(
        None,
        description="Folder of label images (PNG of class or object numbers), one for each content, with the content's path but for the "
        "suffix; each sample gets its own, fitted as the picture",
    )


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
    mode: FitMode = Field(
        "center_crop",
        description="center_crop: the middle, in the proportions of the size; resize: ignore the aspect ratio; pad: the whole, `fill` "
        "around it; fit: the image's own aspect, about the area of the size; keep: the image's own size, up to `max_pixels`",
    )
    max_pixels: int | None = Field(
        None,
        ge=1024,
        le=2**26,
        description="With keep: pixels of an image at most; default four times those of the size",
    )
    fill: tuple[Level, Level, Level] = Field(
        GREY, description="With pad: red, green and blue around the image, 0 to 255"
    )
    linear: bool = Field(
        False,
        description="Images are resized in linear light, which keeps the brightness of fine detail; slower",
    )
    truncated: Literal["refuse", "accept"] = Field(
        "refuse",
        description="A JPEG that ends early, or lacks only its end: refuse: its samples fail; accept: with grey where it is "
        "missing. Other formats that end early are always refused",
    )

    min_visibility: float = Field(
        MIN_VISIBILITY,
        ge=0.0,
        le=1.0,
        description="Share of an annotated object's box that must be left within the picture; objects of which less is left are "
        "dropped, 0 keeps every part",
    )

    @field_validator("size", mode="before")
    @classmethod
    def _is_of_a_square(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            raise ValueError(
                "names both sides at once; sides that differ are `width` and `height`, for methods that render prompts"
            )
        return value

    @field_validator("fill", mode="before")
    @classmethod
    def _is_no_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(
                "accepted: red, green and blue from 0 to 255, such as [0, 0, 0], which is black"
            )
        return tuple(value) if isinstance(value, list) else value  # JSON has no tuples

    @property
    def unused(self) -> list[str]:
        """Notes on options that are given and mean nothing to the mode."""
        given = {"fill": self.fill != GREY, "max_pixels": self.max_pixels is not None}
        modes = {"fill": "pad", "max_pixels": "keep"}
        return [
            f"image.{name} is not used: it is for `mode: {modes[name]}`, and the mode is {self.mode}"
            for name, is_given in given.items()
            if is_given and self.mode != modes[name]
        ]

    @property
    def fitting(self) -> dict[str, Any]:
        """How inputs become pixels and labels, for a plan's identity; what is usual is left out, so that older plans agree."""
        found: dict[str, Any] = {"mode": self.mode}
        if self.truncated != "refuse":
            found["truncated"] = self.truncated
        if self.linear:
            found["linear"] = True
        if self.mode == "pad":
            found["fill"] = list(self.fill)
        if self.mode == "keep" and self.max_pixels is not None:
            found["max_pixels"] = self.max_pixels
        if self.min_visibility != MIN_VISIBILITY:
            found["min_visibility"] = self.min_visibility
        return found

    @property
    def of_looks(self) -> ImageSpec:
        """How styles and references are fitted: as contents, but never padded, since what is around them would be of the style."""
        return self.model_copy(update={"mode": "center_crop"}) if self.mode == "pad" else self

    @property
    def of_masks(self) -> ImageSpec:
        """How masks are fitted: as their images, but for colours. Around a padded one nothing is chosen."""
        return self.model_copy(update={"linear": False, "fill": (0, 0, 0)})


class ImageFormat(Section):
    """How rendered images are encoded."""

    format: Literal["jpg", "png", "webp", "avif"] = Field(
        "jpg", description="One extension per dataset"
    )
    quality: int = Field(
        95, ge=1, le=100, description="Of jpg, webp and avif; 100 is lossless webp"
    )

    @model_validator(mode="after")
    def _can_be_written(self) -> ImageFormat:
        if self.format == "avif":
            # Pillow is imported for avif alone: other manifests are checked without it.
            from PIL import features

            if not features.check("avif"):
                raise ValueError(
                    "format: found avif, which the installed Pillow cannot write; accepted: jpg, png, webp, or a Pillow of 11.3 or "
                    "newer with libavif"
                )
        return self
