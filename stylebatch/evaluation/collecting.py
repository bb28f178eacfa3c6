"""Goes through an output once: features of results and inputs, distances of each result from its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stylebatch.evaluation.backbones import Backbones
from stylebatch.evaluation.colour_histogram import histogram_loss, rgb_uv_histogram
from stylebatch.evaluation.definitions import LITE, Definition
from stylebatch.evaluation.output_pictures import Made, OutputPictures
from stylebatch.methods.input_kinds import SET, TEXT
from stylebatch.pixel_memory import Pixels
from stylebatch.quality.measures import ROLES
from stylebatch.reports.committed import Row

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FEATURES = {
    "fid_art": "art_inception", "fid": "inception", "kid": "inception",
    "set_consistency_dino": "dino", "set_consistency_clip": "clip", "text_alignment_clip": "clip",
    f"fid_{LITE}": LITE, f"kid_{LITE}": LITE, f"set_consistency_{LITE}": LITE,
}  # fmt: skip
"""The backbone whose features a measure takes."""
OF_LOOKS = ("fid_art", "fid", "kid", f"fid_{LITE}", f"kid_{LITE}")
"""Measures that take those of the styles too."""
FROM_CONTENT = ("lpips", "cfsd", f"perceptual_distance_{LITE}", f"cfsd_{LITE}")
PARTS = {
    "art_fid": ("fid_art", "lpips"),
    f"art_fid_{LITE}": (f"fid_{LITE}", f"perceptual_distance_{LITE}"),
}
"""Measures that are made of a style distance and a content distance."""


@dataclass
class Collected:
    """Of N samples. `features`: (N, d) by backbone; `looks`: (S, d) of the distinct style pictures by backbone, `look_of`: which
    of them each sample has, -1 for none; `reference`: (R, d), of the pictures that stand in their place; `distances`: (N,) by
    measure, NaN where a sample lacks the input; `texts`: (N, d) of prompts.
    """

    rows: list[Row] = field(default_factory=list)
    features: dict[str, Floats] = field(default_factory=dict)
    looks: dict[str, Floats] = field(default_factory=dict)
    look_of: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    reference: dict[str, Floats] = field(default_factory=dict)
    distances: dict[str, Floats] = field(default_factory=dict)
    texts: Floats | None = None

    def levels(self, column: str) -> Integers:
        """Number of each sample's value in a column, by name: outputs of the same inputs are drawn alike."""
        values = [str(row[column]) for row in self.rows]
        numbers = {value: number for number, value in enumerate(sorted(set(values)))}
        return np.array([numbers[value] for value in values])

    @property
    def factors(self) -> list[Integers]:
        """What samples share, by which they are drawn anew: contents and styles, or sets, or else each prompt."""
        first = self.rows[0]
        if "style_id" in first:
            return [self.levels("content_id"), self.levels("style_id")]
        sets = self.sets
        return [self.levels("id") if sets is None or not sets.max() else sets]

    @property
    def sets(self) -> Integers | None:
        """The set of each sample: of StyleAligned, else pictures of one style; None without either."""
        name = next((name for name in (SET, "style_id") if name in self.rows[0]), None)
        return None if name is None else self.levels(name)


class Collector:
    """Looks at samples for some measures. `advance` is called after each picture."""

    def __init__(
        self, backbones: Backbones, wanted: Sequence[Definition], advance: Callable[[], None]
    ) -> None:
        names = {one.name for one in wanted}
        names |= {part for name in names for part in PARTS.get(name, ())}
        self.backbones, self.names, self.advance = backbones, names, advance
        self.nets = list(dict.fromkeys(net for name, net in FEATURES.items() if name in names))
        self.look_nets = [
            n for n in self.nets if any(FEATURES[m] == n for m in OF_LOOKS if m in names)
        ]

    def collect(self, pictures: OutputPictures, against: str | None = None) -> Collected:
        """Of the whole output; `against`: a source of pictures that stand in the place of its styles."""
        found = Collected()
        features: dict[str, list[Floats]] = {net: [] for net in self.nets}
        looks: dict[str, dict[str, Floats]] = {net: {} for net in self.look_nets}
        distances: dict[str, list[float]] = {}
        numbers: dict[str, int] = {}
        look_of, texts = [], []
        for made in pictures.made():
            found.rows.append(made.row)
            for net in self.nets:
                features[net].append(self.backbones.features(net, made.result))
            name, look = _of_role(made, "look")
            look_of.append(-1 if look is None else numbers.setdefault(name, len(numbers)))
            if look is not None and against is None:
                for net, known in looks.items():
                    if name not in known:
                        known[name] = self.backbones.features(net, look)
            for measure, value in self._distances(made).items():
                distances.setdefault(measure, []).append(value)
            if "text_alignment_clip" in self.names and made.row.get(TEXT):
                texts.append(self.backbones.of_text(made.row[TEXT]))
            self.advance()
        found.look_of = np.array(look_of, np.int64)
        found.features = {net: np.array(rows) for net, rows in features.items()}
        found.looks = {net: np.array(list(known.values())) for net, known in looks.items()}
        found.distances = {name: np.array(values) for name, values in distances.items()}
        found.texts = np.array(texts) if texts and len(texts) == len(found.rows) else None
        if against is not None and found.rows:
            found.reference = self._reference(pictures, against)
        return found

    def _reference(self, pictures: OutputPictures, against: str) -> dict[str, Floats]:
        rows: dict[str, list[Floats]] = {net: [] for net in self.look_nets}
        for pixels in pictures.reference(against):
            for net, found in rows.items():
                found.append(self.backbones.features(net, pixels))
        return {net: np.array(found) for net, found in rows.items()}

    def _distances(self, made: Made) -> Mapping[str, float]:
        _, kept = _of_role(made, "kept")
        name, look = _of_role(made, "look")
        found = {
            measure: float("nan") if kept is None else self._from(measure, made.result, kept)
            for measure in FROM_CONTENT
            if measure in self.names
        }
        if "histogram_loss" in self.names:
            found["histogram_loss"] = (
                float("nan") if look is None else self._histogram_loss(made.result, name, look)
            )
        return found

    def _from(self, measure: str, result: Pixels, kept: Pixels) -> float:
        if result.shape != kept.shape:
            return float("nan")
        return self.backbones.distance(measure, result, kept)

    def _histogram_loss(self, result: Pixels, name: str, look: Pixels) -> float:
        if self._last_look[0] != name:
            self._last_look = (name, rgb_uv_histogram(look))
        return histogram_loss(rgb_uv_histogram(result), self._last_look[1])

    _last_look: tuple[str, Floats] = ("", np.zeros(0))


def _of_role(made: Made, role: str) -> tuple[str, Pixels | None]:
    """Id and picture of the input with a role; none where the sample has none."""
    for kind in ROLES[role]:
        if kind in made.inputs:
            column = f"{kind}_id" if kind in ("content", "style") else kind
            return str(made.row[column]), made.inputs[kind]
    return "", None
