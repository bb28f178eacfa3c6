"""Every field of the run specification: defaults, round trip, types and ranges, and the JSON schema."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from stylebatch.manifest import load_spec
from stylebatch.spec import (
    MODEL_IDS,
    ContentSource,
    EngineSpec,
    FeatureSpec,
    ImageFormat,
    ImageSpec,
    ModelSpec,
    OutputSpec,
    Pairing,
    RunSpec,
    StyleIDOptions,
    canonical_json,
    join_inputs,
    json_schema,
)
from tests.spec_fields import ACCEPTED, REFUSED

NOT_IN_SCHEMA: list[tuple[str, Any]] = [
    ("method.steps", 3),
    ("method.steps", 1),
    ("method.steps", 51),
    ("features.source", "cached"),
    ("method.sites", [6, 6]),
    ("method.sites", [7, 6]),
    ("method.sites", []),
    ("method.site_gammas", [0.5]),
]
"""Refused by validation alone: a JSON schema says ranges and types, not arithmetic."""


def flat(values: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(field, value) for field, several in values.items() for value in several]


def put(data: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    *parents, leaf = field.split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = value
    return data


def get(spec: Any, field: str) -> Any:
    for part in field.split("."):
        spec = getattr(spec, part)
    return spec


@pytest.fixture
def base(tmp_path: Path) -> dict[str, Any]:
    """The smallest manifest, with its input folders."""
    for name in ("contents", "styles", "checkpoint"):
        (tmp_path / name).mkdir()
    return {
        "contents": {"path": str(tmp_path / "contents")},
        "styles": {"path": str(tmp_path / "styles")},
        "output": {"path": "out"},
    }


def with_companions(base: dict[str, Any], field: str, value: Any, folder: Path) -> dict[str, Any]:
    """`base` with the field set, and what the field cannot be without."""
    data = base
    if field == "model.revision":
        data = put(data, "model.id", "owner/name")
    elif field == "model.config":
        (folder / "weights.safetensors").touch()
        data = put(data, "model.path", str(folder / "weights.safetensors"))
    elif field.startswith("model.") and field not in ("model.name", "model.path", "model.id"):
        data = put(data, "model.name", "tiny")
    if field == "method.start":
        data = put(data, "method.steps", 10)
    if field in ("pairing.per_content", "pairing.pool", "pairing.seed"):
        data = put(data, "pairing.mode", "sample")
    if isinstance(value, str):
        value = value.replace("DIR", str(folder))
    return put(data, field, value)


def leaf_fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        sections = [
            a
            for a in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        found |= leaf_fields(sections[0], f"{prefix}{name}.") if sections else {f"{prefix}{name}"}
    return found


def test_every_field_has_accepted_and_refused_values_below() -> None:
    elsewhere = ("prompts.", "model.lora.")
    found = {name for name in leaf_fields(RunSpec) if not name.startswith(elsewhere)} - {"method"}
    found |= leaf_fields(StyleIDOptions, "method.")
    assert found == set(ACCEPTED) == set(REFUSED)  # the others: test_prompts.py, test_lora.py


def test_every_field_is_described() -> None:
    sections = [
        ContentSource,
        Pairing,
        StyleIDOptions,
        ModelSpec,
        ImageSpec,
        ImageFormat,
        OutputSpec,
        EngineSpec,
        FeatureSpec,
    ]
    undescribed = [
        f"{section.__name__}.{name}"
        for section in sections
        for name, field in section.model_fields.items()
        if not field.description and name not in ("name", "image")
    ]
    assert undescribed == []


def test_defaults_are_the_papers(base: dict[str, Any]) -> None:
    spec = RunSpec.model_validate(base)
    method = spec.method
    assert (method.gamma, method.tau, method.convention, method.steps) == (0.75, 1.5, "ldm", 50)
    assert (method.sites, method.start, method.init_adain, method.inject) == (
        (6, 7, 8, 9, 10, 11),
        "paper",
        True,
        True,
    )
    assert spec.model == ModelSpec(name="tiny")
    assert (spec.output.format, spec.output.image.format, spec.output.image.quality) == (
        "webdataset",
        "jpg",
        95,
    )
    assert (spec.seed, spec.pairing.mode, spec.image.mode) == (0, "product", "center_crop")


@pytest.mark.parametrize(
    ("given", "steps", "sites", "start", "evaluations"),
    [
        ({}, 50, (6, 7, 8, 9, 10, 11), "paper", (50, 49)),
        ({"convention": "ldm", "start": "level"}, 50, (6, 7, 8, 9, 10, 11), "level", (50, 50)),
        ({"steps": 20}, 20, (6, 7, 8, 9, 10, 11), "level", (20, 20)),
        ({"steps": 20, "start": "paper"}, 20, (6, 7, 8, 9, 10, 11), "paper", (20, 19)),
        ({"steps": 50, "start": None}, 50, (6, 7, 8, 9, 10, 11), "paper", (50, 49)),
        ({"convention": "diffusers"}, 20, (7, 8, 9, 10, 11), None, (20, 20)),
        ({"convention": "diffusers", "steps": 30, "sites": [11]}, 30, (11,), None, (30, 30)),
    ],
)
def test_defaults_follow_the_convention(
    given: dict[str, Any],
    steps: int,
    sites: tuple[int, ...],
    start: str | None,
    evaluations: tuple[int, int],
) -> None:
    method = StyleIDOptions.model_validate(given)
    assert (method.steps, method.sites, method.start) == (steps, sites, start)
    assert (method.num_inversion_evaluations, method.num_reverse_evaluations) == evaluations


@pytest.mark.parametrize(("field", "value"), flat(ACCEPTED), ids=str)
def test_each_field_survives_dump_and_load(
    base: dict[str, Any], tmp_path: Path, field: str, value: Any
) -> None:
    data = with_companions(base, field, value, tmp_path)
    jsonschema.validate(data, json_schema())
    spec = RunSpec.model_validate_json(json.dumps(data))
    expected = (
        value.replace("DIR", str(tmp_path))
        if isinstance(value, str)
        else tuple(value)
        if isinstance(value, list)
        else value
    )
    assert get(spec, field) == expected
    manifest = tmp_path / "dumped.yaml"
    manifest.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    assert load_spec(manifest) == spec
    assert RunSpec.model_validate(spec.model_dump()) == spec
    jsonschema.validate(spec.model_dump(mode="json"), json_schema())


@pytest.mark.parametrize(("field", "value"), flat(REFUSED), ids=str)
def test_each_field_refuses_wrong_types_and_ranges(
    base: dict[str, Any], tmp_path: Path, field: str, value: Any
) -> None:
    data = with_companions(base, field, value, tmp_path)
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate_json(json.dumps(data))
    section = field.split(".")[0]
    assert any(section in map(str, item["loc"]) for item in caught.value.errors())
    with pytest.raises(ValidationError):
        RunSpec.model_validate(data)
    is_json = not (isinstance(value, float) and not math.isfinite(value))
    if is_json and (field, value) not in NOT_IN_SCHEMA:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, json_schema())


@pytest.mark.parametrize(
    "given",
    [
        {"convention": "ldm", "steps": 30},
        {"convention": "ldm", "steps": 1},
        {"convention": "diffusers", "start": "paper"},
        {"convention": "diffusers", "steps": 1000},
    ],
)
def test_steps_and_start_must_fit_the_convention(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StyleIDOptions.model_validate(given)


@pytest.mark.parametrize(
    "section", ["method", "image", "output", "engine", "model", "pairing", "contents"]
)
def test_unknown_keys_are_refused_everywhere(base: dict[str, Any], section: str) -> None:
    data = put(base, "model.name", "tiny")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RunSpec.model_validate(put(data, f"{section}.nonsense", 1))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(put(data, f"{section}.nonsense", 1), json_schema())


@pytest.mark.parametrize(
    "given",
    [{}, {"name": "tiny", "id": "a/b"}, {"path": "x", "id": "a/b"}, {"name": "tiny", "path": "x"}],
)
def test_a_model_has_exactly_one_origin(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of `name`, `path` and `id`"):
        ModelSpec.model_validate(given)


def test_revision_belongs_to_a_hub_id() -> None:
    with pytest.raises(ValidationError, match="`revision` belongs to `id`"):
        ModelSpec(name="tiny", revision="main")


def test_explicit_pairing_needs_rows_and_others_need_sources(base: dict[str, Any]) -> None:
    output = {"path": "out"}
    assert (
        RunSpec.model_validate(
            {"pairing": {"mode": "explicit", "path": "rows.csv"}, "output": output}
        ).contents
        is None
    )
    with pytest.raises(ValidationError, match="belongs to mode explicit"):
        Pairing(mode="explicit")
    with pytest.raises(ValidationError, match="belongs to mode explicit"):
        Pairing(mode="zip", path="rows.csv")
    with pytest.raises(ValidationError, match="styles is missing"):
        RunSpec.model_validate({"contents": base["contents"], "output": output})


def test_a_spec_cannot_be_changed_after_validation(base: dict[str, Any]) -> None:
    spec = RunSpec.model_validate(base)
    with pytest.raises(ValidationError, match="frozen"):
        spec.method.gamma = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["tiny", *MODEL_IDS])
def test_short_forms_of_model_and_engine(base: dict[str, Any], name: str) -> None:
    data = base | {"model": name, "engine": "local"}
    jsonschema.validate(data, json_schema())
    spec = RunSpec.model_validate(data)
    assert spec.model == ModelSpec(name=name)  # type: ignore[arg-type]
    assert spec.engine == EngineSpec(name="local")


def test_schema_is_a_valid_schema_and_accepts_a_full_manifest(base: dict[str, Any]) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == "stylebatch manifest"
    manifest = base | {
        "name": "demo",
        "pairing": {"mode": "product"},
        "method": {
            "name": "styleid",
            "gamma": 0.75,
            "tau": 1.5,
            "steps": 25,
            "sites": [6, 7, 8, 9, 10, 11],
        },
        "model": "tiny",
        "image": {"size": 128},
        "output": {
            "path": "outputs/demo",
            "format": "webdataset",
            "shard_size": 32,
            "image": {"format": "jpg", "quality": 95},
        },
        "engine": {"name": "auto", "batch": 8},
        "seed": 7,
        "license": "cc0-1.0",
    }
    jsonschema.validate(manifest, schema)
    RunSpec.model_validate(manifest)
    for broken in (
        {"contents": base["contents"]},
        manifest | {"model": "sdxxl"},
        manifest | {"seed": "7"},
        manifest | {"extra": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_canonical_json_is_one_text_per_value() -> None:
    assert (
        canonical_json({"b": [1, 2.5], "a": "ß"})
        == canonical_json({"a": "ß", "b": [1, 2.5]})
        == '{"a":"ß","b":[1,2.5]}'
    )


def test_input_paths_are_joined_and_the_output_path_is_not(tmp_path: Path) -> None:
    data = {
        "contents": {"path": "c"},
        "styles": {"path": "/abs/s"},
        "model": {"path": "m"},
        "output": {"path": "out"},
    }
    joined = join_inputs(data, tmp_path)
    assert joined["contents"]["path"] == str(tmp_path / "c")
    assert joined["styles"]["path"] == "/abs/s"
    assert joined["model"]["path"] == str(tmp_path / "m")
    assert joined["output"]["path"] == "out"
    assert data["contents"] == {"path": "c"}


def test_validation_imports_nothing_heavy() -> None:
    program = (
        "import sys, stylebatch.spec, stylebatch.manifest, stylebatch.models.checkpoint\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'PIL', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
