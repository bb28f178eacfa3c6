"""The whole run: `RunSpec`, its JSON schema, and what digests are taken of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, model_validator

from stylebatch.spec.engine import EngineSpec, FeatureSpec
from stylebatch.spec.methods import StyleIDOptions
from stylebatch.spec.model import MODEL_IDS, ModelSpec
from stylebatch.spec.output import ImageSpec, OutputSpec
from stylebatch.spec.section import Section
from stylebatch.spec.sources import Pairing, Source


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
        if isinstance(section, dict):
            paths = {key: section[key] for key in ("path", "config") if key in section}
            joined[field] = section | {
                key: str(folder / path) for key, path in paths.items() if isinstance(path, str)
            }
    return joined
