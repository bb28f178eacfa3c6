"""The site of these pages: `make docs` builds it into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.pages.generated import filled  # noqa: E402  (needs the path above)

project = "stylebatch"
author = "the stylebatch authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
default_role = "code"  # `name` in a docstring is code
smartquotes = False  # `--set` in a sentence has two hyphens

myst_heading_anchors = 4

autodoc_default_options = {"exclude-members": "model_config"}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "stylebatch"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def setup(app: Sphinx) -> None:
    """Registers what fills the generated parts of pages."""
    app.connect("source-read", _fill)
    app.add_lexer("csv", TextLexer)
