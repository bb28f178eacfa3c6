"""Measures that a network makes, which a run has where it asks for them: the second part of the one table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stylebatch.errors import ManifestError
from stylebatch.quality.measures import MEASURES, Measure

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """A picture as a classifier sees it: probabilities (C,), and features (F,) where it has some.

    `target`: the class that agreement is about; None for the most probable one.
    """

    probabilities: Floats
    features: Floats | None
    target: int | None = None

    @property
    def top(self) -> int:
        return int(self.probabilities.argmax()) if self.target is None else self.target

    def about(self, target: int | None) -> Seen:
        """The same, with a class that agreement is about."""
        return replace(self, target=target)


def agreement(result: Seen, kept: Seen) -> float:
    """Probability, 0 to 1, that the result has of the content's own class."""
    return float(result.probabilities[kept.top])


def agreement_rank(result: Seen, kept: Seen) -> float:
    """Place of that class among those of the result, from 1; of equal ones the best."""
    return 1.0 + int((result.probabilities > result.probabilities[kept.top]).sum())


def feature_distance(result: Seen, other: Seen) -> float:
    """Cosine distance, 0 to 2, of features; 1 where one has none above 0."""
    assert result.features is not None, "asked of a classifier without features"
    assert other.features is not None, "asked of a classifier without features"
    one, two = result.features.astype(np.float64), other.features.astype(np.float64)
    length = math.sqrt(float(one @ one) * float(two @ two))
    if length < 1e-12:
        return 1.0
    return max(0.0, min(2.0, 1.0 - float(one @ two) / length))


MEASURES_ASKED = (
    Measure(
        "agreement", "agreement", "", 2, (0, 1), ("kept",),
        "probability of the class that a classifier sees in the {kept}, after stylising", agreement,
    ),
    Measure(
        "agreement_rank", "agreement's rank", "", 0, (1, math.inf), ("kept",),
        "place of that class among the classes of the result, 1 is the first", agreement_rank,
    ),
    Measure(
        "agreement_content", "agreement of the content", "", 2, (0, 1), ("kept",),
        "probability of that class in the {kept} itself; where it is low, agreement says little",
        lambda result, kept: float(kept.probabilities[kept.top]),
    ),
    Measure(
        "feature_content", "features from content", "", 2, (0, 2), ("kept",),
        "cosine distance of a classifier's features from those of the {kept}, lower is closer", feature_distance,
    ),
    Measure(
        "feature_style", "features from style", "", 2, (0, 2), ("look",),
        "cosine distance of a classifier's features from those of the {look}, lower is closer", feature_distance,
    ),
)  # fmt: skip
"""In the order of their columns; by their first words, `QualitySpec.measures` names them."""
TABLE = (*MEASURES, *MEASURES_ASKED)
"""All measures that records may have."""


def asked_columns(names: Collection[str]) -> list[Measure]:
    """The measures that are asked for by these names."""
    return [
        one
        for one in MEASURES_ASKED
        if any(one.column == name or one.column.startswith(f"{name}_") for name in names)
    ]


def require_inputs(names: Iterable[str], kinds: Collection[str], field: str, method: str) -> None:
    """Raise ManifestError for a measure that compares with what samples of the method are not made from."""
    possible = [m.column for m in MEASURES_ASKED if m.compared(kinds) is not None]
    for one in asked_columns(list(names)):
        if one.compared(kinds) is None:
            what = {"kept": "an image that keeps its structure", "look": "an image of a style"}
            accepted = ", ".join(name for name in possible if "_" not in name or "feature" in name)
            raise ManifestError(
                f"{field}: {one.column} compares with {what[one.needs[0]]}, and samples of method {method} are made from none; "
                f"accepted: {accepted or f'no measure by a network with method {method}'}"
            )


def needs_features(names: Collection[str]) -> bool:
    """Whether one of the measures looks at features."""
    return any(one.of is feature_distance for one in asked_columns(names))


def measured_by_network(
    asked: Iterable[Measure], result: Seen, inputs: Mapping[str, Seen]
) -> dict[str, float]:
    """The measures of one sample by column; `inputs` by kind."""
    return {
        measure.column: measure.of(result, *(inputs[kind] for kind in compared.values()))
        for measure in asked
        if (compared := measure.compared(inputs)) is not None
    }
