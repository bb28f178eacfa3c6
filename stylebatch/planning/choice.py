"""Where features come from, chosen once per output: what a manifest leaves open, what each way costs, the cheapest.

Without a cache the ways differ in network evaluations alone, so that arithmetic decides. With one, a run measures
seconds per evaluation and the cache's bandwidth first. Inversions that a cache keeps for later runs are not counted
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from stylebatch.methods.stored_bytes import CodecName
from stylebatch.spec import RunSpec


@dataclass(frozen=True)
class FeatureSources:
    """Sources of the features of `styles` and `contents`, and what is kept of styles.

    `held` on the device since the inversion, `hosted` in the machine's memory.
    """

    styles: Literal["held", "hosted", "cached", "recomputed"]
    contents: Literal["held", "hosted", "recomputed"]
    codec: CodecName

    @property
    def recomputes_styles(self) -> bool:
        """Whether features of styles are computed anew for every block: from latents in memory, or in the cache."""
        return self.styles == "recomputed" or self.codec == "trajectory"

    def __str__(self) -> str:
        styles, contents = (
            "held in the machine's memory" if source == "hosted" else source
            for source in (self.styles, self.contents)
        )
        return f"styles {styles} ({self.codec}), contents {contents}"


@dataclass(frozen=True)
class Measurements:
    """What was measured: network seconds per row, the cache's bytes per second, bytes that it may hold in all.

    None: not known, as in a plan that is only shown. `batch_gb`: memory of the device for activations, GiB.
    """

    evaluation_s: float | None = None
    read_bytes_s: float | None = None
    write_bytes_s: float | None = None
    room_bytes: int | None = None
    batch_gb: float | None = None


UNKNOWN = Measurements()


class FeatureCost(Protocol):
    """Cost of a run under a choice: evaluations in all and of new styles, batches, bytes read and written; as `Layout` has it."""

    @property
    def evaluations(self) -> int: ...
    @property
    def column_evaluations(self) -> int: ...
    @property
    def rendering_evaluations(self) -> int: ...
    @property
    def num_batches(self) -> int: ...
    @property
    def read_bytes(self) -> int: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def is_cut(self) -> bool: ...


@dataclass(frozen=True)
class FeatureChoice:
    """The choice, and the cost of each way that was compared: seconds, or evaluations where nothing was measured."""

    choice: FeatureSources
    costs: Mapping[FeatureSources, float]
    conditions: Measurements

    @property
    def reason(self) -> str:
        """One line for people."""
        measured = self.conditions
        unit = "evaluations" if measured.evaluation_s is None else "s"
        others = ", ".join(
            f"{choice} {cost:,.0f}" for choice, cost in self.costs.items() if choice != self.choice
        )
        against = f"; against {others}" if others else ""
        line = f"Features: {self.choice}"
        if self.choice in self.costs:
            line += f", {self.costs[self.choice]:,.0f} {unit}{against}"
        if measured.evaluation_s is None or measured.read_bytes_s is None:
            return line
        return (
            f"{line} (network {1000 * measured.evaluation_s:.1f} ms per row, "
            f"cache reads {measured.read_bytes_s / 1e6:,.0f} MB/s)"
        )


def candidates(spec: RunSpec) -> list[FeatureSources]:
    """Every way the manifest allows; of two that cost the same in batches as full, the earlier is taken."""
    features = spec.features
    held: list[Literal["held", "hosted"]] = ["held", "hosted"] if spec.engine.host_gb else ["held"]
    styles: list[Literal["held", "hosted", "cached", "recomputed"]] = [*held, "recomputed"]
    if features.source != "auto":
        styles = [*held] if features.source == "held" else [features.source]
    elif features.cache is not None:
        styles = ["cached", *styles]
    contents: list[Literal["held", "hosted", "recomputed"]] = [*held, "recomputed"]
    if features.contents != "auto":
        contents = [*held] if features.contents == "held" else [features.contents]
    return [
        FeatureSources(source, kept, codec)
        for source in styles
        for kept in contents
        for codec in _codecs(spec, source)
    ]


def _codecs(spec: RunSpec, source: str) -> Iterator[CodecName]:
    given = spec.features.codec
    if given == "trajectory" and source != "cached":
        return  # a cache's: without one, latents are kept by source recomputed
    if given != "auto":
        yield given
    elif source == "cached":
        yield from ("x", "x8", "trajectory")
    elif source in ("held", "hosted"):
        yield from ("kv", "x")
    else:
        yield "kv"


def needs_measuring(spec: RunSpec) -> bool:
    """Whether the choice depends on seconds and bytes, not on counts alone."""
    features = spec.features
    if features.source != "auto" or features.cache is None or features.codec == "trajectory":
        return False
    return spec.options.keeps_features


def choose(
    spec: RunSpec,
    layout: Callable[[FeatureSources], FeatureCost],
    conditions: Measurements = UNKNOWN,
) -> FeatureChoice:
    """The cheapest of `candidates(spec)` that fits memory (blocks are cut to it) and disk."""
    laid: dict[FeatureSources, FeatureCost] = {}
    for choice in candidates(spec):
        if (
            conditions.evaluation_s is None
            and choice.styles != "cached"
            and any(
                former.styles == "cached" and _fits(former, cost, conditions)
                for former, cost in laid.items()
            )
        ):
            break  # nothing to compare them by: the cache that was given is used
        if choice.styles == "cached" and not _may_cache(choice, laid, conditions):
            continue
        if not _is_dominated(choice, laid):
            laid[choice] = layout(choice)
    # where no way fits the disk, all are compared: the run then says what it lacks
    whole = {choice: cost for choice, cost in laid.items() if _fits(choice, cost, conditions)}
    laid = whole or laid
    costs = {choice: _seconds(cost, conditions) for choice, cost in laid.items()}
    # of equals the one of fuller batches, then the earlier: `min` keeps the first, and dicts keep their order
    cheapest = min(costs, key=lambda choice: (costs[choice], laid[choice].num_batches))
    return FeatureChoice(cheapest, costs, conditions)


def _may_cache(
    choice: FeatureSources, laid: Mapping[FeatureSources, FeatureCost], conditions: Measurements
) -> bool:
    """int8 is for disks that do not hold the exact form; latents alone are weighed by seconds, or where no features fit."""
    fitting = {
        former.codec
        for former, cost in laid.items()
        if former.styles == "cached" and _fits(former, cost, conditions)
    }
    if choice.codec == "trajectory":
        return conditions.evaluation_s is not None or fitting <= {"trajectory"}
    return choice.codec != "x8" or "x" not in fitting


def _fits(choice: FeatureSources, cost: FeatureCost, conditions: Measurements) -> bool:
    room = conditions.room_bytes
    return choice.styles != "cached" or room is None or cost.cache_bytes <= room


def _is_dominated(choice: FeatureSources, laid: Mapping[FeatureSources, FeatureCost]) -> bool:
    """Whether a way was laid out before that memory does not cut and that computes no more."""
    return any(
        former.contents != "recomputed" and not cost.is_cut and _dominates(former, choice)
        for former, cost in laid.items()
    )


def _dominates(uncut: FeatureSources, choice: FeatureSources) -> bool:
    """Whether `choice` computes and reads at least as much as a way whose blocks memory does not cut."""
    if uncut.styles in ("held", "hosted"):
        return choice.styles != "cached"
    return (choice.styles, choice.codec) == (uncut.styles, uncut.codec)


def _seconds(cost: FeatureCost, conditions: Measurements) -> float:
    """Of the whole run; reading goes on beside the network. Evaluations where nothing was measured."""
    if conditions.evaluation_s is None:
        return float(cost.evaluations)
    # styles that a cache keeps are paid for by this run and used by all later ones
    saved = cost.column_evaluations if cost.cache_bytes else 0
    seconds = (cost.evaluations - saved) * conditions.evaluation_s
    if cost.read_bytes and conditions.read_bytes_s and conditions.write_bytes_s:
        rendering = cost.rendering_evaluations * conditions.evaluation_s
        seconds += max(0.0, cost.read_bytes / conditions.read_bytes_s - rendering)
        seconds += cost.cache_bytes / conditions.write_bytes_s
    return seconds


def kept_choice(spec: RunSpec, recorded: Any) -> FeatureSources | None:
    """The choice of an earlier start of the same output, where the manifest still allows it."""
    found = [choice for choice in candidates(spec) if asdict(choice) == recorded]
    return found[0] if found else None
