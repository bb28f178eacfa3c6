"""Collects what the pictures of a shard look like, for its stats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Looks:
    """Of successful samples in their order, and of the contents that they are made of, by id."""

    samples: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)

    def as_facts(self) -> dict[str, Any]:
        """For the stats."""
        return {"samples": "".join(self.samples), "contents": dict(sorted(self.contents.items()))}
