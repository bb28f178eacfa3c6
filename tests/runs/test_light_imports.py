"""Parts that start at once: none of them imports what is slow to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "import stylebatch",
        "import stylebatch.cli",
        "from stylebatch.planning.resolve import plan",
        "from stylebatch.reports.report import report",
        "import stylebatch.cli.cache_verbs",
        "import stylebatch.viewer.serving",
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


def test_a_list_of_pairs_is_planned_without_pandas(tmp_path: Path) -> None:
    for name, rows in (
        ("tidy.csv", 'content,style,label\na.png,"s.png",\nb.png,t.png,cat\n'),
        ("odd.csv", "content,style\na.png, nan\nb.png,s=t.png,\n"),
        ("rows.jsonl", '{"content": "a.png", "style": "s.png"}\n'),
    ):
        (tmp_path / name).write_text(rows)
    code = (
        "import sys; from stylebatch.manifest import load_spec; from stylebatch.planning.resolve import plan\n"
        "for name in sys.argv[1:]: plan(load_spec(name))\n"
        "sys.exit('pandas' in sys.modules)"
    )
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    subprocess.run([sys.executable, "-c", code, *names], check=True)


def test_store_layer_imports_no_torch() -> None:
    code = "import sys, stylebatch.features.style_cache; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
