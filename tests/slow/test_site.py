"""The documentation builds without a warning, every page has a place in the navigation, and a dead link fails it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stylebatch
from stylebatch.cli.app import command
from stylebatch.spec import RunSpec

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PARTS = ("Tutorial", "How-to", "Reference", "Explanation")


def _built(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does it."""
    recipe = re.search(r"^docs:.*\n\t\$\(BIN\)/python (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)  # fmt: skip
    assert recipe is not None
    words = [{"docs": str(source), "build/docs": str(site)}.get(w, w) for w in recipe[1].split()]
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages' HTML by their names."""
    folder = tmp_path_factory.mktemp("site")
    done = _built(ROOT / "docs", folder)
    assert done.returncode == 0, done.stderr
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}


def test_every_page_has_a_place_in_the_navigation(site: dict[str, str]) -> None:
    captions = re.findall(r'class="caption-text">([^<]+)<', site["index"])
    assert tuple(captions) == PARTS
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in site["index"] or page.stem == "index"


def test_the_reference_has_every_verb_field_and_name(site: dict[str, str]) -> None:
    overview = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for verb in command().commands:
        assert f'id="stylebatch-{verb}' in site["commands"]
        assert f"`stylebatch {verb}" in overview
    for field in RunSpec.model_fields:
        assert f">{field}</span>" in site["manifest_reference"]
    for name in stylebatch.__all__:
        assert f'id="{name.lower().replace("_", "-")}"' in site["python_reference"]


@pytest.mark.parametrize(
    ("line", "is_sound"),
    [
        ("[x](other.md#a-part)", True),
        ("[x](no_page.md)", False),
        ("[x](other.md#no-such-part)", False),
        ("![x](no.png)", False),
        ("<!-- generated: nothing -->", False),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(
    line: str, is_sound: bool, tmp_path: Path
) -> None:
    source = tmp_path / "docs"
    shutil.copytree(ROOT / "docs/site", source / "site")
    settings = (ROOT / "docs/conf.py").read_text(encoding="utf-8")
    (source / "conf.py").write_text(
        settings.replace("Path(__file__).parents[1]", f'Path("{ROOT}")')
    )
    (source / "index.md").write_text(f"# Site\n\n```{{toctree}}\nother\n```\n\n{line}\n")
    (source / "other.md").write_text("# Other\n\n## A part\n")
    done = _built(source, tmp_path / "site")
    assert (done.returncode == 0) == is_sound, done.stderr
