"""Every field of the run specification: defaults, round trip, types and ranges, and the JSON schema."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from stylebatch.data.image_section import ContentSpec, ImageFormat, ImageSpec
from stylebatch.manifest import load_spec
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.models.model_section import MODEL_IDS, ModelSpec
from stylebatch.spec import (
    EngineSpec,
    FeatureSpec,
    OutputSpec,
    RunSpec,
    SplitSpec,
    canonical_json,
    join_inputs,
    json_schema,
)
from stylebatch.spec.gates import GateSpec
from stylebatch.spec.pairing import Pairing
from stylebatch.spec.quality import QualitySpec
from tests.support.spec_fields import ACCEPTED, REFUSED

NOT_IN_SCHEMA: list[tuple[str, Any]] = [
    ("method.steps", 3),
    ("method.steps", 1),
    ("method.steps", 51),
    ("features.source", "cached"),
    ("features.codec", "trajectory"),
    ("method.sites", [6, 6]),
    ("method.sites", [7, 6]),
    ("method.sites", []),
    ("method.site_gammas", [0.5]),
    *(
        (f"{field}.aspect", value)
        for field in ("contents", "styles")
        for value in ([2.0, 0.5], [0.0, 1.0])
    ),
    ("split.fractions", {"validation": 1.5}),
    ("split.fractions", {"a b": 0.1}),
    ("split.fractions", {"valdation": 0.1}),
    ("output.shard_bytes", "12 apples"),
    ("output.shard_bytes", "0kB"),
]
"""Refused by validation alone: a JSON schema says ranges and types, not arithmetic."""


SCHEMA = jsonschema.Draft202012Validator(json_schema())
ANY_VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64) | st.integers(-2, 1025),
    st.floats(allow_nan=False, allow_infinity=False) | st.floats(-0.1, 1.1),
    st.sampled_from(sorted({v for some in ACCEPTED.values() for v in some if isinstance(v, str)})),
    st.text(max_size=4),
    st.lists(st.integers(-1, 12) | st.floats(0, 1.1), max_size=7),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
)


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With input folders and a checkpoint's."""
    made = tmp_path_factory.mktemp("spec")
    for name in ("contents", "styles", "checkpoint"):
        (made / name).mkdir()
    return made


@pytest.fixture(scope="module")
def base(folder: Path) -> dict[str, Any]:
    """The smallest manifest."""
    return {
        "contents": {"path": str(folder / "contents")},
        "styles": {"path": str(folder / "styles")},
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
    if field == "method.grid_power":
        data = put(put(data, "method.steps", 10), "method.grid", "spread")
    if field == "method.start":
        data = put(data, "method.steps", 10)
    if field in ("pairing.per_content", "pairing.pool", "pairing.seed"):
        data = put(data, "pairing.mode", "sample")
    if field in ("split.exact", "split.styles", "split.seed"):
        data = put(data, "split.fractions", {"validation": 0.2})
    if field in ("quality.classifier", "quality.labels"):
        data = put(data, "quality.measures", ["agreement"])
    if field in ("pairing.order", "pairing.carry"):
        (folder / "rows.csv").write_text("content,style\n")
        data = put(put(data, "pairing.mode", "explicit"), "pairing.path", str(folder / "rows.csv"))
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
    elsewhere = ("prompts.", "model.lora.", "model.embeddings.", "gates.")
    found = {name for name in leaf_fields(RunSpec) if not name.startswith(elsewhere)} - {"method"}
    found |= leaf_fields(StyleIDOptions, "method.")
    assert (
        found == set(ACCEPTED) == set(REFUSED)
    )  # the others: test_prompts.py, test_lora.py, test_embedding_files.py, test_gates.py


def test_every_field_is_described() -> None:
    sections = [
        ContentSpec,
        Pairing,
        StyleIDOptions,
        ModelSpec,
        ImageSpec,
        ImageFormat,
        OutputSpec,
        EngineSpec,
        FeatureSpec,
        SplitSpec,
        GateSpec,
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


def refusals(data: dict[str, Any]) -> list[str]:
    """Where validation finds something wrong; empty where it accepts."""
    try:
        RunSpec.model_validate_json(json.dumps(data))
    except ValidationError as error:
        return [".".join(map(str, item["loc"])) or "manifest" for item in error.errors()]
    return []


def is_refused(data: dict[str, Any]) -> bool:
    """As Python values, NaN and infinity among them."""
    try:
        RunSpec.model_validate(data)
    except ValidationError:
        return True
    return False


def check_round_trip(data: dict[str, Any]) -> RunSpec:
    """What validation accepts the schema accepts too, and it comes back from a dump and from YAML."""
    spec = RunSpec.model_validate_json(json.dumps(data))
    dumped = spec.model_dump(mode="json")
    for form in (data, dumped):
        assert SCHEMA.is_valid(form), next(SCHEMA.iter_errors(form))
    assert RunSpec.model_validate(spec.model_dump()) == spec
    assert RunSpec.model_validate_json(json.dumps(yaml.safe_load(yaml.safe_dump(dumped)))) == spec
    return spec


def test_each_field_survives_dump_and_load(base: dict[str, Any], folder: Path) -> None:
    for field, value in flat(ACCEPTED):
        data = with_companions(base, field, value, folder)
        assert refusals(data) == [], f"{field}: {value!r}"
        expected = (
            value.replace("DIR", str(folder))
            if isinstance(value, str)
            else tuple(value)
            if isinstance(value, list)
            else value
        )
        spec = check_round_trip(data)
        assert get(spec, field) == expected, f"{field}: {value!r}"
        manifest = folder / "dumped.yaml"
        manifest.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
        assert load_spec(manifest) == spec, f"{field}: {value!r}"


@pytest.mark.parametrize(
    "quality", ["agreement", ["agreement"], {"measures": "agreement"}, {"measures": ["agreement"]}]
)
def test_a_measure_alone_is_a_list_of_one(base: dict[str, Any], quality: Any) -> None:
    spec = check_round_trip({**base, "quality": quality})
    assert spec.quality == QualitySpec(measures=("agreement",))


def test_each_field_refuses_wrong_types_and_ranges(base: dict[str, Any], folder: Path) -> None:
    for field, value in flat(REFUSED):
        told = f"{field}: {value!r}"
        data = with_companions(base, field, value, folder)
        section = field.split(".")[0]
        assert any(section in place.split(".") for place in refusals(data)), told
        assert is_refused(data), told
        is_json = not (isinstance(value, float) and not math.isfinite(value))
        if is_json and (field, value) not in NOT_IN_SCHEMA:
            assert not SCHEMA.is_valid(data), told


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(sorted(ACCEPTED)), ANY_VALUE)
def test_any_value_is_refused_or_in_the_schema_and_comes_back(
    base: dict[str, Any], folder: Path, field: str, value: Any
) -> None:
    data = with_companions(base, field, value, folder)
    if not refusals(data):
        check_round_trip(data)


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"size": [128, 64]}, "`width` and `height`"),
        ({"fill": "black"}, r"such as \[0, 0, 0\]"),
    ],
)
def test_sizes_and_colours_in_other_words_are_told_what_is_accepted(
    given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValidationError, match=expected):
        ImageSpec(**given)
