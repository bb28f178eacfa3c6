"""The base of all sections of a run specification."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all sections: unknown keys, wrong types and changes after validation are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
