"""Diagnoses a checkpoint: its family, sizes and faults from its files, its speed from a few evaluations."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch

from stylebatch.doctor.findings import Finding, note, problem
from stylebatch.doctor.machine import free_memory
from stylebatch.doctor.prediction import check_outputs
from stylebatch.doctor.profiling import profile_of
from stylebatch.errors import ManifestError, StorageError
from stylebatch.methods.stored_bytes import FeatureCodecName, stored_bytes
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.family import SiteShape
from stylebatch.models.libraries import WRONG, first_line
from stylebatch.models.loading import faults, load_checkpoint, placement
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.batches import DEFAULT_BATCH_GB
from stylebatch.planning.profiles import Profile, profiles_folder, save_profile
from stylebatch.spec import DEFAULT_METHOD, EngineSpec

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MARGIN = 1.1
"""Factor for memory beyond weights and activations: the program, the VAE's buffers."""


@dataclass(frozen=True)
class Measured:
    """Where the checkpoint was loaded and how fast it was; per evaluation of one row."""

    device: str
    dtype: str
    threads: int
    load_s: float
    evaluation_s: float
    profile: str
    """File of the profile, by which `plan` tells hours; "" where it could not be written."""


@dataclass(frozen=True)
class Diagnosis:
    """What `stylebatch doctor MODEL` reports; fields that the files do not define are None or empty."""

    model: str
    findings: tuple[Finding, ...]
    layout: str | None = None
    family: str | None = None
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


Measure = Literal["no", "kept", "unkept"]
"""Whether speed is measured, and kept as a profile for plans."""


def diagnose(spec: ModelSpec, *, size: int | None = None, measure: Measure = "kept") -> Diagnosis:
    """Check a checkpoint. Its problems become findings; only a `size` that it does not accept raises (ManifestError)."""
    name = ", ".join([spec.name or spec.id or str(spec.path), *spec.additions])
    try:
        return _diagnosed(name, spec, size, measure)
    except ManifestError:  # a ValueError too, which WRONG names
        raise
    except WRONG as error:
        message = f"it cannot be used: {error.__class__.__name__}: {first_line(error)}"
        return Diagnosis(name, (problem(message, "fetch it again"),))


def _diagnosed(name: str, spec: ModelSpec, size: int | None, measure: Measure) -> Diagnosis:
    try:
        checkpoint = find_checkpoint(spec)
        family = checkpoint.family
        about, sizes = family.about(), family.sizes
    except ManifestError as error:
        return Diagnosis(name, (_as_problem(error),))
    pixels = size or sizes.native
    if pixels % sizes.multiple:
        raise ManifestError(
            f"--size: found {pixels}; accepted by this model: multiples of {sizes.multiple}"
        )
    findings = [
        *map(_as_problem, faults(checkpoint)),
        *(note(*doubt) for doubt in about.doubts),
    ]
    counts = dict(about.parameters)
    device, dtype = placement(spec.dtype)
    needed = sum(counts.values()) * BYTES[dtype] + _row_bytes(checkpoint, pixels, dtype)
    findings += _short_of_memory(needed, device, dtype)
    measured = None
    if measure != "no" and all(finding.level != "problem" for finding in findings):
        measured = _measure(spec, checkpoint, pixels, findings, keep=measure == "kept")
    options, shapes = DEFAULT_METHOD, family.site_shapes(pixels)
    styled = tuple(site for site in options.sites if site in checkpoint.sites) or checkpoint.sites
    latents = (pixels // sizes.latent_factor) ** 2 * sizes.latent_channels
    return Diagnosis(
        name,
        tuple(findings),
        layout=about.layout,
        family=about.title,
        published=about.published,
        prediction_type=about.predicts,
        native_size=sizes.native,
        size_multiple=sizes.multiple,
        size=pixels,
        dtype=dtype,
        parameters=counts,
        sites=shapes,
        styled=styled,
        steps=options.steps,
        activations={kind: _row_bytes(checkpoint, pixels, kind) for kind in ("float16", "float32")},
        feature_bytes=_feature_bytes([shape for shape in shapes if shape.site in styled], latents),
        measured=measured,
    )


def _short_of_memory(needed: int, device: torch.device, dtype: str) -> list[Finding]:
    """A problem where `needed` bytes for weights and one row are more than the device has free."""
    if device.type not in ("cpu", "cuda") or needed * MARGIN <= (free := free_memory(device)):
        return []
    return [
        problem(
            f"weights and one row need {needed / 1e9:.1f} GB in {dtype}; {device.type} has {free / 1e9:.1f} GB free",
            "a half-precision `dtype`, `offload`, or a machine with more memory",
        )
    ]


def _row_bytes(checkpoint: Checkpoint, pixels: int, dtype: str) -> int:
    """Activations of one row of an evaluation, for a square picture."""
    return checkpoint.family.memory((pixels, pixels), BYTES[dtype]).row


def _feature_bytes(shapes: list[SiteShape], latents: int) -> dict[str, dict[str, int]]:
    """Per codec and float dtype, bytes that a style takes over all timesteps; latents are float32 under every codec."""
    numbers = sum(shape.elements for shape in shapes)
    scales = sum(shape.channels * shape.layers for shape in shapes)
    steps = DEFAULT_METHOD.num_reverse_evaluations
    trajectory = (DEFAULT_METHOD.steps + 1) * latents * 4
    found = {
        codec: {
            name: steps * stored_bytes(codec, numbers, BYTES[name], scales)
            for name in ("float16", "float32")
        }
        for codec in get_args(FeatureCodecName)
    }
    return found | {"trajectory": {name: trajectory for name in ("float16", "float32")}}


def _measure(
    spec: ModelSpec, checkpoint: Checkpoint, size: int, findings: list[Finding], *, keep: bool
) -> Measured | None:
    """Load the model and time evaluations; failures are added to `findings`."""
    started = time.perf_counter()
    try:
        model = load_checkpoint(checkpoint, dtype=spec.dtype, offload=spec.offload)
    except ManifestError as error:
        findings.append(_as_problem(error))
        return None
    loaded = time.perf_counter()
    dtype = str(model.dtype).removeprefix("torch.")
    at_once = int(DEFAULT_BATCH_GB * 2**30 / _row_bytes(checkpoint, size, dtype))
    batch = max(1, min(EngineSpec().batch, at_once))
    try:
        profile = profile_of(
            model,
            spec.name or spec.id or str(spec.path),
            size=size,
            batch=batch,
            lanes=1 if spec.offload != "none" else max(1, at_once // batch),
        )
        profile = replace(
            profile, fingerprint=checkpoint.fingerprint, load_s=round(loaded - started, 3)
        )
    except torch.OutOfMemoryError:
        findings.append(
            problem(f"memory ran out at {size} px", "a smaller `image.size`, or `offload: model`")
        )
        return None
    if isinstance(model, StableDiffusion):
        findings.extend(check_outputs(model, size, checkpoint.family.sizes.native))
    kept = _kept(profile, findings) if keep else ""
    return Measured(
        str(model.device),
        dtype,
        profile.threads,
        profile.load_s,
        min(profile.row_s.values()),
        kept,
    )


def _kept(profile: Profile, findings: list[Finding]) -> str:
    """The file that keeps the profile, "" where it could not be written."""
    place = profiles_folder()
    try:
        save_profile(place, profile)
    except StorageError as error:
        findings.append(
            note(f"the profile could not be kept ({error})", f"a {place} that can be written")
        )
        return ""
    return f"{place}/{profile.file}"


def _as_problem(error: ManifestError) -> Finding:
    """The error as a finding: its text up to `Next:`, and the step after it."""
    message, *step = re.split(r"[.;]? ?\bnext: ", str(error), maxsplit=1, flags=re.IGNORECASE)
    advice = step[0] if step else "correct it where it is wrong, or take another checkpoint"
    return problem(_sentence(message.removeprefix("model: ")), _sentence(advice))


def _sentence(text: str) -> str:
    """`text` without its full stop; an ellipsis stays."""
    return text if text.endswith("...") else text.rstrip(". ")
