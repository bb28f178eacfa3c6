"""Plain latent diffusion (arXiv 2112.10752): text to image, image to image, inpainting; DDIM, eta 0.

Each takes noise (`diffusion.noise.draw`: a stream per sample, so batching never changes a draw) and
gives clean latents. Latents are the scaled ones of `Denoiser.encode`; `batch` bounds one call's samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.schedule import Schedule, Step, sampling_steps
from stylebatch.methods.prompted import Prompts
from stylebatch.models.base import Denoiser


@torch.inference_mode()
def text2img(
    model: Denoiser, prompts: Prompts, noise: Tensor, *, steps: int, batch: int = 8
) -> Tensor:
    """Denoise `noise` (B, c, h, w) to clean latents."""
    return _denoise(model, prompts, noise, sampling_steps(model.schedule, steps), batch)


@torch.inference_mode()
def img2img(
    model: Denoiser,
    prompts: Prompts,
    clean: Tensor,
    noise: Tensor,
    *,
    steps: int,
    strength: float,
    batch: int = 8,
) -> Tensor:
    """Noise `clean` (B, c, h, w) to the level that `strength` (0 to 1) asks for, and denoise from there."""
    walked = _last_steps(model.schedule, steps, strength)
    if not walked:
        return clean.to(model.device)
    start = _noised(model.schedule, clean.to(model.device), noise, walked[0].source)
    return _denoise(model, prompts, start, walked, batch)


@torch.inference_mode()
def inpaint(
    model: Denoiser,
    prompts: Prompts,
    clean: Tensor,
    noise: Tensor,
    mask: Tensor,
    *,
    steps: int,
    strength: float = 1.0,
    batch: int = 8,
) -> Tensor:
    """As `img2img` where `mask` (B or 1, 1, H, W) is 0.5 or more; elsewhere `clean` (B, c, h, w) returns exactly.

    For networks of 4 input channels: after every step the kept part is `clean` at the next step's timestep.
    The mask is taken to latent cells by the nearest pixel. At strength 1 the start is `noise` alone.
    """
    walked = _last_steps(model.schedule, steps, strength)
    clean, noise = clean.to(model.device), noise.to(model.device)
    made = (mask.to(model.device) >= 0.5).float()
    made = F.interpolate(made, size=clean.shape[-2:], mode="nearest").expand(len(clean), 1, -1, -1)
    x = noise if strength == 1.0 else clean
    if walked and strength < 1.0:
        x = _noised(model.schedule, clean, noise, walked[0].source)
    for index, step in enumerate(walked):
        x = _denoise(model, prompts, x, (step,), batch)
        kept = clean
        if step != walked[-1]:
            kept = _noised(model.schedule, clean, noise, walked[index + 1].source)
        x = (1.0 - made) * kept + made * x
    return x


def _denoise(
    model: Denoiser, prompts: Prompts, x: Tensor, steps: Sequence[Step], batch: int
) -> Tensor:
    done = []
    for rows in torch.arange(x.shape[0]).split(batch):
        chosen = prompts.select(rows.tolist())

        def predict(part: Tensor, step: Step, chosen: Prompts = chosen) -> Tensor:
            return chosen.predict(model, part, step)

        part = x[rows.tolist()].to(model.device)
        done.append(ddim.run(model.schedule, predict, part, steps))
    return torch.cat(done)


def _last_steps(schedule: Schedule, steps: int, strength: float) -> tuple[Step, ...]:
    """The last floor(steps * strength) of the sampling steps."""
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength: found {strength}; accepted: 0 (nothing changes) to 1")
    return sampling_steps(schedule, steps)[steps - int(steps * strength) :]


def _noised(schedule: Schedule, clean: Tensor, noise: Tensor, level: int) -> Tensor:
    """x_level of DDPM eq. 4 (arXiv 2006.11239)."""
    return schedule.signal(level) * clean + schedule.noise(level) * noise.to(clean.device)
