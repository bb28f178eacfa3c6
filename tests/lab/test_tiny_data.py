"""The pictures that the embedded model is trained on: none is left out silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.embedded import sources


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"scikit-image: .*Next: pip install"):
        list(sources._python_packages(Path()))
