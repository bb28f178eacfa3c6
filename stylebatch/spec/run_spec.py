"""The whole run: `RunSpec`, its JSON schema, and what digests are taken of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from stylebatch.data.image_section import ContentSpec, ImageSpec, SourceSpec
from stylebatch.data.prompt_section import PromptSource
from stylebatch.methods.input_kinds import TEXT
from stylebatch.methods.method import MethodOptions
from stylebatch.methods.plain.options import Img2ImgOptions, InpaintOptions, Text2ImgOptions
from stylebatch.methods.stylealigned.options import StyleAlignedOptions
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.methods.user import CustomMethod, entry_point, options_of, users_of
from stylebatch.models.model_section import MODEL_IDS, ModelSpec, listed
from stylebatch.paths import is_address
from stylebatch.section import Section
from stylebatch.spec.class_names import Classes, short_classes
from stylebatch.spec.engine import EngineSpec, FeatureSpec
from stylebatch.spec.gates import GateSpec
from stylebatch.spec.output import OutputSpec
from stylebatch.spec.pairing import Pairing
from stylebatch.spec.quality import ASKED, Names, QualitySpec, short_quality
from stylebatch.spec.splits import SplitSpec, short_form


def _name_to_mapping(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


METHOD_OPTIONS: dict[str, type[MethodOptions]] = {
    "styleid": StyleIDOptions,
    "stylealigned": StyleAlignedOptions,
    "text2img": Text2ImgOptions,
    "img2img": Img2ImgOptions,
    "inpaint": InpaintOptions,
}
"""Options of each built-in method."""
DEFAULT_METHOD = StyleIDOptions()
"""What a manifest without a method means."""


def _keeping() -> str:
    """Methods that keep features, for errors."""
    return " or ".join(name for name, one in METHOD_OPTIONS.items() if one.keeps_features)


def _of_pairs() -> str:
    """Methods of contents and styles, for errors."""
    return " or ".join(name for name, one in METHOD_OPTIONS.items() if TEXT not in one.axes())


def _named_method(value: Any) -> Any:
    """A mapping with a method's name: the short form, and what an entry point stands for."""
    value = _name_to_mapping(value)
    if not isinstance(value, dict) or value.get("path") is not None:
        return value
    # `path: null` is as good as no path
    value = {"name": DEFAULT_METHOD.name} | {
        key: inner for key, inner in value.items() if key != "path"
    }
    name = value["name"]
    # built-in names win: an installed package must not take one over unseen
    found = entry_point(name) if isinstance(name, str) and name not in METHOD_OPTIONS else None
    return value if found is None else {**value, "path": found}


def method_tag(value: Any) -> str | None:
    """Which member of `Method` a value is meant to be."""
    if isinstance(value, dict):
        return "path" if value.get("path") is not None else value.get("name")
    return "path" if users_of(value) else getattr(value, "name", None)


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

    name: str = Field("stylebatch", min_length=1, max_length=200, description="Name of the dataset")
    contents: ContentSpec | None = Field(
        None,
        description="Images that keep their structure; with explicit pairing, what its rows name by id",
    )
    styles: SourceSpec | None = Field(
        None,
        description="Images that lend their style, or blends of them; with explicit pairing, what its rows name by id",
    )
    pairing: Pairing = Pairing()
    split: Annotated[SplitSpec | None, BeforeValidator(short_form)] = Field(
        None,
        description="Splits that are made, such as {validation: 0.2}, or `source`: those that the contents have. Which split of a source "
        "is read, `contents.split` says",
    )
    prompts: PromptSource | None = Field(
        None, description="Rows with a prompt each, for methods that render prompts"
    )
    method: Annotated[Method, BeforeValidator(_named_method)] = Field(
        DEFAULT_METHOD,
        description="What a sample is and how it is rendered: a name, or a section of options",
    )
    model: Annotated[ModelSpec, BeforeValidator(_name_to_mapping)] = ModelSpec(name="tiny")
    image: ImageSpec = ImageSpec()
    output: OutputSpec
    features: FeatureSpec = FeatureSpec()
    engine: Annotated[EngineSpec, BeforeValidator(_name_to_mapping)] = EngineSpec()
    classes: Annotated[Classes | None, BeforeValidator(short_classes)] = Field(
        None,
        description="Names of the classes in the order of their numbers: a list, a mapping such as {0: cat, 1: dog}, a file with a name "
        "a line (or JSON, YAML), or how many there are where labels are numbers; labels that are none of them are refused. Default: the "
        "labels that are there",
    )
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
    gates: GateSpec | None = Field(
        None,
        description="Which samples are rejected by their measures, and what is tried in their place; default: none is",
    )

    quality: Annotated[
        QualitySpec | None,
        BeforeValidator(short_quality, json_schema_input_type=QualitySpec | Names | None),
    ] = Field(
        None,
        description="Measures by a network as further columns: names, such as [agreement], or a section with a classifier of your own",
    )

    @model_validator(mode="after")
    def _sources_fit_method(self) -> RunSpec:
        method = self.options
        if TEXT in method.axes():
            self._require_prompts(method)
        else:
            self._require_pairs(method)
        self._require_what_is_split(method)
        if self.gates is not None:
            self.gates.check(method, self.pairing)
        return self

    def _require_what_is_split(self, method: MethodOptions) -> None:
        split = self.split
        if split is None:
            return
        if split.styles and "style" not in method.axes():
            raise ValueError(f"split.styles: method {self.method.name} has no styles; leave it out")
        if split.fractions:
            return
        shared = ("contents", "styles") if split.styles else ("contents",)
        for field in shared:
            source = getattr(self, field)
            if source is None:
                raise ValueError(
                    f"split: a source and a column are those of `{field}`, which the manifest lacks; accepted without: fractions"
                )
            if split.source and source.split is not None:
                raise ValueError(
                    f"split.source: found beside {field}.split, which reads one split alone; accepted: one of the two"
                )

    def _require_pairs(self, method: MethodOptions) -> None:
        name = self.method.name
        if self.prompts is not None:
            raise ValueError(f"prompts: method {name} renders none; give contents and styles")
        if self.image.width is not None or self.image.height is not None:
            raise ValueError(f"image: method {name} renders squares; give `size` alone")
        if self.features != FeatureSpec() and not method.keeps_features:
            raise ValueError(
                f"features: about styles of method {_keeping()}; accepted with method {name}: none"
            )
        for field in ("contents", "styles"):
            if getattr(self, field) is None and self.pairing.mode != "explicit":
                raise ValueError(f"{field} is missing; give `{field}: {{path: FOLDER}}`")

    def _require_prompts(self, method: MethodOptions) -> None:
        name = self.method.name
        if self.prompts is None:
            raise ValueError(
                f"prompts is missing, which method {name} renders; give `prompts: {{path: ROWS}}` or "
                "`prompts: {template: ..., values: ...}`"
            )
        if self.styles is not None:
            raise ValueError(f"styles: for method {_of_pairs()}; method {name} takes prompts")
        if self.contents is not None and "image" not in method.inputs:
            raise ValueError(f"contents: method {name} takes no images; leave it out")
        if self.contents is not None and self.contents.masks and "mask" not in method.inputs:
            raise ValueError(f"contents.masks: method {name} takes none; leave it out")
        if self.pairing != Pairing():
            raise ValueError(
                f"pairing: for method {_of_pairs()}; method {name} renders each row once"
            )
        # compared without its cache, which sets use for their references
        features = self.features.model_copy(update={"cache": None})
        if features != FeatureSpec() or (self.features.cache is not None and not method.uses_sets):
            accepted = "`cache` alone, for reference images" if method.uses_sets else "none"
            raise ValueError(
                f"features: about styles of method {_keeping()}; accepted with method {name}: {accepted}"
            )
        if not method.uses_sets:
            for field in ("style", "reference", "reference_prompt"):
                if getattr(self.prompts, field) is not None:
                    raise ValueError(f"prompts.{field}: method {name} makes no sets; leave it out")
        for field in ("image", "mask"):
            if getattr(self.prompts, field) is not None and field not in method.inputs:
                raise ValueError(f"prompts.{field}: method {name} takes none; leave it out")

    @property
    def options(self) -> MethodOptions:
        """The options of the method; a user's method is loaded, and its fields are the options."""
        return options_of(self.method)


def json_schema() -> dict[str, Any]:
    """JSON schema of a manifest, for editors; includes the short forms `model: tiny`, `engine: auto`."""
    schema = RunSpec.model_json_schema()
    names = ["tiny", *MODEL_IDS]
    methods = schema["properties"]["method"]
    # pydantic's oneOf has no place for a name alone
    methods["anyOf"] = [{"enum": list(METHOD_OPTIONS)}, *methods.pop("oneOf")]
    for options in METHOD_OPTIONS.values():
        if not isinstance(DEFAULT_METHOD, options):
            schema["$defs"][options.__name__]["required"] = ["name"]
    schema["$defs"][CustomMethod.__name__]["additionalProperties"] = True
    for field, accepted in (
        ("model", names),
        ("engine", list(get_args(EngineSpec.model_fields["name"].annotation))),
    ):
        schema["properties"][field] = {
            "anyOf": [{"enum": accepted}, {"$ref": f"#/$defs/{field.capitalize()}Spec"}]
        }
    schema["properties"]["classes"]["anyOf"].append(
        {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
    )
    # fractions may stand beside the options of a split
    schema["$defs"][SplitSpec.__name__]["additionalProperties"] = {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1,
    }  # fmt: skip
    schema["properties"]["split"]["anyOf"].append({"enum": ["source"]})
    schema["properties"]["quality"]["anyOf"] += [
        {"enum": list(ASKED)},
        {"type": "array", "items": {"enum": list(ASKED)}},
    ]
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stylebatch manifest",
    }


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces; what digests are taken of."""
    # digests of all outputs there are depend on each of these arguments
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def join_inputs(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy of raw manifest `data` with the input paths joined to `folder`."""
    joined = dict(data)
    for field, names in _INPUT_PATHS.items():
        section = joined.get(field)
        if not isinstance(section, dict):
            continue
        paths = {name: section[name] for name in names if isinstance(section.get(name), str)}
        joined[field] = section | {
            name: path if is_address(path) else str(folder / path) for name, path in paths.items()
        }
    if isinstance(classes := joined.get("classes"), str) and not is_address(classes):
        joined["classes"] = str(folder / classes)
    model = joined.get("model")
    if isinstance(model, dict):
        lists = {name: listed(model.get(name)) for name in ("lora", "embeddings")}
        joined["model"] = model | {
            name: [_joined(one, folder) for one in given]
            for name, given in lists.items()
            if isinstance(given, list)
        }
    quality = joined.get("quality")
    if isinstance(quality, dict) and isinstance(quality.get("classifier"), str):
        path = quality["classifier"]
        if path and not is_address(path):
            joined["quality"] = quality | {"classifier": str(folder / path)}
    method = joined.get("method")
    # a module (package.module:CLASS) is found by Python and has no folder
    if isinstance(method, dict) and ".py:" in str(method.get("path")):
        joined["method"] = method | {"path": str(folder / method["path"])}
    return joined


def _joined(section: Any, folder: Path) -> Any:
    if not isinstance(section, dict) or not isinstance(section.get("path"), str):
        return section
    if is_address(section["path"]):
        return section
    return section | {"path": str(folder / section["path"])}


_INPUT_PATHS = {
    "contents": ("path", "masks", "segmentation", "annotations"),
    "styles": ("path", "annotations"),
    "pairing": ("path",),
    "model": ("path", "config", "vae"),
    "prompts": ("path", "image", "mask", "reference"),
}
