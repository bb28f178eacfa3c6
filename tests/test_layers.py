"""The direction of dependence: heavy libraries stay where they belong, no cycles, no hidden imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "stylebatch"
MODULES = {
    ".".join(("stylebatch", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}

HOMES = {
    "torch": (
        "stylebatch.diffusion",
        "stylebatch.models",
        "stylebatch.methods",
        "stylebatch.engine.worker",
        "stylebatch.engine.pairs",
        "stylebatch.engine.prompts",
        "stylebatch.engine.references",
        "stylebatch.engine.rendering",
        "stylebatch.engine.blending",
        "stylebatch.engine.style_bank",
        "stylebatch.engine.blending",
        "stylebatch.engine.measure",
        "stylebatch.engine.ladder",
        "stylebatch.engine.engines",
        "stylebatch.engine.ranks",
        "stylebatch.conformance",
        "stylebatch.doctor",
        "stylebatch.training",
        "stylebatch.embedded",
        "stylebatch.bench",
    ),
    "diffusers": ("stylebatch.models", "stylebatch.training", "stylebatch.embedded"),
    "transformers": ("stylebatch.models", "stylebatch.embedded"),
    "accelerate": (
        "stylebatch.models",
        "stylebatch.training",
        "stylebatch.engine.ranks",
        "stylebatch.engine.tracking",
    ),
    "webdataset": ("stylebatch.store", "stylebatch.reports"),
    "datasets": ("stylebatch.training.captioned", "stylebatch.embedded.crops"),
    "matplotlib": ("stylebatch.training.pictures", "stylebatch.embedded"),
    "fsspec": ("stylebatch.store", "stylebatch.data"),
    "ray": ("stylebatch.engine.ray_pool",),
    "rich": ("stylebatch.progress",),
    "yaml": ("stylebatch.manifest", "stylebatch.card"),
    "pydantic": (
        "stylebatch.spec",
        "stylebatch.manifest",
        "stylebatch.conformance",
        "stylebatch.training.spec",
    ),
}
"""Where a library's name may appear."""

MAY_IMPORT = {
    "errors": set(),
    "spec": set(),
    "manifest": {"errors", "spec"},
    "diffusion": set(),
    "metrics": {"data"},
    "models": {"diffusion", "errors", "spec"},
    "methods": {"diffusion", "models", "spec"},
    "data": {"errors", "spec", "models.checkpoint"},
    "store": {"errors", "spec", "data"},
    "reports": {"errors", "spec", "data", "store", "metrics"},
    "card": {"data", "store", "spec"},
    "cache_verbs": {"errors", "store"},
    "progress": set(),
    "engine": {
        "card",
        "data",
        "errors",
        "manifest",
        "methods",
        "metrics",
        "models",
        "progress",
        "reports",
        "spec",
        "store",
    },
    "doctor": {"data", "engine", "errors", "models", "spec"},
    "conformance": {"data", "diffusion", "errors", "methods", "models"},
    "training": {"data", "diffusion", "errors", "manifest", "models", "progress", "spec"},
    "embedded": {"data", "methods", "metrics", "models", "spec"},
    "bench": {
        "data",
        "metrics",
        "diffusion",
        "engine",
        "manifest",
        "methods",
        "models",
        "progress",
        "spec",
        "store",
    },
}


def _imports(module: str, *, top_level_only: bool = False) -> Iterator[tuple[str, bool]]:
    """(imported module, whether inside a function) of a module."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    inside = {
        id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (
            (name, id(node) in inside)
            for name in names
            if not (top_level_only and id(node) in inside)
        )


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_in_their_modules(module: str) -> None:
    for name, _ in _imports(module):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or module.startswith(homes), (
            f"{module} imports {name}; it belongs to {homes}"
        )


@pytest.mark.parametrize(
    "module",
    [
        m
        for m in MODULES
        if m.count(".") >= 1
        and m not in ("stylebatch.cli", "stylebatch.__main__", "stylebatch.conformance")
    ],
)
def test_imports_point_downwards(module: str) -> None:
    part = module.split(".")[1]
    for name, inside in _imports(module):
        if name.split(".")[0] != "stylebatch":
            continue
        assert not inside, f"{module} imports {name} inside a function"
        target = name.removeprefix("stylebatch.")
        allowed = MAY_IMPORT[part] | {part}
        assert any(target == a or target.startswith(f"{a}.") for a in allowed), (
            f"{module} may not import {name}"
        )


def test_there_are_no_cycles() -> None:
    graph = {
        m: {n for n, _ in _imports(m, top_level_only=True) if n in MODULES and n != m}
        for m in MODULES
        if m != "stylebatch"
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path, module))}"
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_files_stay_readable() -> None:
    long = {
        m: n
        for m, path in MODULES.items()
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


@pytest.mark.parametrize(
    "statement",
    [
        "import stylebatch",
        "import stylebatch.cli",
        "from stylebatch.data.plan import plan",
        "from stylebatch.reports.report import report",
        "import stylebatch.cache_verbs",
    ],
)
def test_light_parts_import_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; print(sorted({{'torch', 'diffusers', 'ray'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
