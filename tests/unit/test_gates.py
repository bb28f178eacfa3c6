"""Gates refuse what cannot be meant, before anything is rendered, and judge as their rules say."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.engine.attempts import Tally
from stylebatch.engine.gate import Gate
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.met_styles import MetStyles
from stylebatch.planning.resolve import plan
from stylebatch.spec import json_schema
from stylebatch.spec.gates import GateSpec
from tests.support.images import write_inputs, write_manifest
from tests.support.prompt_runs import write_prompts


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, eps_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    write_inputs(folder, contents=5, styles=4)
    return write_manifest(folder, eps_folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["gates.rejct=structure < 1"], "gates.rejct: unknown key .* did you mean 'reject'"),
        (["gates.yield=0.9"], "gates.reject: missing"),
        (["gates.reject="], "gates.reject: .*expression"),
        (["gates.reject={}"], "gates: reject: found no rule"),
        (["gates.reject=structure < 1", "gates.yield=0"], "gates.yield: found 0"),
        (["gates.reject=structure < 1", "gates.attempts=3"], "without `retry`"),
        (
            ["gates.reject=structure < 1", "gates.retry=[{gamma: 0.5}]", "gates.attempts=4"],
            "changes nothing further; accepted: up to 2",
        ),
        (["gates.reject=structure < 1", "gates.retry=[{}]"], "retry.0: found nothing"),
        (["gates.reject=structure < 1", "gates.retry=[{seed: 5}]"], "retry.0.seed: found 5"),
        (["gates.reject=structure < 1", "gates.retry=[{seed: next}]"], "draws nothing by its seed"),
        (["gates.reject=structure < 1", "gates.retry=[{gamma: 0.75}]"], "which the method has"),
        (["gates.reject=structure < 1", "gates.retry=[{gama: 0.5}]"], "did you mean 'gamma'"),
        (["gates.reject=structure < 1", "gates.retry=[{steps: 8}]"], "retry.0.steps: .*gamma, tau"),
        (["gates.reject=structure < 1", "gates.retry=[{gamma: 7}]"], "retry.0.gamma: found 7"),
        (["gates.reject=structure < 1", "gates.retry=[{style: next}]"], "mode product"),
        (
            ["gates.reject=structure < 1", "gates.retry=[{gamma: 0.5}, {gamma: 0.5}]"],
            "retry.1: found .* again",
        ),
    ],
)
def test_a_manifest_is_refused_by_field(changes: list[str], words: str, manifest: Path) -> None:
    with pytest.raises(ManifestError, match=words):
        load_spec(manifest, changes)


def test_the_schema_of_manifests_knows_gates() -> None:
    schema = jsonschema.Draft202012Validator(json_schema()["$defs"]["GateSpec"])
    rules: dict[str, Any] = {"reject": "structure < 1"}
    for gates in (rules, {"reject": {"default": "a < 1", "cat": "b < 2"}}, rules | {"yield": 0.5}):
        schema.validate(gates)
        assert GateSpec.model_validate(gates).facts["yield"] == gates.get("yield", 1.0)
    for wrong in ({}, {"reject": 3}, rules | {"yield": 2}, rules | {"yeild": 0.5}, rules | {"attempts": 0}):  # fmt: skip
        assert not schema.is_valid(wrong)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("structur < 0.3", "gates.reject: .*'structur'; did you mean structure"),
        ("status = 'failed'", "no column 'status'"),
        ("structure", "of type DOUBLE"),
        ("structure < 0.3 or", "gates.reject"),
        ("avg(structure) < 0.3", "a sum over records|Aggregates cannot"),
        ("structure < random()", r"found random\(\)"),
        ("structure < (SELECT 1)", "found SELECT"),
        ("{mouse: structure < 1}", "the class 'mouse', .*accepted: default, cat, dog"),
        ("{cat: structur < 1}", r"gates\.reject\.cat: "),
    ],
)
def test_a_rule_is_refused_when_it_is_planned(rule: str, words: str, manifest: Path) -> None:
    found = plan(load_spec(manifest, [f"gates.reject={rule}"]))
    with pytest.raises(ManifestError, match=words):
        Gate(found)


def test_options_of_prompts_that_attempts_may_change(tmp_path: Path) -> None:
    rows = write_prompts(tmp_path, "img2img", "tiny")
    gates = "gates.reject=contrast < 9"
    load_spec(rows, [gates, "gates.retry=[{seed: next}, {strength: 0.5, guidance: 2}]"])
    with pytest.raises(ManifestError, match="the method has no styles"):
        load_spec(rows, [gates, "gates.retry=[{style: next}]"])


def test_a_rule_of_a_class_stands_for_its_samples(manifest: Path) -> None:
    rules = "{default: structure < 0.5, cat: false}"
    gate = Gate(plan(load_spec(manifest, [f"gates.reject={rules}"])))
    rows: list[dict[str, Any]] = [
        {"label": label, "structure": 0.25} for label in ("cat", "dog", "", "Cat")
    ]
    rows += [{"label": "dog", "structure": None}, {"label": "dog", "structure": 0.5}]
    rejected = "structure < 0.5 (structure 0.25)"
    assert gate.reasons(rows) == ["", rejected, rejected, rejected, "", ""]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6), st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_enough_is_counted_in_samples(parts: list[tuple[int, int]], percent: int) -> None:
    tally = Tally()
    for passed, failed in parts:
        tally.judged += passed + failed
        tally.passed += passed
    assert tally.is_enough(percent / 100) == (100 * tally.passed >= percent * tally.judged)


@pytest.mark.parametrize("mode", ["sample", "explicit", "zip"])
def test_styles_that_a_content_meets(mode: str, manifest: Path) -> None:
    (manifest.parent / "pairs.csv").write_text(
        "content,style\n" + "".join(f"contents/dog/{c}.png,styles/{s}.png\n" for c, s in ((4, 1), (0, 3), (4, 0), (0, 3)))
    )  # fmt: skip
    changes = {
        "sample": ["pairing={mode: sample, per_content: 3}"],
        "explicit": ["pairing={mode: explicit, path: pairs.csv}", "contents=null", "styles=null"],
        "zip": ["pairing={mode: zip}", "contents={path: styles}"],
    }[mode]
    found = plan(load_spec(manifest, changes))
    expected: dict[int, set[int]] = defaultdict(set)
    for number in range(found.grid.num_blocks):
        for row, column in found.grid.block(number).cells:
            expected[row].add(column)
    met = MetStyles(found.layout)
    assert {row: set(met.of(row)) for row in expected} == expected
