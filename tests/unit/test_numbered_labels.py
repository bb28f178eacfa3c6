"""`contents.labels` where labels are numbers: by number, quoted or not, or by the name that `classes` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stylebatch.data.image_section import ContentSpec
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from tests.support.tables import manifest, table


@pytest.mark.parametrize("labels", [["cat"], [0], ["0"], ["cat", 0]])
@pytest.mark.parametrize("changes", [{}, {"split": {"column": "fold"}, "carry": []}])
def test_labels_that_are_numbers_have_names(
    labels: list[Any], changes: dict[str, Any], tmp_path: Path, eps_folder: Path
) -> None:
    table(tmp_path / "c.csv", ["a.jpg", "b.jpg", "c.jpg"], label=["0", "1", "0"], fold=["t"] * 3)
    table(tmp_path / "styles.csv", ["s.jpg"])
    carry = {"carry": changes["carry"]} if "carry" in changes else {}
    split = {"split": changes["split"]} if "split" in changes else {}
    contents = {"path": "c.csv", "labels": labels, **carry}
    given = {"contents": contents, "classes": ["cat", "dog", "person"], **split}
    found = plan(load_spec(manifest(tmp_path, eps_folder, **given)))
    assert [(item.id, item.label) for item in found.axes[0].items] == [("a.jpg", "cat"), ("c.jpg", "cat")]  # type: ignore[union-attr]  # fmt: skip
    wrong = given | {"contents": contents | {"labels": ["person"]}}
    with pytest.raises(ManifestError, match=r"found 'person'.*accepted: 0, 1; or by name cat, dog"):
        plan(load_spec(manifest(tmp_path, eps_folder, **wrong)))


@pytest.mark.parametrize("label", [True, -1, 1.5, None])
def test_other_values_are_no_labels(label: Any) -> None:
    with pytest.raises(ValidationError):
        ContentSpec(path="x", labels=(label,))
