"""What README shows runs as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from stylebatch.manifest import load_spec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_api_example_plans_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    import stylebatch

    spec = stylebatch.load_spec("manifests/demo.yaml", ["method.steps=20"], output="outputs/demo20")
    summary = stylebatch.plan(spec).summary()
    assert (summary["num_samples"], summary["num_shards"], summary["width"]) == (36, 2, 128)


def test_public_names_resolve_and_are_few() -> None:
    import stylebatch

    assert len(stylebatch.__all__) <= 20
    assert set(stylebatch.__all__) == {
        name for name in dir(stylebatch) if not name.startswith("__")
    }
    for name in stylebatch.__all__:
        assert getattr(stylebatch, name) is not None
    with pytest.raises(AttributeError, match="public names"):
        _ = stylebatch.no_such_name


def test_readme_manifest_is_valid(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert text is not None
    (tmp_path / "mine.yaml").write_text(text.group(1))
    for name in ("photos", "paintings"):
        (tmp_path / name).mkdir()
    assert load_spec(tmp_path / "mine.yaml").model.name == "sd15"


def test_every_make_target_that_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"help", "setup", "stylize", "plan", "test", "check", "demo", "clean"} <= targets
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
    assert (ROOT / "docs" / "contact_sheet.png").stat().st_size < 3_000_000
    assert all((ROOT / link).exists() for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README))


def test_the_pipeline_file_plans_both_conventions() -> None:
    import stylebatch

    scope = runpy.run_path(str(ROOT / "pipelines" / "styleid_demo.py"))
    paper, port = (scope["spec"](convention) for convention in ("ldm", "diffusers"))
    assert (paper.method.steps, port.method.steps, port.method.sites[0]) == (50, 20, 7)
    assert stylebatch.plan(port).evaluations == 20 * (36 + 12)
