"""Names of shards: the split, and a number that no other shard of the output has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

FEWEST_DIGITS = 5
_NAME = re.compile(r"(\w{1,64})-([0-9]{5,12})", re.ASCII)


class ShardName(NamedTuple):
    """`validation-00012`: stem of a shard's files."""

    split: str
    number: int
    digits: int = FEWEST_DIGITS

    def __str__(self) -> str:
        return f"{self.split}-{self.number:0{self.digits}d}"


def parsed_name(stem: str) -> ShardName | None:
    """What a stem says, None where it is no shard's."""
    found = _NAME.fullmatch(stem)
    return ShardName(found[1], int(found[2]), len(found[2])) if found else None


def split_of_number(by_split: Sequence[tuple[str, int]], place: int) -> str:
    """The split of the shard at `place` of those that `by_split` counts."""
    for split, count in by_split:
        if place < count:
            return split
        place -= count
    raise IndexError(f"no shard at place {place}")
