"""What is said of inputs that changed under an output names what they are: files, columns, rows of a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylebatch.folder import Folder
from stylebatch.store.fingerprints import changed


@pytest.mark.parametrize(
    ("names", "expected", "back"),
    [
        (["content a.png"], "the bytes of content a.png changed", "bring the former file back"),
        (
            ["pair 2: columns", "style s: columns"],
            "the carried columns of row 2 of the pairs, the carried columns of style s changed",
            "bring the former rows in their order",
        ),
    ],
)
def test_the_words_fit_what_changed(
    tmp_path: Path, names: list[str], expected: str, back: str
) -> None:
    told = str(changed(Folder.at(tmp_path), names))
    assert expected in told
    assert back in told
