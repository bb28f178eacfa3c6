"""What pyproject.toml says of the package is so: extras that messages name, imports, bounds, the one version."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stylebatch
from stylebatch.engine import engines, ray_here
from stylebatch.engine.submission import Job
from stylebatch.errors import ManifestError
from stylebatch.spec import EngineSpec

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"dev", "lab"}
NAMED = re.compile(r"(?:stylebatch|'\.|\"\.|\.whl\))\[([\w,{} ]+)\]")
COMES_WITH = {"botocore": "aiobotocore"}
"""What is imported under another distribution's promise."""


def _texts() -> Iterator[tuple[str, str]]:
    """Files in which an extra may be named."""
    for folder in ("stylebatch", "pipelines", "docs", "deploy", "manifests"):
        for path in sorted((ROOT / folder).rglob("*")):
            is_text = path.suffix in (".py", ".md", ".yaml", ".html", ".sbatch", "")
            if is_text and path.is_file() and path.name != "decisions.md":
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for name in ("README.md", "Makefile", "pyproject.toml"):
        yield name, (ROOT / name).read_text("utf-8")


def _requirements(lines: list[str]) -> dict[str, Requirement]:
    """By name, of lines and of the extras of ours that they name."""
    found: dict[str, Requirement] = {}
    for line in lines:
        one = Requirement(line)
        if one.name == "stylebatch":
            found |= _requirements([more for extra in one.extras for more in EXTRAS[extra]])
        else:
            found[canonicalize_name(one.name)] = one
    return found


BASE = _requirements(PROJECT["dependencies"])
WITH_EXTRAS = BASE | _requirements([line for lines in EXTRAS.values() for line in lines])


def test_every_extra_that_a_text_names_exists() -> None:
    named = {
        extra: name
        for name, text in _texts()
        for found in NAMED.findall(text)
        for extra in found.split(",")
    }
    # a name that code puts together would escape this test: it has braces
    assert {extra: name for extra, name in named.items() if extra not in EXTRAS} == {}
    assert len(named) > 8, "the pattern finds them"


def test_every_extra_is_documented() -> None:
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert rows == EXTRAS.keys() - FOR_DEVELOPERS


def _imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """(top-level package, whether it is imported when the module is)."""
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from ((name.split(".")[0], id(node) not in late) for name in names)


def test_what_the_product_imports_is_declared() -> None:
    """At the top of a module only what everybody installs, but for training, which the verb guards."""
    homes = importlib.metadata.packages_distributions()
    for path in sorted((ROOT / "stylebatch").rglob("*.py")):
        of_training = path.parent.name == "training"
        for name, at_once in _imports(ast.parse(path.read_text("utf-8"))):
            if name in sys.stdlib_module_names or name == "stylebatch":
                continue
            home = canonicalize_name(homes[name][0])
            home = COMES_WITH.get(home, home)
            declared = WITH_EXTRAS if of_training or not at_once else BASE
            assert home in declared, f"{path}: {name}"


def test_tested_versions_are_within_the_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for name, version in pinned.items():
        bound = WITH_EXTRAS.get(canonicalize_name(name))
        assert bound is None or bound.specifier.contains(version), f"{bound}: {version}"
    missing = {name for name in BASE if name not in set(map(canonicalize_name, pinned))}
    assert missing == set(), "pinned in constraints.txt"


def test_the_version_stands_in_one_place() -> None:
    assert stylebatch.__version__ == importlib.metadata.version("stylebatch")
    elsewhere = [
        name
        for name, text in _texts()
        if name.endswith(".py") and re.search(rf"[\"']{re.escape(PROJECT['version'])}[\"']", text)
    ]
    assert elsewhere == []


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"name": "ray"}, "engine ray"),
        ({"workers": 2}, "engine with workers 2"),
        ({"address": "auto"}, "engine with address auto"),
    ],
)
def test_without_ray_what_needs_it_names_the_extra(
    options: dict[str, Any], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_here, "find_spec", lambda name: None)
    with pytest.raises(ManifestError, match=rf"{asked} needs .*'stylebatch\[ray\]'"):
        engines.checked_name(EngineSpec(**options))
    with pytest.raises(ManifestError, match=r"submit needs .*'stylebatch\[ray\]'"):
        Job("http://127.0.0.1:8265").submit("true")
    # what one device does needs none
    assert engines.checked_name(EngineSpec(workers=1)) == "local"
    monkeypatch.setattr(engines.torch.cuda, "device_count", lambda: 4)
    assert engines.checked_name(EngineSpec()) == "local"
