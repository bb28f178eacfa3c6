"""A user's method: the text of docs/writing_a_method.md as it stands there, its errors, and entry points."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from stylebatch.data.plan import plan
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.spec import METHOD_OPTIONS, RunSpec
from stylebatch.spec.method import RECORD_COLUMNS
from stylebatch.store.records import options_of, schema_of
from tests.runs import digests, render
from tests.test_prompt_runs import samples_of

DOCUMENT = (Path(__file__).parent.parent / "docs" / "writing_a_method.md").read_text("utf-8")


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
    few = ["--set", "method.steps=4", "--set", "engine.threads=1"]
    done = render(manifest, output, *few)
    assert done.returncode == 0, done.stderr
    samples = samples_of(output)
    records = [json.loads(sample["json"]) for sample in samples]
    assert [record["label"] for record in records] == ["ink hatching", "poster colours"]
    assert {(r["method"], r["share"], r["steps"]) for r in records} == {("handover", 0.5, 4)}
    assert json.loads((output / "run.json").read_text())["plan"]["evaluations"] == 2 * 2 * 4
    expected = digests(output)
    again = tmp_path / "ray"
    ray = render(manifest, again, *few, "--engine", "ray", "--workers", "1")
    assert ray.returncode == 0, ray.stderr
    assert digests(again) == expected


def test_other_code_is_another_plan(manifest: Path, tmp_path: Path) -> None:
    overrides = ["method.steps=2", "method.share=1.0", "engine.threads=1"]
    run(load_spec(manifest, overrides, output=str(tmp_path / "out")))
    code = tmp_path / "handover.py"
    code.write_text(code.read_text().replace("self.share * self.steps", "self.share"))
    with pytest.raises(PlanChangedError, match=r"method\.source"):
        run(load_spec(manifest, overrides, output=str(tmp_path / "out")))


def test_options_of_a_users_method_are_checked_as_all_others(manifest: Path) -> None:
    assert "method.share: found 2" in refusal(manifest, "method.share=2")
    found = refusal(manifest, "method.shre=1")
    assert "method.shre: unknown key with value 1; did you mean 'share'?" in found
    assert "accepted keys: steps, guidance, first, share" in found


@pytest.mark.parametrize(
    ("code", "path", "expected"),
    [
        ("", "none.py:X", "cannot be read (No such file or directory)"),
        ("x = 1 +", "bad.py:X", "cannot be imported: SyntaxError"),
        ("raise RuntimeError('boom')", "bad.py:X", "cannot be imported: RuntimeError: boom"),
        ("Y = 1", "bad.py:X", "X in "),
        ("class X: pass", "bad.py:X", "not a class derived from PromptMethod"),
        (
            "from stylebatch import PromptMethod\nclass X(PromptMethod): pass",
            "bad.py:X",
            "X has no `render`; accepted: render(self, model, samples, *, batch)",
        ),
        (
            "from stylebatch import PromptMethod\nclass X(PromptMethod):\n    seed: int = 0\n    def render(self): ...",
            "bad.py:X",
            "X has a field 'seed', which is a column of the records",
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


def test_a_result_of_another_shape_is_refused(manifest: Path, tmp_path: Path) -> None:
    code = tmp_path / "handover.py"
    code.write_text(
        code.read_text().replace("return torch.cat(done)", "return torch.cat(done)[:1]")
    )
    done = render(manifest, tmp_path / "out", "--set", "method.steps=1")
    assert done.returncode == 3
    assert (
        "method handover: render returned (1, 8, 32, 32); accepted: (2, 8, 32, 32)" in done.stderr
    )


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
    columns = {
        name
        for options in METHOD_OPTIONS.values()
        if hasattr(options, "inputs")
        for name in set(schema_of(options()).names) - set(options_of(options()))  # type: ignore[arg-type]
    }
    assert columns | {"name"} == RECORD_COLUMNS
