"""How a sample was rendered, where gates may ask for it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Attempt:
    """`number`: from 1; `column`: of the style; `options`: those that differ from the method's.

    `rejections`: what was tried before, and why it was rejected; `reason`: why this attempt is, "" where it passed.
    """

    column: int
    seed: int
    number: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    rejections: tuple[str, ...] = ()
    reason: str = ""

    @property
    def told(self) -> str:
        """For the record of an attempt that comes after this one."""
        return f"attempt {self.number}{f' ({self.words})' if self.words else ''}: {self.reason}"


@dataclass
class Tally:
    """Samples of a shard that were judged so far, in the order of its blocks, and how many of them passed."""

    judged: int = 0
    passed: int = 0

    def is_enough(self, share: float) -> bool:
        """Whether this share of them passed."""
        # by count: 0.95 of 20 are 19, whatever 0.95 * 20 is as a float
        return self.passed >= share * self.judged - 1e-9
