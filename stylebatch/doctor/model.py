"""What a checkpoint is and costs: from its files, then, unless told not to, by loading it and one evaluation."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import torch

from stylebatch.data.sides import DEFAULT_BATCH_GB, activation_bytes
from stylebatch.doctor.checks import check_configs, check_weights, parameters
from stylebatch.doctor.findings import Finding, problem
from stylebatch.doctor.machine import free_memory
from stylebatch.engine.measure import evaluation_seconds
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, SiteShape, find_checkpoint
from stylebatch.models.families import names_of
from stylebatch.models.stable_diffusion import load_checkpoint, placement, schedule_from_config
from stylebatch.spec import EngineSpec, ModelSpec, StyleIDOptions

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MARGIN = 1.1
"""Memory beyond weights and activations: the program, the VAE's buffers."""


@dataclass(frozen=True)
class Measured:
    """Where the checkpoint was loaded and how fast it was; per evaluation of one row."""

    device: str
    dtype: str
    threads: int
    load_s: float
    evaluation_s: float


@dataclass(frozen=True)
class Diagnosis:
    """All that is told of a checkpoint; fields that its files do not tell are None or empty."""

    model: str
    findings: tuple[Finding, ...]
    layout: str | None = None
    published: tuple[str, ...] = ()
    prediction_type: str | None = None
    native_size: int | None = None
    size_multiple: int | None = None
    size: int | None = None
    dtype: str = "float32"
    parameters: dict[str, int] = field(default_factory=dict)
    """By part; 0 where no weights were found."""
    sites: tuple[SiteShape, ...] = ()
    styled: tuple[int, ...] = ()
    steps: int = 0
    activations: dict[str, int] = field(default_factory=dict)
    feature_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    measured: Measured | None = None

    @property
    def is_sound(self) -> bool:
        return all(finding.level != "problem" for finding in self.findings)


def diagnose(spec: ModelSpec, *, size: int | None = None, measure: bool = True) -> Diagnosis:
    """Check a checkpoint; problems are told, not raised, but for a size that it does not take (ManifestError)."""
    named = spec.name or spec.id or str(spec.path)
    try:
        checkpoint = find_checkpoint(spec, families=("sd", "sdxl"))
        schedule = schedule_from_config(checkpoint.config("scheduler"))
    except ManifestError as error:
        return Diagnosis(named, (_as_problem(error),))
    pixels = size or checkpoint.native_size
    if pixels % checkpoint.size_multiple:
        raise ManifestError(
            f"--size: found {pixels}; accepted by this model: multiples of {checkpoint.size_multiple}"
        )
    findings = [*check_weights(checkpoint), *check_configs(checkpoint)]
    counts = parameters(checkpoint)
    device, dtype = placement(spec.dtype)
    activations = {
        name: activation_bytes(checkpoint, pixels, BYTES[name]) for name in ("float16", "float32")
    }
    needed = sum(counts.values()) * BYTES[dtype] + activation_bytes(
        checkpoint, pixels, BYTES[dtype]
    )
    if device.type in ("cpu", "cuda") and needed * MARGIN > (room := free_memory(device)):
        findings.append(
            problem(
                f"weights and one row need {needed / 1e9:.1f} GB in {dtype}; {device.type} has {room / 1e9:.1f} GB free",
                "a half-precision `dtype`, `offload`, or a machine with more memory",
            )
        )
    measured = None
    if measure and all(finding.level != "problem" for finding in findings):
        measured = _measure(spec, checkpoint, pixels, findings)
    options = StyleIDOptions()
    shapes = checkpoint.site_shapes(pixels)
    styled = tuple(site for site in options.sites if site in checkpoint.sites)
    latents = (pixels // checkpoint.latent_factor) ** 2 * schedule_channels(checkpoint)
    return Diagnosis(
        named,
        tuple(findings),
        layout=checkpoint.layout,
        published=names_of(checkpoint.config("unet"), schedule.prediction_type),
        prediction_type=schedule.prediction_type,
        native_size=checkpoint.native_size,
        size_multiple=checkpoint.size_multiple,
        size=pixels,
        dtype=dtype,
        parameters=counts,
        sites=shapes,
        styled=styled or checkpoint.sites,
        steps=options.steps,
        activations=activations,
        feature_bytes=_feature_bytes(
            [shape for shape in shapes if shape.site in (styled or checkpoint.sites)],
            options,
            latents,
        ),
        measured=measured,
    )


def schedule_channels(checkpoint: Checkpoint) -> int:
    return int(checkpoint.config("unet").get("in_channels", 4))


def _feature_bytes(
    shapes: list[SiteShape], options: StyleIDOptions, latents: int
) -> dict[str, dict[str, int]]:
    """Per codec and float dtype, bytes that a style takes over all timesteps; latents are float32 under every codec."""
    numbers = sum(shape.elements for shape in shapes)
    scales = 4 * sum(shape.channels * shape.layers for shape in shapes)
    steps, trajectory = options.num_reverse_evaluations, (options.steps + 1) * latents * 4
    return {
        "kv": {name: 2 * numbers * BYTES[name] * steps for name in ("float16", "float32")},
        "x": {name: numbers * BYTES[name] * steps for name in ("float16", "float32")},
        "x8": {name: (numbers + scales) * steps for name in ("float16", "float32")},
        "trajectory": {name: trajectory for name in ("float16", "float32")},
    }


def _measure(
    spec: ModelSpec, checkpoint: Checkpoint, size: int, findings: list[Finding]
) -> Measured | None:
    """Load, evaluate; what goes wrong is added to `findings`."""
    started = time.perf_counter()
    try:
        model = load_checkpoint(checkpoint, dtype=spec.dtype, offload=spec.offload)
    except ManifestError as error:
        findings.append(_as_problem(error))
        return None
    loaded = time.perf_counter()
    dtype = str(model.unet.dtype).removeprefix("torch.")
    budget = DEFAULT_BATCH_GB * 2**30 / activation_bytes(checkpoint, size, BYTES[dtype])
    batch = max(1, min(EngineSpec().batch, int(budget)))
    try:
        seconds = evaluation_seconds(model, size, batch)
    except torch.OutOfMemoryError:
        findings.append(
            problem(f"memory ran out at {size} px", "a smaller `image.size`, or `offload: model`")
        )
        return None
    side = size // model.latent_factor
    x = torch.randn(1, schedule_channels(checkpoint), side, side).to(model.device)
    if not bool(model.predict_noise(x, 500, model.embed([""])).isfinite().all()):
        findings.append(
            problem(f"the network gives values that are not finite in {dtype}", "dtype: float32")
        )
    threads = torch.get_num_threads()
    return Measured(str(model.device), dtype, threads, loaded - started, seconds)


def _as_problem(error: ManifestError) -> Finding:
    """Our errors tell what was found, then what is accepted or next."""
    told, words, step = re.split(r"(?i)(accepted: |next: )", f"{error}accepted: ", maxsplit=1)
    step = step.removesuffix("accepted: ").rstrip(". ")
    give = "give " if words.lower().startswith("accepted") else ""
    return problem(told.rstrip(" ;."), f"{give}{step}" if step else "see docs/models.md")
