"""Parts that start at once: none of them imports what is slow to import."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "import stylebatch",
        "import stylebatch.cli",
        "from stylebatch.planning.resolve import plan",
        "from stylebatch.reports.report import report",
        "import stylebatch.cli.cache_verbs",
    ],
)
def test_light_parts_import_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; print(sorted({{'torch', 'diffusers', 'ray'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


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


def test_store_layer_imports_no_torch() -> None:
    code = "import sys, stylebatch.features.style_cache; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
