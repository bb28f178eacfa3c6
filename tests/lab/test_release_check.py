"""What `make release-check` would let pass: archives, cards and a changelog that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.release_check import (
    BESIDE,
    CARDS,
    changelog_faults,
    licence_faults,
    sdist_faults,
    tracked,
    wheel_faults,
)

ROOT = Path(__file__).parents[2]
PACKAGE = tracked(ROOT)
READ = {one: (ROOT / one).read_text("utf-8") for one in PACKAGE if one.endswith(CARDS)}
META = {
    f"stylebatch-0.1.0.dist-info/{name}"
    for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
}
SURPLUS = (
    "tests/data/golden.npz",
    ".venv/bin/python",
    "stylebatch/__pycache__/a.pyc",
    "stylebatch/notes.txt",
    "pipelines/x.py",
    "outputs/demo/run.json",
)


@settings(max_examples=30)
@given(st.sampled_from(sorted(PACKAGE | BESIDE)), st.sampled_from(SURPLUS), st.booleans())
def test_one_file_too_much_or_too_little_is_named(gone: str, added: str, both: bool) -> None:
    archives = [(sdist_faults, PACKAGE | BESIDE | {"PKG-INFO", "stylebatch.egg-info/SOURCES.txt"})]
    if gone in PACKAGE:
        archives.append((wheel_faults, PACKAGE | META))
    for faults, whole in archives:
        assert list(faults(whole, PACKAGE)) == []
        assert list(faults(whole - {gone}, PACKAGE)) == [f"lacks {gone}"]
        assert list(faults(whole | {added}, PACKAGE)) == [f"holds {added}"]
        if both:
            assert len(list(faults(whole - {gone} | {added}, PACKAGE))) == 2


@pytest.mark.parametrize("gone", sorted(META - {"stylebatch-0.1.0.dist-info/WHEEL", "stylebatch-0.1.0.dist-info/RECORD"}))  # fmt: skip
def test_a_wheel_without_its_metadata_is_refused(gone: str) -> None:
    assert len(list(wheel_faults(PACKAGE | META - {gone}, PACKAGE))) == 1


def test_what_is_shipped_has_a_free_licence() -> None:
    assert list(licence_faults(PACKAGE, READ)) == []
    pictures = [one for one in PACKAGE if one.endswith((".jpg", ".safetensors"))]
    assert len(pictures) >= 15
    without = list(licence_faults(PACKAGE, {}))
    assert {fault.partition(":")[0] for fault in without} >= set(pictures)


def test_a_card_that_is_wrong_is_told() -> None:
    card = "stylebatch/examples/demo/SOURCES.md"
    for old, new, told in (
        (
            "contents/animal/cat.jpg",
            "contents/animal/cats.jpg",
            2,
        ),  # none for the one, nothing for the other
        ("scikit-image: skimage/data/chelsea.png | CC0 |", "x | all rights reserved |", 1),
        ("scikit-image: skimage/data/chelsea.png | CC0 |", "x |  |", 1),
    ):
        assert old in READ[card]
        faults = list(licence_faults(PACKAGE, READ | {card: READ[card].replace(old, new)}))
        assert len(faults) == told, faults
        assert any("contents/animal/cat.jpg" in fault for fault in faults)
    card = "stylebatch/models/tiny/MODEL_CARD.md"
    other = READ[card].replace("apache-2.0", "other", 1)
    faults = list(licence_faults(PACKAGE, READ | {card: other}))
    assert len(faults) == 3
    assert all("tells no free licence" in fault for fault in faults)
    assert list(licence_faults([*PACKAGE, "stylebatch/reports/sans.ttf"], READ)) == [
        "stylebatch/reports/sans.ttf: no card"
    ]


@pytest.mark.parametrize(
    ("text", "final", "faults"),
    [
        ("# Changelog\n\n## 1.2.0\n\n- One.\n", True, 0),
        ("## [1.2.0] - 2026-12-01\n- One.\n", True, 0),
        ("## Unreleased\n- One.\n", False, 0),
        ("## Unreleased\n- One.\n", True, 1),
        ("## 1.2.0\n\n## 1.1.0\n- One.\n", True, 1),
        ("## 1.2.0.1\n- One.\n", True, 1),
        ("## 11.2.0\n- One.\n", False, 1),
        ("", False, 1),
    ],
)
def test_a_version_needs_its_entry(text: str, final: bool, faults: int) -> None:
    assert len(list(changelog_faults(text, "1.2.0", final=final))) == faults
