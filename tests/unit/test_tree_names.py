"""Names in a tree of pictures: whatever contents, styles and classes are called, they are safe, told apart, and say the shard."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stylebatch.store.sinks.tree import key_of, place

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SPLITS = re.compile(r"(^|[-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)([-._ 0-9]|$)")  # fmt: skip


def _place(content: str, style: str = "s.png", label: str = "", *, has_classes: bool = True) -> str:
    row = {"key": "000010002", "content_id": content, "style_id": style, "label": label}
    return place(row, has_classes=has_classes)


@given(TEXT, TEXT, TEXT, st.booleans())
@example("../../etc/passwd", "..", "/", True)
@example("C:\\con\\nul.txt", "~", "..\\..", True)
@example("a" * 4000 + ".png", "b" * 4000, "ü" * 400, True)
@example("/".join("abcdefghijklm") + ".png", "s", "", False)
@example("--000000001.jpg/--.jpg", "--000000001", "--000000001.jpg", True)
def test_any_name_is_safe(content: str, style: str, label: str, has_classes: bool) -> None:
    made = _place(content, style, label, has_classes=has_classes)
    split, *folders, name = made.split("/")
    assert split == "train"
    assert len(folders) <= 8
    for part in (*folders, name):
        assert part not in ("", ".", "..")
        assert part[0] not in ". "
        assert part[-1] not in ". "
        assert not part.startswith("__")
        assert not re.search(r'[<>:"|?*\\\x00-\x1f\[\]{}]', part)
        assert unicodedata.normalize("NFC", part) == part
        assert len(f".tmp-{part}.jpeg-0123abcd".encode()) <= 255
    assert not any(SPLITS.search(folder.lower()) for folder in folders)
    assert key_of(f"images/{made}.jpg") == "000010002"


@given(TEXT, TEXT)
@example("a/b", "a_b")
@example("é", "e\u0301")
@example("x.jpg", "x_jpg")
@example("", "unlabelled")
@example("a" * 90, "a" * 91)
@example("test", "=test")
@example("A~1", "A")
def test_classes_have_folders_of_their_own(one: str, other: str) -> None:
    folders = [_place("a.png", label=label).split("/")[1] for label in (one, other)]
    assert (folders[0] == folders[1]) == (one == other)


@pytest.mark.parametrize(
    ("content", "label", "has_classes", "expected"),
    [
        ("cat/tabby 1.png", "cat", True, "train/cat/tabby 1--night--000010002"),
        ("cat/young/a.JPEG", "cat", True, "train/cat/young/a--night--000010002"),
        ("pets/cat/a.png", "pets/cat", True, "train/pets_cat~6421fb05/a--night--000010002"),
        ("shelf/a.png", "cat", True, "train/cat/shelf/a--night--000010002"),
        ("shelf/a.png", "", True, "train/unlabelled/shelf/a--night--000010002"),
        ("shelf/a.png", "", False, "train/shelf/a--night--000010002"),
        ("n01440764/x.v2.jpg", "n01440764", True, "train/n01440764/x.v2--night--000010002"),
        ("bird/images/a.png", "bird", True, "train/bird/a--night--000010002"),
        ("images/a.png", "", False, "train/a--night--000010002"),
        ("東京/駅.png", "東京", True, "train/東京/駅--night--000010002"),
    ],
)
def test_plain_names_stay(content: str, label: str, has_classes: bool, expected: str) -> None:
    assert _place(content, "paintings/night.jpg", label, has_classes=has_classes) == expected


def test_rows_of_prompts_are_named_by_image_or_id() -> None:
    row = {"key": "000000001", "id": "ab12", "style": "ink", "label": ""}
    assert place(row, has_classes=False) == "train/ab12--ink--000000001"
    assert place(row | {"image": "x/y.png"}, has_classes=False) == "train/x/y--ink--000000001"
    assert place({"key": "000000001"}, has_classes=False) == "train/_--000000001"
    assert place({"key": "7", "split": "validation"}, has_classes=False) == "validation/_--7"
