"""Splits that a run makes, such as train and validation: which contents, and so which samples, belong to which.

`contents.split` is another thing: it says which split of a source is read.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import Field, model_validator

from stylebatch.section import Section

REST = "train"
"""The split of what no fraction asks for."""
USUAL = {
    REST: (REST, "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Splits by the names that `datasets` takes for each, in the order of an output."""
_USUAL_NAMES = {name: split for split, names in USUAL.items() for name in names}
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
"""Of a split: it stands in names of files, and `datasets` takes no others."""
ALIKE = 0.9


def usual_name(name: str) -> str:
    """`validation` for `val`; other names as they are."""
    return _USUAL_NAMES.get(name.lower(), name)


def in_order(splits: set[str]) -> list[str]:
    """train, validation, test, then others by name."""
    first = [split for split in USUAL if split in splits]
    return [*first, *sorted(splits - USUAL.keys())]


def name_fault(name: str) -> str:
    """What is wrong with the name of a split, "" for nothing."""
    # datasets takes "all" for every split at once
    if NAME.fullmatch(name) and name.lower() != "all":
        return ""
    return f"found {name[:80]!r}; accepted: 1 to 64 letters, digits or _ (and not `all`), such as validation"


class SplitSpec(Section):
    """Splits by fractions, by what the source has, or by a column of it; one of the three."""

    fractions: dict[str, float] = Field(
        {},
        description="Share of each split, such as {validation: 0.2}; the rest is `train`. A hash of a content's id decides, so that "
        "contents which are added move no other. May stand in `split` itself",
    )
    exact: bool = Field(
        False,
        description="Give each class its fractions to within one or two images, not by hash alone. A growing output keeps what it has; "
        "another one over more contents may put some elsewhere",
    )
    source: bool = Field(
        False,
        description="The splits that the source has: folders train, validation, ..., or files of such names",
    )
    column: str | None = Field(
        None, min_length=1, description="Column, or JSON key, of contents that names the split"
    )
    styles: bool = Field(
        False,
        description="Share out styles as well, in the same way, so that no style is in two splits",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Of fractions: which contents go where. It is none of the run's, so that runs with other seeds agree",
    )

    @model_validator(mode="after")
    def _is_one_of_three(self) -> SplitSpec:
        given = [bool(self.fractions), self.source, self.column is not None]
        if sum(given) != 1:
            raise ValueError(
                "needs fractions such as {validation: 0.2}, or `source: true`, or `column: NAME`: one of the three"
            )
        for name in ("seed", "exact"):
            if getattr(self, name) and not self.fractions:
                raise ValueError(f"{name}: for fractions; a source and a column draw nothing")
        return self

    @model_validator(mode="after")
    def _fractions_add_up(self) -> SplitSpec:
        for name, share in self.fractions.items():
            _require_name(name)
            if not 0 < share <= 1:
                raise ValueError(f"{name}: found {share}; accepted: above 0, up to 1, such as 0.2")
        names = [usual_name(name) for name in self.fractions]
        if len(set(names)) < len(names):
            raise ValueError(f"found {', '.join(self.fractions)}; accepted: each split once")
        total = sum(self.fractions.values())
        # what is asked for in full adds up to 1; 0.1 and its like are no exact fractions
        if total > 1 + 1e-9 or (REST in names and total < 1 - 1e-9):
            raise ValueError(
                f"found fractions that add up to {total:g}; accepted: up to 1, where the rest is {REST}, or with {REST} exactly 1"
            )
        return self

    def split_at(self, place: float) -> str:
        """The split of what a hash puts at `place`, 0 to 1."""
        edge = 0.0
        for name, share in self.fractions.items():
            edge += share
            if place < edge:
                return usual_name(name)
        # where fractions add up to 1, rounding may leave nothing behind the last
        return usual_name(name) if sum(self.fractions.values()) > 1 - 1e-9 else REST

    @property
    def names(self) -> list[str]:
        """Splits of fractions."""
        return in_order(set(self.shares))

    @property
    def shares(self) -> dict[str, float]:
        """Fractions of all splits."""
        found = {usual_name(name): share for name, share in self.fractions.items()}
        rest = 1 - sum(found.values())
        return found if rest < 1e-9 else {REST: rest} | found


def _require_name(name: str) -> None:
    fault = name_fault(name)
    if not fault and name not in _USUAL_NAMES:
        close = difflib.get_close_matches(name.lower(), _USUAL_NAMES, n=1, cutoff=ALIKE)
        fault = f"found {name!r}; did you mean {close[0]!r}?" if close else ""
    if fault:
        raise ValueError(fault)


def short_form(value: Any) -> Any:
    """`{validation: 0.2}` and `source` in full."""
    if value == "source":
        return {"source": True}
    if not isinstance(value, dict):
        return value
    options = {key: inner for key, inner in value.items() if key in SplitSpec.model_fields}
    shares = {key: inner for key, inner in value.items() if key not in SplitSpec.model_fields}
    if not shares:
        return value
    given = options.get("fractions", {})
    return options | {"fractions": given | shares if isinstance(given, dict) else given}
