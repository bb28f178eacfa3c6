"""A user's method: the text of docs/writing_a_method.md as it stands there, its errors, and entry points."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from stylebatch.cli import main
from stylebatch.data.sources.origins import ORIGIN
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError, PlanChangedError, StylebatchError
from stylebatch.manifest import load_spec
from stylebatch.methods.input_kinds import PADDING
from stylebatch.methods.method import RECORD_COLUMNS
from stylebatch.planning.resolve import plan
from stylebatch.quality.measures import MEASURES
from stylebatch.spec import METHOD_OPTIONS, RunSpec
from stylebatch.store.records import INPUT_COLUMNS, TRIED, schema_of
from tests.support.images import write_inputs
from tests.support.runs import digests, render
from tests.support.samples import samples_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "writing_a_method.md").read_text("utf-8")


FEW = ("--set", "method.steps=4", "--set", "engine.threads=1")


def example(kind: str, language: str) -> str:
    found = re.search(rf"<!-- {kind} -->\n```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "handover.py").write_text(example("method", "python"))
    (tmp_path / "run.yaml").write_text(example("manifest", "yaml"))
    return tmp_path / "run.yaml"


def refusal(manifest: Path, *overrides: str) -> str:
    with pytest.raises(ManifestError) as caught:
        load_spec(manifest, overrides)
    return str(caught.value)


def test_the_documents_method_is_short_and_runs(manifest: Path, tmp_path: Path) -> None:
    assert len(example("method", "python").splitlines()) < 60
    output = tmp_path / "out"
    assert main(["run", str(manifest), "--output", str(output), *FEW]) == 0
    samples = samples_of(output)
    records = [json.loads(sample["json"]) for sample in samples]
    assert [record["label"] for record in records] == ["ink hatching", "poster colours"]
    assert {(r["method"], r["share"], r["steps"]) for r in records} == {("handover", 0.5, 4)}
    assert json.loads((output / "run.json").read_text())["plan"]["evaluations"] == 2 * 2 * 4


def pair_manifest(folder: Path, code: str = "", **sections: object) -> Path:
    """The document's method of pairs, with more code, over two contents and two styles."""
    (folder / "tinted.py").write_text(example("pair method", "python") + code)
    data = yaml.safe_load(example("pair manifest", "yaml")) | sections
    (folder / "run.yaml").write_text(yaml.safe_dump(data))
    write_inputs(folder, contents=2, styles=2)
    return folder / "run.yaml"


@pytest.mark.parametrize(
    ("side", "columns", "what"),
    [("contents", "mask\n{0}\n{1}", "mask"), ("styles", "blend,weight\nx,0.5\nx,0.5", "blend")],
)
def test_masks_and_blends_are_refused_by_a_method_that_heeds_none(
    tmp_path: Path, side: str, columns: str, what: str
) -> None:
    manifest = pair_manifest(tmp_path, **{side: {"path": "rows.csv"}})
    paths = sorted(path.relative_to(tmp_path) for path in (tmp_path / side).rglob("*.*g"))
    header, *cells = columns.format(*paths).splitlines()
    rows = [f"{path},{cell}" for path, cell in zip(paths, cells, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join([f"path,{header}", *rows]) + "\n")
    with pytest.raises(ManifestError, match=f"{side}: .*found a {what}; accepted with .*tinted"):
        plan(load_spec(manifest))


def test_a_prepare_that_returns_nothing_is_named(tmp_path: Path) -> None:
    code = "\n    def prepare(self, model, axis, images):\n        return None\n"
    few = ["method.steps=1", "image.size=32", "engine.name=local", "engine.threads=1"]
    manifest = pair_manifest(tmp_path, code, pairing={"mode": "zip"})
    with pytest.raises(StylebatchError, match=r"tinted\.py:\d+: .*prepare returned NoneType"):
        run(load_spec(manifest, few, output=str(tmp_path / "out")))


def test_the_documents_pair_method_is_short_and_runs(tmp_path: Path) -> None:
    assert len(example("pair method", "python").splitlines()) < 60
    (tmp_path / "tinted.py").write_text(example("pair method", "python"))
    (tmp_path / "run.yaml").write_text(example("pair manifest", "yaml"))
    write_inputs(tmp_path, contents=3, styles=2)
    output = tmp_path / "out"
    assert main(["run", str(tmp_path / "run.yaml"), "--output", str(output), *FEW]) == 0
    records = [json.loads(sample["json"]) for sample in samples_of(output)]
    assert len({(r["content_id"], r["style_id"]) for r in records}) == 6
    assert {(r["method"], r["strength"], r["steps"]) for r in records} == {("tinted", 0.5, 4)}
    assert json.loads((output / "run.json").read_text())["plan"]["evaluations"] == 6 * 2
    # the colours of a style are nearer to what took them than those of the other style
    assert all(r["color_distance"] < 25 for r in records)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prompts", "pairs"])
def test_the_documents_methods_write_the_same_bytes_on_ray(
    manifest: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "pairs":
        manifest = pair_manifest(tmp_path)
    for engine in ("local", "ray"):
        done = render(manifest, tmp_path / engine, *FEW, "--engine", engine, "--workers", "1")
        assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def test_other_code_is_another_plan(manifest: Path, tmp_path: Path) -> None:
    overrides = ["method.steps=2", "method.share=1.0", "engine.threads=1"]
    run(load_spec(manifest, overrides, output=str(tmp_path / "out")))
    code = tmp_path / "handover.py"
    code.write_text(code.read_text().replace("self.share * self.steps", "self.share"))
    with pytest.raises(PlanChangedError, match=r"method\.source: the code of the method changed"):
        run(load_spec(manifest, overrides, output=str(tmp_path / "out")))


def test_options_of_a_users_method_are_checked_as_all_others(manifest: Path) -> None:
    assert "method.share: found 2" in refusal(manifest, "method.share=2")
    found = refusal(manifest, "method.shre=1")
    assert "method.shre: unknown key with value 1; did you mean 'share'?" in found
    assert "accepted keys: preset, steps, guidance, first, share" in found


@pytest.mark.parametrize(
    ("code", "path", "expected"),
    [
        ("", "none.py:X", "cannot be read (No such file or directory)"),
        ("x = 1 +", "bad.py:X", "bad.py:1: SyntaxError: invalid syntax"),
        (
            "raise RuntimeError('boom')",
            "bad.py:X",
            "bad.py:1: RuntimeError: boom (`raise RuntimeError('boom')`)",
        ),
        ("Y = 1", "bad.py:X", "X in "),
        ("class X: pass", "bad.py:X", "not a class derived from PromptMethod or PairMethod"),
        (
            "from stylebatch import PromptMethod\nclass X(PromptMethod): pass",
            "bad.py:X",
            "bad.py has no `render`; accepted: render(self, model, samples, *, batch)",
        ),
        (
            "from stylebatch import PromptMethod\nclass X(PromptMethod):\n    seed: int = 0\n    def render(self): ...",
            "bad.py:X",
            "bad.py has a field 'seed', which is a column of the records",
        ),
        ("", "no_such_module:X", "found no module 'no_such_module'"),
        ("", "bad.py", "accepted: FILE.py:CLASS"),
    ],
)
def test_a_path_that_leads_nowhere_is_said(
    manifest: Path, tmp_path: Path, code: str, path: str, expected: str
) -> None:
    if code:
        (tmp_path / "bad.py").write_text(code)
    text = manifest.read_text().replace("handover.py:Handover", path)
    manifest.write_text(text)
    found = refusal(manifest)
    assert expected in found
    assert "method" in found


def test_an_entry_point_is_a_name(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site"
    package.mkdir()
    (tmp_path / "handover.py").rename(package / "handover_method.py")
    facts = package / "handover-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: handover\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[stylebatch.methods]\nhandover = handover_method:Handover\n"
    )
    monkeypatch.syspath_prepend(str(package))
    manifest.write_text(
        manifest.read_text().replace('path: "handover.py:Handover"', "name: handover")
    )
    spec = load_spec(manifest)
    assert spec.method.name == "handover"
    assert plan(spec).evaluations == 2 * 2 * 10
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    del sys.modules["handover_method"]


def test_columns_that_options_may_not_take_are_those_of_the_records() -> None:
    origins = {f"{prefix}{ORIGIN}": "string" for prefix in ("", "style_")}
    columns = {
        name
        for options in METHOD_OPTIONS.values()
        for name in set(schema_of(options(), (*INPUT_COLUMNS, *PADDING), carried=origins).names)
        - set(options().record_values())
    }
    assert columns | {"name", *TRIED} == RECORD_COLUMNS | {measure.column for measure in MEASURES}


def test_an_option_is_not_named_as_a_measure(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from stylebatch import PromptMethod\n\n\nclass Mine(PromptMethod):\n    contrast: float = 0.5\n\n"
        "    def render(self, model, samples, *, batch):\n        raise AssertionError\n"
    )
    manifest = {
        "prompts": {"template": "a"},
        "method": {"path": "mine.py:Mine"},
        "output": {"path": "out"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(ManifestError, match="field 'contrast', which is a measure"):
        plan(load_spec(tmp_path / "run.yaml"))
