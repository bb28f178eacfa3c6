"""Pictures of the example manifests and of each option that changes pixels stay as they are: same seeds, same pixels.

Floats may differ in their last bits between kinds of processors, so that a pixel on the edge between two levels may fall to
either side. A picture whose sha256 is found passes at once; else one must be found that differs from the kept picture by one
level at most, and by LEVELS on average. Ids and order are not frozen, other tests look after them. A change that means to
alter pictures writes them anew and says so:

    python -m tests.support.frozen
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.frozen import (
    CASES,
    LEVELS,
    MANIFESTS,
    distances,
    frozen,
    rendered,
)


def test_every_example_is_frozen_and_no_case_is_another() -> None:
    manifests = {path.stem for path in MANIFESTS.glob("*.yaml")}
    assert {name.split(":")[0] for name in CASES} == manifests
    assert list(frozen()) == list(CASES)
    assert len({tuple(one["sha256"] for one in case) for case in frozen().values()}) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_pictures_stay(name: str, tmp_path: Path) -> None:
    for off, mean in distances(name, rendered(name, tmp_path)):
        assert (off <= 1, mean <= LEVELS) == (True, True), (
            f"{name}: {off} levels off, {mean} on average"
        )
