"""Counts agree with their nouns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stylebatch.words import counted, is_or_are

ROOT = Path(__file__).parents[2]
ONE = re.compile(r"(?<![\d.,-])1 (samples|shards|files|styles|contents|images|prompts|rows|steps|pictures)\b")  # fmt: skip


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (1, "sample", "1 sample"),
        (0, "sample", "0 samples"),
        (2_000, "class", "2,000 classes"),
        (2, "copy", "2 copies"),
        (2, "key", "2 keys"),
        (3, "batch", "3 batches"),
        (1, "class", "1 class"),
    ],
)
def test_nouns_have_their_plural(number: int, noun: str, shown: str) -> None:
    assert counted(number, noun) == shown


def test_verbs_agree() -> None:
    assert [is_or_are(number) for number in (0, 1, 2)] == ["are", "is", "are"]


def test_no_text_of_ours_counts_one_as_many() -> None:
    """What tests and pages quote of messages is what people read."""
    refused = "test_demo.py: 1 files"  # which says that nobody may write it
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("README.md"), *ROOT.glob("tests/**/test_*.py")]
    wrong = {
        f"{path.name}: {found[0]}"
        for path in pages
        if path != Path(__file__)
        for found in ONE.finditer(path.read_text(encoding="utf-8"))
    }
    assert wrong <= {refused}
