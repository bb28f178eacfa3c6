"""Which contents are paired with which styles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from stylebatch.paths import Place
from stylebatch.section import Section


@dataclass(frozen=True)
class Sampling:
    """What pairing mode sample draws, defaults filled in."""

    per_content: int
    pool: Literal["block", "independent"]
    seed: int


class Pairing(Section):
    """Which contents are paired with which styles."""

    mode: Literal["product", "zip", "explicit", "sample"] = Field(
        "product",
        description="product: every pair; zip: first with first, and so on; explicit: the rows of `path`; "
        "sample: each content with `per_content` styles, each style equally often",
    )
    path: Place | None = Field(
        None,
        description="CSV, TSV, JSONL or Parquet rows of content, style[, label, caption]; for mode explicit. "
        "Paths relative to the file, or ids of `contents`, `styles` where the manifest gives these",
    )
    order: Literal["pools", "listed"] | None = Field(
        None,
        description="For mode explicit. pools (default): rows that share images are rendered together, whatever the list's order, "
        "and tell their number in a column `row`; listed: in the list's order, which may take more inversions",
    )
    per_content: int | None = Field(
        None, ge=1, description="Different styles per content, for mode sample; default 1"
    )
    pool: Literal["block", "independent"] | None = Field(
        None,
        description="For mode sample. block (default): the contents of a block share a drawn pool of styles; independent: "
        "each draws from all, which takes more inversions",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Which pairs mode sample draws; default the run's seed",
    )

    carry: tuple[str, ...] | None = Field(
        None,
        description="Further columns of the rows that go along to the records and samples; default all, [] for none",
    )

    @model_validator(mode="after")
    def _path_belongs_to_explicit(self) -> Pairing:
        # both ways: a path that another mode would ignore is a mistake, not a spare
        if (self.mode == "explicit") != (self.path is not None):
            raise ValueError(
                "`path` (rows of content, style) belongs to mode explicit, which needs it; other modes take none"
            )
        if self.order is not None and self.mode != "explicit":
            raise ValueError(f"`order`: for mode explicit; mode {self.mode} has no list")
        if self.carry is not None and self.mode != "explicit":
            raise ValueError(f"`carry`: for mode explicit; mode {self.mode} has no list")
        return self

    @property
    def sorts_rows(self) -> bool:
        """Whether the rows of a list are sorted into pools."""
        return self.mode == "explicit" and self.order != "listed"

    @model_validator(mode="after")
    def _draws_belong_to_sample(self) -> Pairing:
        drawn = [
            name for name in ("per_content", "pool", "seed") if getattr(self, name) is not None
        ]
        if drawn and self.mode != "sample":
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in drawn)}: for mode sample; mode {self.mode} draws nothing"
            )
        return self

    def sampling(self, run_seed: int) -> Sampling:
        """What mode sample draws in a run of this seed."""
        return Sampling(
            per_content=1 if self.per_content is None else self.per_content,
            pool="block" if self.pool is None else self.pool,
            seed=run_seed if self.seed is None else self.seed,
        )
