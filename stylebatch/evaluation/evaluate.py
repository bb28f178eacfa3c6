"""Evaluates outputs: every measure of the table with its interval, or why it cannot be had; and the traps of these numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from stylebatch.errors import ManifestError
from stylebatch.evaluation.backbones import Backbones
from stylebatch.evaluation.collecting import FEATURES, OF_LOOKS, PARTS, Collected, Collector, Floats
from stylebatch.evaluation.definitions import DEFINITIONS, Definition
from stylebatch.evaluation.distances import (
    art_fid,
    frechet_distance,
    kernel_distance,
    set_consistency,
)
from stylebatch.evaluation.output_pictures import OutputPictures, listed_reference
from stylebatch.evaluation.resampling import (
    Interval,
    Statistic,
    drawn_values,
    interval,
    weights_of_draws,
)
from stylebatch.evaluation.traps import traps
from stylebatch.folder import Folder, Place
from stylebatch.methods.input_kinds import TEXT, kinds_of
from stylebatch.quality.measures import MEASURES, ROLES
from stylebatch.reports.committed import Committed
from stylebatch.reports.variant_records import NAMING
from stylebatch.words import counted, is_or_are

MANY = 4_000_000
"""Results x reference pictures beyond which a draw of a set distance takes seconds: fewer draws then."""
FEW_DRAWS = 40


@dataclass(frozen=True)
class Figure:
    """A measure of one output. `value`: None where it cannot be had, for the reason `unavailable`. `drawn`: its values of the draws;
    `difference`: of it less the first output's, where both have the same samples."""

    name: str
    title: str
    role: str
    better: str
    says: str
    value: float | None = None
    interval: Interval | None = None
    unavailable: str = ""
    is_published: bool = True
    drawn: Floats = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    difference: Interval | None = None

    @property
    def is_other(self) -> bool:
        """Whether it differs from the first output's by more than draws do."""
        return (
            self.difference is not None and not self.difference.low <= 0.0 <= self.difference.high
        )


@dataclass(frozen=True)
class Evaluation:
    """Figures of one output. `faults`: what of it is damaged or missing; `samples`: what names each sample."""

    output: str
    name: str
    num_samples: int
    num_looks: int
    reference: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]
    samples: frozenset[tuple[str, ...]] = frozenset()

    def value(self, name: str) -> Figure | None:
        """A figure that there is."""
        return next((f for f in self.figures if f.name == name and f.value is not None), None)


@dataclass(frozen=True)
class Request:
    """How outputs are evaluated. `against`: a source of pictures in the place of the styles; `limit`: samples at most; `draws`: for
    intervals, 0 for none."""

    weights: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    limit: int | None = None
    draws: int = 200
    device: str = "cpu"


def evaluate(
    outputs: Sequence[Place], request: Request, on_picture: Callable[[], None] = lambda: None
) -> list[Evaluation]:
    """Evaluate each output. Raises ManifestError where there is none, or weights are not what their name says."""
    backbones = Backbones(request.weights, request.device)
    readers = [OutputPictures(Folder.at(output), request.limit) for output in outputs]
    for reader in readers:  # what cannot be read at all is told before the first picture
        if not reader.rows:
            raise ManifestError(
                f"{reader.output}: found no sample that succeeded; accepted: one or more"
            )
    if request.against is not None:
        listed_reference(request.against)
    found = [_evaluated(reader, backbones, request, on_picture) for reader in readers]
    return [found[0], *(_against_first(one, found[0]) for one in found[1:])]


def _against_first(one: Evaluation, first: Evaluation) -> Evaluation:
    """With differences from the first output. Draws of the same samples are the same draws: what inputs do to both cancels."""
    if one.samples != first.samples:
        return one
    figures = []
    for figure in one.figures:
        other = first.value(figure.name)
        gap = None if other is None else _gap(figure, other)
        figures.append(replace(figure, difference=gap))
    return replace(one, figures=tuple(figures))


def _gap(figure: Figure, other: Figure) -> Interval | None:
    if figure.value is None or other.value is None or len(figure.drawn) != len(other.drawn):
        return None
    return interval(figure.value - other.value, figure.drawn - other.drawn)


def num_samples(outputs: Sequence[Folder], limit: int | None) -> int:
    """How many pictures an evaluation looks at. Raises ManifestError where there is no run."""
    found = [Committed(output).num_success for output in outputs]
    return sum(found) if limit is None else sum(min(limit, count) for count in found)


def _evaluated(
    reader: OutputPictures, backbones: Backbones, request: Request, on_picture: Callable[[], None]
) -> Evaluation:
    columns = reader.rows[0]
    axes = kinds_of(list(columns))
    kinds = {kind.name for kind in axes if any(row[kind.column] for row in reader.rows)}
    kinds |= {TEXT} & set(columns)
    reasons = {one.name: _reason(one, backbones, kinds, request) for one in DEFINITIONS}
    wanted = [one for one in DEFINITIONS if not reasons[one.name]]
    found = Collector(backbones, wanted, on_picture).collect(reader, request.against)
    if not found.rows:
        raise ManifestError("\n".join([f"{reader.output}: no sample can be read", *reader.faults]))
    draws = weights_of_draws(found.factors, request.draws) if request.draws else []
    figures = [_figure(one, reasons[one.name], found, draws) for one in DEFINITIONS]
    figures += _of_records(found, draws)
    faults = list(reader.faults)
    if reader.num_missing_shards:
        faults.append(
            f"{reader.output}: {counted(reader.num_missing_shards, 'shard')} {is_or_are(reader.num_missing_shards)} not committed"
        )
    size = (columns["width"], columns["height"])
    num_looks = len(np.unique(found.look_of[found.look_of >= 0]))
    return Evaluation(
        str(reader.output),
        reader.run.name,
        len(found.rows),
        num_looks,
        request.against or "the styles of the output",
        tuple(figures),
        traps(figures, len(found.rows), num_looks, size, reader.run.plan.num_samples),
        tuple(dict.fromkeys(faults)),
        frozenset(tuple(str(row[c]) for c in NAMING if c in row) for row in found.rows),
    )


def _reason(one: Definition, backbones: Backbones, kinds: Collection[str], request: Request) -> str:
    """Why a measure of samples made of these kinds of inputs cannot be had; "" where it can."""
    for role in one.inputs:
        if role == "text":
            if TEXT not in kinds:
                return "the samples have no prompts"
        elif not any(kind in kinds for kind in ROLES[role]):
            if role == "look" and request.against and one.name != "histogram_loss":
                continue
            what = "no content" if role == "kept" else "no style picture"
            return f"the samples were made from {what}" + (
                "; give pictures with --against DIR" if role == "look" else ""
            )
    return backbones.lacks(one.needs)


def _figure(one: Definition, reason: str, found: Collected, draws: Sequence[Floats]) -> Figure:
    facts = (one.name, one.title, one.role, one.better, one.says)
    if reason:
        return Figure(*facts, unavailable=reason, is_published=one.is_published)
    statistic = _statistic(one.name, found)
    try:
        value = statistic(np.ones(len(found.rows)))
    except ValueError as error:
        return Figure(*facts, unavailable=str(error), is_published=one.is_published)
    if one.name in (*OF_LOOKS, *PARTS) and _pairs(one.name, found) > MANY:
        draws = draws[:FEW_DRAWS]
    drawn = drawn_values(statistic, draws)
    return Figure(*facts, value, interval(value, drawn), "", one.is_published, drawn)


def _pairs(name: str, found: Collected) -> int:
    net = FEATURES[PARTS[name][0] if name in PARTS else name]
    of_all = [kept[net] for kept in (found.reference, found.looks) if net in kept]
    return len(found.rows) * len(of_all[0]) if of_all else 0


def _statistic(name: str, found: Collected) -> Statistic:
    """The measure as a function of how often each sample counts."""
    if name in PARTS:
        style, content = (_statistic(part, found) for part in PARTS[name])
        return lambda weights: art_fid(content(weights), style(weights))
    if name in found.distances:
        return partial(_mean, found.distances[name])
    features = found.features[FEATURES[name]]
    if name in OF_LOOKS:
        return partial(_of_sets, name, features, found)
    if name == "text_alignment_clip":
        texts = found.texts
        return partial(_mean, np.array([]) if texts is None else _cosines(features, texts))
    sets = found.sets
    if sets is None:
        return _no_sets
    return lambda weights: set_consistency(features, sets, weights)


def _no_sets(weights: Floats) -> float:
    raise ValueError("the samples form no sets: they have no style in common")


def _mean(values: Floats, weights: Floats) -> float:
    known = ~np.isnan(values)
    total = weights[known].sum() if known.any() else 0.0
    if not total:
        raise ValueError(
            "no sample has the picture that it compares with, in the size of its result"
        )
    return float(weights[known] @ values[known] / total)


def _of_sets(name: str, features: Floats, found: Collected, weights: Floats) -> float:
    """Fréchet or kernel distance of results from the reference, or from the styles: as often as they were used, or each once."""
    net = FEATURES[name]
    is_kernel = name.startswith("kid")
    if net in found.reference:
        others = found.reference[net]
        counts = np.ones(len(others))
    else:
        others, known = found.looks[net], found.look_of >= 0
        if not len(others):
            raise ValueError("no style picture can be read")
        places = found.look_of[known]
        counts = np.asarray(np.bincount(places, weights[known], len(others)), np.float64)
        if is_kernel:
            # two copies of a style would be compared with each other as if they were two styles
            counts = counts / np.maximum(np.bincount(places, minlength=len(others)), 1)
    distance = kernel_distance if is_kernel else frechet_distance
    return distance(features, others, weights, counts)


def _cosines(first: Floats, second: Floats) -> Floats:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(1) / np.maximum(norms, 1e-12))


_ROLES: dict[tuple[str, ...], str] = {("kept",): "structure", ("look",): "style"}


def _of_records(found: Collected, draws: Sequence[Floats]) -> list[Figure]:
    """Means of the measures that every sample has, which need no network."""
    figures = []
    for measure in MEASURES:
        if measure.column not in found.rows[0]:
            continue
        given = [row[measure.column] for row in found.rows]
        values = np.array([np.nan if value is None else value for value in given], np.float64)
        if np.isnan(values).all():
            continue
        statistic = partial(_mean, values)
        value, drawn = statistic(np.ones(len(values))), drawn_values(statistic, draws)
        role = _ROLES.get(measure.needs, "sample")
        figures.append(
            Figure(
                measure.column, measure.name, role, "", "mean of the column of the records", value,
                interval(value, drawn), "", False, drawn,
            )
        )  # fmt: skip
    return figures
