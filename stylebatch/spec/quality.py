"""Measures that a network makes: which are asked for, and what looks at the pictures."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from stylebatch.paths import is_address
from stylebatch.section import Section

ASKED = ("agreement", "feature_content", "feature_style")
"""Names of measures that a run has only if it is asked for them; `quality/asked.py` has their columns."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Name = Annotated[str, Field(json_schema_extra={"enum": list(ASKED)})]
Names = (
    Annotated[tuple[_Name, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    | _Name
)
"""What a manifest may give for `measures`."""


class QualitySpec(Section):
    """Measures by a network, of every sample."""

    measures: Annotated[
        tuple[str, ...],
        Field(strict=False, min_length=1),
        BeforeValidator(_listed, json_schema_input_type=Names),
    ] = Field(
        description=f"Measures by a network, of {', '.join(ASKED)}, which are further columns of the records (docs/quality.md)",
    )
    classifier: str = Field(
        "",
        description="What looks at the pictures: a folder of a transformers image classifier, or FILE.py:FUNCTION, relative to the "
        "manifest. Default: EfficientNet-Lite0 of the extra `quality`",
        json_schema_extra={"not": {"pattern": "://"}},
    )
    labels: dict[str, str | int] = Field(
        {},
        description="Classes of the classifier, by name or number, that labels of the contents stand for, such as {dog: beagle}; "
        "agreement is then about these. Default: the class that the classifier sees in the content",
    )

    @field_validator("measures")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ASKED:
                raise ValueError(unknown_measure(name))
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"found {twice} twice; accepted: each once")
        # in the order of the table: two manifests that ask for the same have the same columns
        return tuple(name for name in ASKED if name in names)

    @field_validator("classifier")
    @classmethod
    def _is_of_this_machine(cls, path: str) -> str:
        if path and is_address(path):
            raise ValueError("accepted: a folder or a file of this machine")
        return path


def short_quality(value: Any) -> Any:
    """A name, or a list of them, in full."""
    return {"measures": value} if isinstance(value, str | list) else value


def unknown_measure(name: str) -> str:
    """What is said of a measure that nobody can ask for."""
    close = difflib.get_close_matches(name, ASKED, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"found {name!r}, which is no measure by a network; {hint}accepted: {', '.join(ASKED)}"
