"""Items: those without the fields that only some have are smaller, and nobody can tell."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.data.sources.source import Item, Part, Ref

FURTHER = st.fixed_dictionaries(
    {},
    optional={
        "number": st.integers(0, 3),
        "split": st.sampled_from(["", "train"]),
        "extra": st.sampled_from([{}, {"a": 1}]),
        "captions": st.sampled_from([(), ("a", "b")]),
        "size": st.sampled_from([None, (3, 4)]),
        "mask": st.sampled_from([None, Ref("mask.png")]),
        "parts": st.sampled_from([(), (Part("a", Ref("a"), 1.0),)]),
    },
)


@given(FURTHER, FURTHER)
def test_an_item_is_what_its_fields_are(first: dict[str, Any], second: dict[str, Any]) -> None:
    one, other = Item("a", Ref("x"), "cat", **first), Item("a", Ref("x"), "cat", **second)
    assert (one == other) == (asdict(one) == asdict(other))
    assert one != other or hash(one) == hash(other)
    assert replace(one, **{**asdict_of_further(Item("a", Ref("x"))), **second}) == other
    for same in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert same == one
        assert type(same) is type(one)


def asdict_of_further(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ("number", "split", "extra", "captions", "size", "mask", "parts")}  # fmt: skip


def test_a_usual_item_has_room_for_the_usual_fields_alone() -> None:
    usual, full = Item("a", Ref("x"), "cat", "a cat", "cc0"), Item("a", Ref("x"), number=3)
    assert sys.getsizeof(usual) < sys.getsizeof(full) / 2
    assert type(replace(full, number=0)) is type(usual)
    assert (usual.number, dict(usual.extra), usual.mask) == (0, {}, None)


@pytest.mark.parametrize("name", ["id", "number", "other"])
@pytest.mark.parametrize("item", [Item("a", Ref("x")), Item("a", Ref("x"), number=3)])
def test_an_item_does_not_change(item: Item, name: str) -> None:
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(item, name, "b")


def test_a_field_that_no_item_has_is_refused() -> None:
    with pytest.raises(TypeError, match="no numbre"):
        Item("a", Ref("x"), numbre=1)
