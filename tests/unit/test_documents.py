"""A manifest is bounded by what it stands for, not by its bytes; what it says twice, or in no number, is told."""

from __future__ import annotations

import itertools

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.documents import MAX_DEPTH, MAX_VALUES, DocumentError, parse

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("aé: -#'\"", max_size=6)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(value=VALUES, flow=st.sampled_from([True, False, None]))
def test_plain_values_come_back(value: object, flow: bool | None) -> None:
    assert parse(yaml.safe_dump(value, default_flow_style=flow)) == value


def _bomb(level: str, deeper: str) -> str:
    """500 bytes whose aliases stand for a billion values; `deeper` repeats the level before."""
    names = "abcdefghi"
    lines = [f"a: &a {level}"]
    lines += [f"{n}: &{n} {deeper.replace('*', f'*{p}')}" for p, n in itertools.pairwise(names)]  # fmt: skip
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        _bomb("[x, x, x, x, x, x, x, x, x, x]", f"[{', '.join('*' * 10)}]"),
        _bomb("{k: v}", "{" + ", ".join(f"k{i}: *" for i in range(10)) + "}"),
        _bomb("{k: v}", "{<<: [" + ", ".join("*" * 10) + "]}"),
        "\n".join(["- x"] * (MAX_VALUES + 1)),
        "[" * 100_000,
        "a: &a [*a]",
        "- " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "a: " + "x" * 17_000_000,
    ],
    ids=["lists", "mappings", "merges", "values", "depth", "circle", "nested", "bytes"],
)
def test_what_is_too_much_is_refused_before_it_is_made(text: str) -> None:
    with pytest.raises(DocumentError, match=r"over|contains itself|bytes"):
        parse(text)


def test_a_key_stands_once_and_the_line_is_told() -> None:
    with pytest.raises(DocumentError, match="line 3, in method: key 'gamma' stands twice"):
        parse("method:\n  gamma: 0.5\n  'gamma': 0.7\n")
    assert parse("- {a: 1}\n- {a: 2}\n") == [{"a": 1}, {"a": 2}]


def test_numbers_are_those_of_yaml_1_2() -> None:
    text = "[1e-3, -1E5, .5e1, 1.5e3, 12:30, 2024-99-99, '1e3', e3, 1e]"
    assert parse(text) == [1e-3, -1e5, 5.0, 1500.0, "12:30", "2024-99-99", "1e3", "e3", "1e"]
    assert parse(f"seed: {'9' * 5000}") == {"seed": "9" * 5000}
    assert parse(f"seed: 0x{'F' * 5000}") == {"seed": f"0x{'F' * 5000}"}


def test_what_json_does_not_know_is_refused() -> None:
    for text in ("!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!python/object:os.system x"):
        with pytest.raises(DocumentError, match="not valid YAML"):
            parse(text)
