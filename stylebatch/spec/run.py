"""The whole run: `RunSpec`, its JSON schema, and what digests are taken of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from stylebatch.spec.custom import CustomMethod, entry_point
from stylebatch.spec.engine import EngineSpec, FeatureSpec
from stylebatch.spec.method import PromptMethod
from stylebatch.spec.methods import StyleAlignedOptions, StyleIDOptions
from stylebatch.spec.model import MODEL_IDS, ModelSpec
from stylebatch.spec.output import ImageSpec, OutputSpec
from stylebatch.spec.plain import Img2ImgOptions, InpaintOptions, Text2ImgOptions
from stylebatch.spec.prompts import PromptSource
from stylebatch.spec.section import Section
from stylebatch.spec.sources import ContentSource, Pairing, Source


def _name_to_mapping(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


METHOD_OPTIONS: dict[str, type[Section]] = {
    "styleid": StyleIDOptions,
    "stylealigned": StyleAlignedOptions,
    "text2img": Text2ImgOptions,
    "img2img": Img2ImgOptions,
    "inpaint": InpaintOptions,
}
"""Options of each built-in method."""


def _named_method(value: Any) -> Any:
    """A mapping with a method's name: the short form, and what an entry point stands for."""
    value = _name_to_mapping(value)
    if not isinstance(value, dict) or value.get("path") is not None:
        return value
    value = {"name": "styleid"} | {key: inner for key, inner in value.items() if key != "path"}
    name = value["name"]
    found = entry_point(name) if isinstance(name, str) and name not in METHOD_OPTIONS else None
    return value if found is None else {**value, "path": found}


def method_tag(value: Any) -> str | None:
    """Which member of `Method` a value is meant to be."""
    if isinstance(value, dict):
        return "path" if value.get("path") is not None else value.get("name")
    return "path" if isinstance(value, CustomMethod) else getattr(value, "name", None)


Method = Annotated[
    Annotated[StyleIDOptions, Tag("styleid")]
    | Annotated[StyleAlignedOptions, Tag("stylealigned")]
    | Annotated[Text2ImgOptions, Tag("text2img")]
    | Annotated[Img2ImgOptions, Tag("img2img")]
    | Annotated[InpaintOptions, Tag("inpaint")]
    | Annotated[CustomMethod, Tag("path")],
    Discriminator(
        method_tag,
        custom_error_type="method_unknown",
        custom_error_message="no such method",
    ),
]


class RunSpec(Section):
    """A whole run. Everything but inputs and output has a default."""

    name: str = Field("stylebatch", min_length=1, description="Name of the dataset")
    contents: ContentSource | None = Field(
        None,
        description="Images that keep their structure; with explicit pairing, what its rows name by id",
    )
    styles: Source | None = Field(
        None,
        description="Images that lend their style, or blends of them; with explicit pairing, what its rows name by id",
    )
    pairing: Pairing = Pairing()
    prompts: PromptSource | None = Field(
        None, description="Rows with a prompt each, for every method but styleid"
    )
    method: Annotated[Method, BeforeValidator(_named_method)] = StyleIDOptions()
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
    def _sources_fit_method(self) -> RunSpec:
        if isinstance(self.method, StyleIDOptions):
            self._require_pairs()
        else:
            self._require_prompts(self.prompt_method)
        return self

    def _require_pairs(self) -> None:
        if self.prompts is not None:
            raise ValueError("prompts: method styleid renders none; give contents and styles")
        if self.image.width is not None or self.image.height is not None:
            raise ValueError("image: method styleid renders squares; give `size` alone")
        for field in ("contents", "styles"):
            if getattr(self, field) is None and self.pairing.mode != "explicit":
                raise ValueError(f"{field} is missing; give `{field}: {{path: FOLDER}}`")

    def _require_prompts(self, method: PromptMethod) -> None:
        name = self.method.name
        if self.prompts is None:
            raise ValueError(
                f"prompts is missing, which method {name} renders; give `prompts: {{path: ROWS}}` or "
                "`prompts: {template: ..., values: ...}`"
            )
        if self.styles is not None:
            raise ValueError(f"styles: for method styleid; method {name} takes prompts")
        if self.contents is not None and "image" not in method.inputs:
            raise ValueError(f"contents: method {name} takes no images; leave it out")
        if self.contents is not None and self.contents.masks and "mask" not in method.inputs:
            raise ValueError(f"contents.masks: method {name} takes none; leave it out")
        if self.pairing != Pairing():
            raise ValueError(f"pairing: for method styleid; method {name} renders each row once")
        features = self.features.model_copy(update={"cache": None})
        if features != FeatureSpec() or (self.features.cache is not None and not method.uses_sets):
            accepted = "`cache` alone, for reference images" if method.uses_sets else "none"
            raise ValueError(
                f"features: about styles of method styleid; accepted with method {name}: {accepted}"
            )
        if not method.uses_sets:
            for field in ("style", "reference", "reference_prompt"):
                if getattr(self.prompts, field) is not None:
                    raise ValueError(f"prompts.{field}: method {name} makes no sets; leave it out")
        for field in ("image", "mask"):
            if getattr(self.prompts, field) is not None and field not in method.inputs:
                raise ValueError(f"prompts.{field}: method {name} takes none; leave it out")

    @property
    def styleid(self) -> StyleIDOptions:
        """The options, in a run of pairs."""
        assert isinstance(self.method, StyleIDOptions)
        return self.method

    @property
    def prompt_method(self) -> PromptMethod:
        """The method, in a run of prompts; one of a user's is loaded."""
        if isinstance(self.method, CustomMethod):
            return self.method.load()
        assert isinstance(self.method, PromptMethod)
        return self.method


def json_schema() -> dict[str, Any]:
    """JSON schema of a manifest, for editors; includes the short forms `model: tiny`, `engine: auto`."""
    schema = RunSpec.model_json_schema()
    names = ["tiny", *MODEL_IDS]
    methods = schema["properties"]["method"]
    methods["anyOf"] = [{"enum": list(METHOD_OPTIONS)}, *methods.pop("oneOf")]
    for options in METHOD_OPTIONS.values():
        if options is not StyleIDOptions:  # which is meant where no name is given
            schema["$defs"][options.__name__]["required"] = ["name"]
    schema["$defs"][CustomMethod.__name__]["additionalProperties"] = True
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
    for field, names in _INPUT_PATHS.items():
        section = joined.get(field)
        if not isinstance(section, dict):
            continue
        paths = {name: section[name] for name in names if isinstance(section.get(name), str)}
        joined[field] = section | {name: str(folder / path) for name, path in paths.items()}
    model = joined.get("model")
    if isinstance(model, dict) and isinstance(model.get("lora"), list):
        joined["model"] = model | {"lora": [_joined(lora, folder) for lora in model["lora"]]}
    method = joined.get("method")
    if isinstance(method, dict) and ".py:" in str(method.get("path")):
        joined["method"] = method | {"path": str(folder / method["path"])}
    return joined


def _joined(section: Any, folder: Path) -> Any:
    if not isinstance(section, dict) or not isinstance(section.get("path"), str):
        return section
    return section | {"path": str(folder / section["path"])}


_INPUT_PATHS = {
    "contents": ("path", "masks"),
    **dict.fromkeys(("styles", "pairing"), ("path",)),
    "model": ("path", "config"),
    "prompts": ("path", "image", "mask", "reference"),
}
