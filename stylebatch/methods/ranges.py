"""Options that are drawn for each sample: `gamma: {from: 0.5, to: 0.9}`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from stylebatch.section import Section


class Range(Section):
    """An option that is drawn for each sample, evenly between two values."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    from_: float = Field(alias="from", allow_inf_nan=False, description="The least value")
    to: float = Field(allow_inf_nan=False, description="The largest value, above `from`")

    @model_validator(mode="after")
    def _goes_up(self) -> Range:
        if self.from_ >= self.to:
            raise ValueError(
                f"to: found {self.to:g} with from {self.from_:g}; accepted: above `from`; one value for all samples is a number"
            )
        return self

    def drawn(self, seed: int, name: str) -> float:
        """The value of option `name` for the sample with this seed."""
        # a hash, not a generator: the same value on every machine, and each option has its own
        bits = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
        share = int.from_bytes(bits, "big") / 2**64
        return self.from_ + (self.to - self.from_) * share


def number_or_range(value: Any) -> str:
    """Which of the tags NUMBER and RANGE a value has."""
    return RANGE if isinstance(value, dict | Range) else NUMBER


NUMBER, RANGE = "[number]", "[range]"
"""Tags of an option's two forms, `float` and `Range`."""


def within(least: float, most: float) -> Callable[[Range], Range]:
    """A check of ranges: all of their values are accepted."""

    def check(value: Range) -> Range:
        if not (least <= value.from_ and value.to <= most):
            raise ValueError(
                f"found a range from {value.from_:g} to {value.to:g}; accepted: {least:g} to {most:g}"
            )
        return value

    return check
