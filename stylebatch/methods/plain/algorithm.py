"""Plain latent diffusion (arXiv 2112.10752): text to image, image to image, inpainting.

A walk goes from noise to image, by DDIM at eta 0 or by a scheduler of diffusers; the three methods differ in where it starts
and in what is put back after a step. Latents are the scaled ones of `Denoiser.encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.ddim import PredictNoise
from stylebatch.diffusion.schedule import Schedule, Step, table_of
from stylebatch.diffusion.windows import Windows, windowed
from stylebatch.methods.pixels import Pixels, overlaid
from stylebatch.methods.plain.options import (
    Img2ImgOptions,
    InpaintOptions,
    PlainOptions,
    Text2ImgOptions,
    WindowOptions,
)
from stylebatch.methods.samples import Samples
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.samplers import StockSampler, unconverted

LATENTS = "latents"
"""Name of prepared images in `Samples.images`."""


class Walk(Protocol):
    """The steps from noise, or from somewhere on the way, to the image."""

    @property
    def num_steps(self) -> int: ...
    def begin(self, noise: Tensor) -> Tensor:
        """Where a walk begins that keeps nothing, from standard normal noise (B, c, h, w)."""
        ...

    def noised(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """`clean` (B, c, h, w) with the noise that there is before step `index`."""
        ...

    def step(self, predict: PredictNoise, x: Tensor, index: int) -> Tensor:
        """The latents after step `index`."""
        ...


class DDIMWalk:
    """The last `walked` of `steps` steps of DDIM."""

    def __init__(self, schedule: Schedule, steps: int, walked: int) -> None:
        self.schedule = schedule
        self.steps: Sequence[Step] = schedule.sampling_steps(steps)[steps - walked :]

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    def begin(self, noise: Tensor) -> Tensor:
        return noise

    def noised(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """DDPM eq. 4 (arXiv 2006.11239)."""
        level = self.steps[index].source
        return self.schedule.signal(level) * clean + self.schedule.noise(level) * noise

    def step(self, predict: PredictNoise, x: Tensor, index: int) -> Tensor:
        step = self.steps[index]
        return ddim.ddim_step(self.schedule, x, predict(x, step), step)


class Start(NamedTuple):
    """Latents (B, c, h, w) that a walk begins with; `restore`: what is done to them after every step, by its index."""

    x: Tensor
    restore: Callable[[Tensor, int], Tensor] = lambda x, _: x


class Text2Img(Text2ImgOptions):
    """The algorithm; its fields are the options."""

    @torch.inference_mode()
    def render(self, model: Denoiser, samples: Samples, *, batch: int = 16) -> Tensor:
        """Clean latents (N, c, h, w); `batch` bounds the rows of one network evaluation."""
        parts = []
        for part in _calls(self, model, samples, batch):
            walk = _walk(self, model, part)
            start = Start(walk.begin(part.noise().to(model.device)))
            parts.append(_walked(self, model, part, walk, start, batch))
        return torch.cat(parts)


class Img2Img(Img2ImgOptions):
    """The algorithm; its fields are the options."""

    def prepare(
        self, model: Denoiser, images: dict[str, Tensor], *, batch: int
    ) -> dict[str, Tensor]:
        """The images as latents (N, c, h, w) under the name `latents`."""
        return _encoded(model, images, batch)

    @torch.inference_mode()
    def render(self, model: Denoiser, samples: Samples, *, batch: int = 16) -> Tensor:
        """Noise the images to the level that `strength` asks for, and denoise from there: (N, c, h, w)."""
        images = self.prepare(model, samples.images, batch=batch)
        return self.from_latents(model, samples, images[LATENTS], batch=batch)

    @torch.inference_mode()
    def from_latents(
        self, model: Denoiser, samples: Samples, clean: Tensor, *, batch: int = 16
    ) -> Tensor:
        """As `render`, from the latents of the images (N, c, h, w)."""

        def begin(walk: Walk, part: Samples, latents: Tensor) -> Start:
            return Start(walk.noised(latents, part.noise().to(latents.device), 0))

        return _from_latents(self, model, samples, clean, begin, batch)


class Inpaint(InpaintOptions):
    """The algorithm; its fields are the options."""

    def prepare(
        self, model: Denoiser, images: dict[str, Tensor], *, batch: int
    ) -> dict[str, Tensor]:
        """The images as latents (N, c, h, w) under the name `latents`, and the masks."""
        return _encoded(model, images, batch)

    def finished(self, pixels: Pixels, original: Pixels | None, mask: Pixels | None) -> Pixels:
        """With the original pixels outside the mask, where the options say so."""
        if not self.keep_original:
            return pixels
        assert original is not None
        assert mask is not None
        return overlaid(pixels, original, (mask / 255.0).astype(np.float32))

    @torch.inference_mode()
    def render(self, model: Denoiser, samples: Samples, *, batch: int = 16) -> Tensor:
        """As img2img where the mask is 0.5 or more; elsewhere the image's latents return exactly: (N, c, h, w).

        After every step the kept part is the image at the next step's timestep. The mask is taken to latent
        cells by the nearest pixel. At strength 1 the start is noise alone.
        """
        images = self.prepare(model, samples.images, batch=batch)
        return self.from_latents(model, samples, images[LATENTS], batch=batch)

    @torch.inference_mode()
    def from_latents(
        self, model: Denoiser, samples: Samples, clean: Tensor, *, batch: int = 16
    ) -> Tensor:
        """As `render`, from the latents of the images (N, c, h, w)."""

        def begin(walk: Walk, part: Samples, latents: Tensor) -> Start:
            noise = part.noise().to(latents.device)
            # binary before it is shrunk, as in diffusers
            made = (part.images["mask"].to(latents.device) >= 0.5).float()
            made = F.interpolate(made, size=latents.shape[-2:], mode="nearest")
            # at strength 1 `noised` would still leave a trace of the image: the last level is not pure noise
            start = walk.begin(noise) if self.strength == 1.0 else walk.noised(latents, noise, 0)
            return Start(start, _Restored(walk, latents, noise, made))

        return _from_latents(self, model, samples, clean, begin, batch)


def _from_latents(
    method: PlainOptions,
    model: Denoiser,
    samples: Samples,
    clean: Tensor,
    begin: Callable[[Walk, Samples, Tensor], Start],
    batch: int,
) -> Tensor:
    """Walks that start on images: `begin` gives the start of some of them."""
    # so little strength returns the image: there is no step whose noise level could be looked up
    if not method.num_steps_walked:
        return clean
    parts = []
    calls = _calls(method, model, samples, batch)
    for part, latents in zip(calls, clean.split(len(calls[0])), strict=True):
        walk = _walk(method, model, part)
        parts.append(_walked(method, model, part, walk, begin(walk, part, latents), batch))
    return torch.cat(parts)


def _encoded(model: Denoiser, images: dict[str, Tensor], batch: int) -> dict[str, Tensor]:
    """`images` with latents in place of the image, unless these are there."""
    if LATENTS in images:
        return images
    latents = torch.cat([model.encode(part) for part in images["image"].split(batch)])
    return {LATENTS: latents} | {name: one for name, one in images.items() if name != "image"}


class _Restored:
    """Puts back what the mask leaves: `clean`, at the noise of the step that comes."""

    def __init__(self, walk: Walk, clean: Tensor, noise: Tensor, made: Tensor) -> None:
        self.walk, self.clean, self.noise, self.made = walk, clean, noise, made

    def __call__(self, x: Tensor, index: int) -> Tensor:
        kept = self.clean
        # after the last step the kept part is clean
        if index + 1 < self.walk.num_steps:
            kept = self.walk.noised(self.clean, self.noise, index + 1)
        return (1.0 - self.made) * kept + self.made * x


def _walk(method: PlainOptions, model: Denoiser, samples: Samples) -> Walk:
    walked = method.num_steps_walked
    if method.scheduler == "ddim":
        return DDIMWalk(model.schedule, method.steps, walked)
    streams = samples.streams()
    return StockSampler(method.scheduler, table_of(model.schedule), method.steps, walked, streams)


def _walked(
    method: PlainOptions,
    model: Denoiser,
    samples: Samples,
    walk: Walk,
    start: Start,
    batch: int,
) -> Tensor:
    """The latents at the end of the walk (B, c, h, w)."""
    prompts = samples.prompts(model, method.guidance)
    # the schedulers of diffusers convert v and sample predictions by themselves
    network = model if method.scheduler == "ddim" else unconverted(model)

    def on_sample(part: Tensor, step: Step) -> Tensor:
        return prompts.predict(network, part, step)

    predict: PredictNoise = on_sample
    if method.windows is not None:
        views = max(1, batch // (method.rows_per_sample * len(samples)))
        predict = windowed(on_sample, windows_of(method.windows, model), view_batch=views)
    x = start.x
    for index in range(walk.num_steps):
        x = start.restore(walk.step(predict, x, index), index)
    return x


def _calls(method: PlainOptions, model: Denoiser, samples: Samples, batch: int) -> list[Samples]:
    """The samples, by those that are denoised together."""
    views = 1
    if method.windows is not None:
        views = len(windows_of(method.windows, model).views(*samples.shape[1:]))
    return samples.split(max(1, batch // (method.rows_per_sample * views)))


def windows_of(options: WindowOptions, model: Denoiser) -> Windows:
    """The windows that the options mean for this network."""
    return Windows(options.side(model.native_cells), options.stride, options.circular)
