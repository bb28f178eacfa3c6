"""What methods have in common: axes, the columns of records for inputs and options, and the cost that a plan asks for.

A method renders samples at the crossings of two axes: contents and styles, images and prompts, prompts and the sets they
are in; or along one. Options are fields of a class without torch, so that plans, schemas and cards stay quick; the algorithm
is a class beside them.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from stylebatch.methods.input_kinds import (
    CONTENT,
    IMAGE,
    MASK,
    PADDING,
    REFERENCE,
    STYLE,
    InputKind,
)
from stylebatch.methods.ranges import Range
from stylebatch.models.family import Family, Memory
from stylebatch.section import Section

IMAGES = ("image", "mask")
"""Images that a method may ask of every prompt."""
RECORD_COLUMNS = frozenset(
    (
        *("key", "shard", "id", "prompt", "negative_prompt", "image", "mask", "style", "reference"),
        *("label", "caption", "method", "model", "seed", "width", "height", "original_width"),
        *("original_height", "status", "error_code", "error_message", "sha256", "name"),
        *("prompt_truncated", "content_id", "style_id", "row", "split", "mask_id", "style_images"),
        *("style_weights", "captions", "objects", "transform", *PADDING),
        *("origin_id", "style_origin_id", "attempt", "rejections"),
    )
)
"""Columns that records may have, beside measures; no option is named so, nor as a measure (see `plan`)."""
COLUMN_TYPES: dict[type, str] = {bool: "bool", int: "int64", float: "double", str: "string"}
"""Arrow's names of the types of options in records; a plan needs no pyarrow for them."""


@dataclass(frozen=True)
class BlockSize:
    """What is rendered at once: `samples` on a canvas of `height` x `width` latent cells.

    `batch`: rows of one network evaluation at most; `native`: cells per side that the network was trained on; a cell has
    `channels` numbers.
    """

    samples: int
    height: int
    width: int
    batch: int
    native: int
    channels: int = 4


class MethodOptions(Section):
    """Base of all options. A plan asks these members; none needs the network.

    `keeps_features`: the method keeps features of its inputs over all timesteps, so that a plan decides where they come from.
    `takes_sizes`: of pairs, styles may have other sizes than contents, and than each other. `takes_masks`, `takes_blends`: it heeds
    the masks of contents, and styles that are mixed of several images. `inputs`: images that every prompt goes with (`image`,
    `mask`). `uses_sets`: prompts of one `style` are rendered beside the first of them, or beside a `reference` image.
    `relates_rows`: what a row of an evaluation becomes hangs on the others, so that a CPU does not cut the batch into lanes.
    `presets`: options by the name that stands for them; those of `paper` are the defaults. `newer`: options that are left out of
    dumps while they have their defaults: a plan's digest is taken of a dump, and a new option must not change what it was.
    """

    keeps_features: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ()
    uses_sets: ClassVar[bool] = False
    relates_rows: ClassVar[bool] = False
    takes_sizes: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = False
    takes_blends: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    newer: ClassVar[tuple[str, ...]] = ()

    preset: Literal["paper", "fast", "draft"] | None = Field(
        None,
        description="Options by one name, of which those that are given beside it go first: paper (the defaults), fast, draft",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name = data.get("preset")
        if name in ("fast", "draft") and name not in cls.presets:
            raise ValueError(f"preset: found {name}, which this method lacks; accepted: paper")
        # what is no name of a preset is for the field to refuse
        return cls.completed({**cls.presets.get(str(name), {}), **data})

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`given` with the defaults that hang on other options."""
        return given

    @model_serializer(mode="wrap")
    def _without_defaults_of_newer(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        if self.preset is not None:
            # all of them: a dump is read with its preset, which would fill in what is left out
            return dumped
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dumped.items()
            if name not in (*self.newer, "preset") or getattr(self, name) != fields[name].default
        }

    @property
    def rows_per_sample(self) -> int:
        """Network rows of one sample."""
        return 1

    def rows_per_step(self, size: BlockSize) -> int:
        """Network rows that one step of a block takes, in evaluations of at most `size.batch`."""
        return size.samples * self.rows_per_sample

    @property
    def retried(self) -> tuple[str, ...]:
        """Options that another attempt at a sample may change: nothing that was prepared hangs on them."""
        return ()

    @property
    def uses_seed(self) -> bool:
        """Whether another seed gives another picture."""
        return True

    @property
    def preset_words(self) -> str:
        """`preset fast: method.steps 16, method.solver ab2`; "" without one."""
        if self.preset is None:
            return ""
        chosen = self.presets.get(self.preset, {})
        words = ", ".join(f"method.{name} {value}" for name, value in chosen.items())
        fields = type(self).model_fields
        # of `paper` the defaults, but for those that hang on other options
        named = {name: fields[name].default for one in self.presets.values() for name in one}
        usual = chosen or {name: value for name, value in named.items() if value is not None}
        changed = ", ".join(
            f"method.{name} {getattr(self, name)}"
            for name, value in usual.items()
            if getattr(self, name) != value
        )
        beside = f"; given beside it: {changed}" if changed else ""
        return f"preset {self.preset}: {words or 'the defaults'}{beside}"

    def drawn(self, seed: int) -> Self:
        """The options of the sample with this seed: a value for each that is a range."""
        ranges = {name: value for name, value in self if isinstance(value, Range)}
        values = {name: value.drawn(seed, name) for name, value in ranges.items()}
        return self.model_copy(update=values) if values else self

    @classmethod
    @abstractmethod
    def axes(cls) -> tuple[str, ...]:
        """Names of the rows and, where there are two axes, of the columns of a block."""

    @classmethod
    @abstractmethod
    def input_kinds(cls) -> tuple[InputKind, ...]:
        """Kinds of the pictures that samples are made from."""

    @property
    def input_members(self) -> tuple[str, ...]:
        """Names of the members that hold a sample's inputs."""
        return tuple(kind.member for kind in self.input_kinds())

    def check_family(self, family: Family) -> None:
        """Raise ManifestError, naming the field, where networks of this family cannot run the method."""

    def fitted_to(self, sites: tuple[int, ...]) -> Self:
        """These options on a network that can be edited at `sites`. Raises ManifestError where it lacks what they name."""
        return self

    def samples_per_block(self, size: BlockSize) -> int:
        """Samples that are rendered together; `size.samples` is not read."""
        return max(1, size.batch)

    def check_set(self, name: str, size: BlockSize) -> None:
        """Raise ManifestError for a set that cannot be rendered; `size.samples`: those beside its reference."""

    @abstractmethod
    def evaluations(self, size: BlockSize) -> int:
        """Network rows that a block takes, besides preparation."""

    def prepare_evaluations(self, axis: str) -> int:
        """Network rows that prepare one item of an axis, once for all samples that it is in."""
        return 0

    def feature_bytes(self, memory: Memory) -> int:
        """Bytes of one image's queries (keys, values: as much each) over all sites and timesteps."""
        return 0

    def trajectory_bytes(self, size: BlockSize) -> int:
        """Bytes of the latents that an image's inversion passes, which features can be recomputed from."""
        return 0

    def prepared_bytes(self, size: BlockSize) -> int:
        """Bytes that a prepared item of the columns takes; by default those of latents in float32."""
        return 4 * size.channels * size.height * size.width

    def record_types(self, *, blends: bool = False) -> Mapping[str, str]:
        """Columns of the records for the options, with Arrow's names of their types; `blends`: some style is a blend."""
        return {name: COLUMN_TYPES[type(value)] for name, value in self.record_values().items()}

    def record_values(self) -> dict[str, Any]:
        """The options as values of columns, of more than a run may have; JSON text of what is no number, text or truth value."""
        given = self.model_dump(mode="json", exclude={"name"})
        return {
            name: ""
            if value is None
            else value
            # exact types: `record_types` looks a column's type up by them
            if type(value) in COLUMN_TYPES
            else json.dumps(value)
            for name, value in given.items()
        }


class PairMethod(MethodOptions):
    """Base of methods whose samples are pairs of a content and a style; fields are the options.

    `render` is the algorithm; `prepare` makes of the images of an axis what `render` is given of them (algorithms in
    methods/pair_samples.py; docs/writing_a_method.md has an example).
    """

    steps: int = Field(50, ge=1, le=1000, description="Steps from noise to image, 1 to 1000")

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        return CONTENT.name, STYLE.name

    @classmethod
    def input_kinds(cls) -> tuple[InputKind, ...]:
        return CONTENT, STYLE

    def evaluations(self, size: BlockSize) -> int:
        return size.samples * self.steps

    def prepare(self, model: Any, axis: str, images: Any) -> Any:
        """What `render` is given of images (N, 3, H, W) in [-1, 1] of the axis `content` or `style`, as a tensor (N, ...).

        `model`: a Denoiser. Each image is prepared once for all pairs of a block that it is in; by default it is encoded.
        """
        return model.encode(images)


class PromptMethod(MethodOptions):
    """Base of methods whose samples have a prompt; fields are the options.

    `render` is the algorithm; `prepare` makes of images what `render` is given of them, `finished` of a picture what is kept.
    """

    steps: int = Field(50, ge=1, le=1000, description="Steps from noise to image, 1 to 1000")
    guidance: float = Field(
        7.5, ge=1.0, le=100.0, description="Classifier-free guidance scale; 1 is none"
    )

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        if cls.inputs:
            return "image", "prompt"
        return ("prompt", "set") if cls.uses_sets else ("prompt",)

    @classmethod
    def input_kinds(cls) -> tuple[InputKind, ...]:
        images = tuple(kind for kind in (IMAGE, MASK) if kind.name in cls.inputs)
        return (*images, *((REFERENCE,) if cls.uses_sets else ()))

    @property
    def rows_per_sample(self) -> int:
        """2 with guidance."""
        return 1 if self.guidance == 1.0 else 2

    def samples_per_block(self, size: BlockSize) -> int:
        # at least one sample, also where guidance needs more rows than the batch has
        return max(1, size.batch // self.rows_per_sample)

    def evaluations(self, size: BlockSize) -> int:
        return size.samples * self.rows_per_sample * self.steps

    def prepare(self, model: Any, images: dict[str, Any], *, batch: int) -> dict[str, Any]:
        """What `render` finds in `samples.images`, by name, of `image` (N, 3, H, W) in [-1, 1] and `mask` (N, 1, H, W) in 0 to 1.

        `model`: a Denoiser. Each image is prepared once for all prompts of a block that it goes with; by default it stays as it is.
        """
        return images

    def finished(self, pixels: Any, original: Any, mask: Any) -> Any:
        """The picture (H, W, 3) that is kept of the one that was decoded; by default the same.

        `original`, `mask` (H, W): the image that its prompt goes with, and its mask, None for none; all are uint8.
        """
        return pixels
