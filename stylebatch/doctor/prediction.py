"""Measures what a network predicts: adds noise to a picture and compares the output with noise, v and picture.

The residual of a kind of prediction is mean((output - target)^2) / mean(target^2): near 0 for the kind that the network was
trained on, about 1 or more for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from stylebatch.diffusion.noise import draw
from stylebatch.diffusion.schedule import DiffusionSchedule, PredictionType
from stylebatch.doctor.findings import Finding, note, problem
from stylebatch.models.denoiser import Conditioning, Denoiser
from stylebatch.models.samplers import unconverted
from stylebatch.models.unet.stable_diffusion import StableDiffusion

KINDS: tuple[PredictionType, ...] = ("epsilon", "v_prediction", "sample")
SIGNALS = (0.9, 0.5, 0.1)
"""alpha_bar of the levels that are measured: mostly picture at the first, mostly noise at the last."""
TRAINED, UNTRAINED = 0.6, 0.9
"""Below the first residual a network counts as trained on a kind; with every residual above the second, on none."""
LARGEST_HALF = 65504.0
"""The largest number of float16."""


def check_outputs(model: StableDiffusion, size: int, native: int) -> Iterator[Finding]:
    """Findings where the autoencoder or the network is not finite, or the network does not predict what its config says.

    `size`: pixels per side; `native`: pixels per side that the network was trained on.
    """
    # Activations are watched too: float32 latents may be fine where float16 would overflow inside the autoencoder.
    largest: list[float] = [0.0]

    def watch(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            largest[0] = max(largest[0], float(output.abs().amax()))

    hooks = [module.register_forward_hook(watch) for module in model.vae.modules()]
    dtype = str(model.vae.dtype).removeprefix("torch.")
    try:
        latents = model.encode(picture(size))
        shown = model.decode_unclamped(latents)
    finally:
        for hook in hooks:
            hook.remove()
    if not bool(latents.isfinite().all() and shown.isfinite().all()):
        yield problem(
            f"the VAE gives values that are not finite in {dtype}",
            "dtype: float32, or a VAE that was made for float16",
        )
        return
    if dtype == "float32" and largest[0] > LARGEST_HALF and not model.upcasts:
        yield note(
            f"the VAE reaches {largest[0]:.3g}, more than float16 holds",
            "dtype: float32 or bfloat16 on a GPU, where auto means float16",
        )
    found = residuals(model, model.embed([""]), latents)
    # NaN differs from itself; `min` and comparisons would let it pass.
    if any(value != value for value in found.values()):
        dtype = str(model.unet.dtype).removeprefix("torch.")
        yield problem(f"the network gives values that are not finite in {dtype}", "dtype: float32")
    elif 2 * size >= native:  # far below its native size a network predicts nothing well
        assert isinstance(model.schedule, DiffusionSchedule)
        yield from check_prediction(found, model.schedule.prediction_type)


def check_prediction(
    found: dict[PredictionType, float], configured: PredictionType
) -> Iterator[Finding]:
    """A finding if the residuals contradict the kind of prediction that the scheduler's config names."""
    best = min(found, key=lambda kind: found[kind])
    # An untrained network may be nearest to any kind by chance: the best must be good, and clearly better.
    if best != configured and found[best] < TRAINED and found[configured] > 2 * found[best]:
        yield problem(
            f"the network predicts {best} (residual {found[best]:.2f}), and its scheduler says {configured} (residual "
            f"{found[configured]:.2f})",
            f"prediction_type: {best} in scheduler/scheduler_config.json",
        )
    elif found[best] > UNTRAINED:
        yield note(
            f"on a simple picture with noise, the network predicts neither noise nor v nor picture (residuals from {found[best]:.2f})",
            "check that it is trained, and for Stable Diffusion's latents and noise schedule",
        )


def picture(size: int) -> Tensor:
    """A smooth picture (1, 3, size, size) in [-1, 1]."""
    across = torch.linspace(-0.7, 0.7, size).expand(size, size)
    return torch.stack([across, across.T, -across])[None]


@torch.inference_mode()
def residuals(model: Denoiser, cond: Conditioning, clean: Tensor) -> dict[PredictionType, float]:
    """By kind, the mean residual over `SIGNALS` for a clean latent (1, c, h, w)."""
    raw, schedule = unconverted(model), model.schedule
    assert isinstance(schedule, DiffusionSchedule)
    noise = draw([1], (clean.shape[1], clean.shape[2], clean.shape[3])).to(clean.device)
    found: dict[PredictionType, list[float]] = {kind: [] for kind in KINDS}
    for signal in SIGNALS:
        t = int((schedule.alpha_bar - signal).abs().argmin())
        x = schedule.signal(t) * clean + schedule.noise(t) * noise
        out = raw.predict_noise(x, t, cond)
        for kind, target in targets(schedule, clean, noise, t).items():
            error = (out - target).square().mean() / target.square().mean()
            found[kind].append(float(error))
    return {kind: sum(errors) / len(errors) for kind, errors in found.items()}


def targets(
    schedule: DiffusionSchedule, clean: Tensor, noise: Tensor, t: int
) -> dict[PredictionType, Tensor]:
    """The output that a perfect network of each kind would give."""
    v = schedule.signal(t) * noise - schedule.noise(t) * clean  # arXiv 2202.00512
    return {"epsilon": noise, "v_prediction": v, "sample": clean}
