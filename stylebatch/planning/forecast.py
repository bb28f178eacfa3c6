"""What a run will take, before it is begun: time, bytes, memory and money, from a profile of the device."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from stylebatch.errors import ManifestError
from stylebatch.models.family import Family
from stylebatch.planning.batches import value_bytes
from stylebatch.planning.picture_sizes import largest
from stylebatch.planning.plan import Plan
from stylebatch.planning.profiles import Profile
from stylebatch.planning.sample_bytes import sample_bytes
from stylebatch.words import duration, size

MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class Forecast:
    """`device_s`: seconds of one device, None without a profile; `workers`: that share them; bytes that the run writes and holds.

    `peak_bytes`: of one worker at its peak, weights, activations and features; `host_bytes`: of its features in the machine's memory.
    """

    device_s: float | None
    workers: int
    output_bytes: int
    cache_bytes: int
    peak_bytes: int
    host_bytes: int
    profile: Profile | None
    is_scaled: bool

    @property
    def hours(self) -> float | None:
        """From start to end."""
        return None if self.device_s is None else self.device_s / self.workers / 3600

    def cost(self, price: float) -> float | None:
        """At a price per hour of a device."""
        return None if self.device_s is None else self.device_s / 3600 * price

    def summary(self, price: float | None = None) -> dict[str, float | str | None]:
        """Plain values, for `plan --json`."""
        return {
            "hours": self.hours,
            "device_hours": None if self.device_s is None else self.device_s / 3600,
            "cost": None if price is None else self.cost(price),
            "output_bytes": self.output_bytes,
            "cache_bytes": self.cache_bytes,
            "peak_bytes": self.peak_bytes,
            "host_bytes": self.host_bytes,
            "profile": None if self.profile is None else self.profile.file,
        }

    def lines(self, price: float | None = None) -> list[str]:
        """For a terminal."""
        cache = f", {size(self.cache_bytes)} in the cache" if self.cache_bytes else ""
        beside = f", and {size(self.host_bytes)} in the machine's memory" if self.host_bytes else ""
        peak = f"{size(self.peak_bytes)} per worker{beside}"
        held = f"writes about {size(self.output_bytes)}{cache}; holds up to {peak}"
        if self.device_s is None or self.profile is None:
            return [
                f"time: not known on this machine; `stylebatch doctor MODEL` measures it; {held}"
            ]
        profile = self.profile
        shared = f", {duration(self.device_s / self.workers)} with {self.workers} workers"
        paid = "" if price is None else f", {self.cost(price):,.2f} at {price:g} an hour"
        scaled = f", from {profile.size} px by the number of pixels" if self.is_scaled else ""
        return [
            f"time: about {duration(self.device_s)} of one device{shared if self.workers > 1 else ''}{paid} "
            f"({' '.join(filter(None, (profile.device, profile.name)))} in {profile.dtype}, measured {profile.measured}{scaled})",
            held,
        ]


def forecast(plan: Plan, family: Family, profile: Profile | None) -> Forecast:
    """Of all that the plan renders with a network of `family`; what is committed or cached already is counted too."""
    output = plan.spec.output
    num_inputs = len(plan.options.input_members)
    side = round(math.sqrt(_mean_pixels(plan)))
    each = sample_bytes(output, (side, side), num_inputs)
    return Forecast(
        device_s=None if profile is None else device_seconds(plan, profile),
        workers=_workers(plan),
        output_bytes=each * plan.grid.num_samples,
        cache_bytes=plan.layout.cache_bytes,
        peak_bytes=_peak_bytes(plan, family),
        host_bytes=plan.layout.kept_bytes.host,
        profile=profile,
        is_scaled=profile is not None and profile.size**2 != plan.window[0] * plan.window[1],
    )


def device_seconds(plan: Plan, profile: Profile) -> float:
    """Worker time of all that the plan renders."""
    layout, samples = plan.layout, plan.grid.num_samples
    # a network row is a window, a picture of the autoencoder the whole canvas
    whole = plan.image_size[0] * plan.image_size[1]
    window = plan.window[0] * plan.window[1]
    mean = _mean_pixels(plan)
    of_picture = mean / profile.size**2
    of_row = (mean if window == whole else window) / profile.size**2
    rows = row_seconds(plan, profile) * of_row
    encoded = layout.num_prepared
    pictures = encoded * profile.encode_s + samples * profile.decode_s
    return (
        plan.evaluations * rows
        + (pictures + samples * profile.sample_s) * of_picture
        + profile.load_s
    )


def row_seconds(plan: Plan, profile: Profile) -> float:
    """Of a network row of the profile's size, in the batches that the plan makes."""
    options, most = plan.options, plan.batch
    # a block of a set counts the reference, which `rows_per_step` adds
    samples = max(1, plan.layout.samples_per_block - (1 if options.uses_sets else 0))
    rows = options.rows_per_step(replace(plan.layout.work.size, samples=samples))
    if options.relates_rows and profile.device == "cpu":  # whole evaluations go side by side
        most *= min(plan.batches_at_once, profile.threads)
    return profile.row_seconds(min(most, rows), related=options.relates_rows)


def _workers(plan: Plan) -> int:
    """Workers that have work: without Ray one, and none without a shard."""
    given = plan.spec.engine.workers or 1
    is_ray = plan.spec.engine.name in ("auto", "ray")
    return min(given, plan.num_shards) if is_ray else 1


def _mean_pixels(plan: Plan) -> float:
    """Of a sample, whose image may keep its own size; by rows spread over all."""
    rows = plan.counts[0]
    looked = range(0, rows, max(1, rows // MOST_LOOKED_AT))
    areas = [width * height for width, height in (plan.size_of(row, 0) for row in looked)]
    return sum(areas) / len(areas)


def _peak_bytes(plan: Plan, family: Family) -> int:
    spec = plan.spec
    weights = sum(family.about().parameters.values()) * value_bytes(spec)
    canvas = largest(plan.axes, plan.image_size)
    window = plan.window if canvas == plan.image_size else canvas
    at_window = family.memory(window, value_bytes(spec))
    whole = family.memory(canvas, value_bytes(spec))
    # the network and the autoencoder take turns, so that the larger of the two counts
    at_once = max(plan.batch * at_window.row, plan.pictures * whole.picture)
    return weights + plan.layout.kept_bytes.device + at_once


def require_within(found: Forecast, max_hours: float | None, max_bytes: float | None) -> None:
    """Raise ManifestError where a run takes more than is allowed, or where nothing tells how long it takes."""
    if max_hours is not None:
        if found.hours is None:
            raise ManifestError(
                "--max-hours: this device has no profile of the model; next: stylebatch doctor MODEL, which measures one"
            )
        if found.hours > max_hours:
            raise ManifestError(
                f"--max-hours: found {max_hours:g}, and the run takes about {found.hours:.3g} hours; accepted: more hours, fewer "
                "samples, `engine.workers`, or `method.preset: fast`"
            )
    written = found.output_bytes + found.cache_bytes
    if max_bytes is not None and written > max_bytes:
        raise ManifestError(
            f"--max-bytes: found {max_bytes:,.0f}, and the run writes about {written:,} bytes; accepted: more bytes, fewer samples, "
            "`output.inputs: false`, or a smaller `image.size`"
        )
