"""The two stages of training behind one protocol, `Stage`: a module with a loss, batches, and validation pictures.

`UnetStage` encodes the data once and denoises latents; `VaeStage` reconstructs crops. The trainer does the rest (steps,
checkpoints, averages, trackers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from stylebatch.data.images import Pixels, load_image
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.errors import ManifestError, SampleError
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.unet.latent_space import latent_channels, latent_scale
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.spec import canonical_json
from stylebatch.training.autoencoder import AutoencoderLoss, fold, round_trip
from stylebatch.training.captioned import Captioned, stack
from stylebatch.training.denoising import DenoisingLoss, noised
from stylebatch.training.draws import Draw
from stylebatch.training.judge import judge_of
from stylebatch.training.latents import prepare
from stylebatch.training.spec import TrainSpec
from stylebatch.training.style_loss import StyleLoss


@dataclass(frozen=True)
class StageInputs:
    """The arguments of a stage: the spec, the checkpoint and its loaded parts, the images, the output."""

    spec: TrainSpec
    checkpoint: Checkpoint
    parts: StableDiffusion
    images: Captioned
    out: Path
    accelerator: Accelerator


@dataclass(frozen=True)
class ValidationGrid:
    """A grid of pictures, row by row, and measures of them."""

    pictures: Sequence[Pixels]
    columns: int
    measures: dict[str, float]


class Stage(Protocol):
    """One trainable part of a pipeline folder.

    `module` gives the loss, `trained` holds the weights that are averaged and exported as `part`; `rows` are the
    images that can be used, `groups` the rows that look alike.
    """

    @property
    def part(self) -> str: ...
    @property
    def module(self) -> nn.Module: ...
    @property
    def trained(self) -> nn.Module: ...
    @property
    def rows(self) -> Sequence[int]: ...
    @property
    def groups(self) -> Sequence[Sequence[int]]: ...

    def loss(self, model: nn.Module, draw: Draw) -> tuple[Tensor, Tensor]:
        """Loss and squared error of one batch; `model` is `module` as accelerate wrapped it."""

    def measures(self, error: float) -> dict[str, float]:
        """Measures for the log, from a mean squared error."""

    def validate(self) -> ValidationGrid:
        """Pictures of the current weights."""

    def export(self) -> nn.Module:
        """The part for the pipeline folder."""


class UnetStage:
    """Denoising on latents that are encoded once, with prompts through the checkpoint's text encoder."""

    part = "unet"

    def __init__(self, run: StageInputs) -> None:
        self.spec, self.images, self.parts = run.spec, run.images, run.parts
        self.device = run.accelerator.device
        identity = [
            run.images.fingerprint,
            run.images.data.model_dump(),
            run.checkpoint.digest("vae"),
            run.spec.seed,
        ]
        self.parts.vae.to(memory_format=torch.channels_last).requires_grad_(False)
        self.latents = prepare(
            run.images, self.parts.vae, run.out / "latents", run.accelerator,
            key=canonical_json(identity), seed=run.spec.seed,
        )  # fmt: skip
        config = run.checkpoint.config("scheduler")
        if run.spec.unet.prediction is not None:
            config = config | {"prediction_type": run.spec.unet.prediction}
        self.schedule = DDPMScheduler.from_config(config)
        self.trained = self.parts.unet.to(memory_format=torch.channels_last).requires_grad_(True)
        style = run.spec.unet.style_loss
        self.module = DenoisingLoss(
            self.trained,
            self.schedule,
            run.spec.unet,
            None
            if style is None
            else StyleLoss(style, self._decode, judge_of(run.spec, self.device)),
        )
        self.rows = self.latents.usable(len(run.images))
        self.groups = tuple(
            tuple(row for row in group if row not in self.latents.missing)
            for group in run.images.groups
        )

    def loss(self, model: nn.Module, draw: Draw) -> tuple[Tensor, Tensor]:
        """Denoising loss of the rows of `draw`; the rows of a pair share their timestep."""
        # The order of the draws below is part of a run: another one trains on other numbers.
        options = self.spec.unet
        latents, before, generator = self.latents.batch(draw, sample=options.latents == "sample")
        count = len(latents)
        times = self._times(count, generator)
        stylised = self._stylised(draw, times, generator)
        times[: draw.pairs] = times[draw.pairs : 2 * draw.pairs]
        noise = torch.randn(latents.shape, generator=generator)
        dropped = torch.rand(count, generator=generator) < options.drop_prompt
        captions = [self.images.captions[row] for row in draw.rows]
        prompts = ["" if drop else c for drop, c in zip(dropped.tolist(), captions, strict=True)]
        # clone: an inference tensor cannot enter autograd
        text = self.parts.embed(prompts + [""] * stylised).hidden.clone()
        start = None
        if before is not None and options.borrow is not None:
            start = before[: round(draw.pairs * options.borrow.restyle)]
            # anywhere between styled and unstyled; the root favours unstyled, where the style must be borrowed
            far = torch.rand((len(start), 1, 1, 1), generator=generator).sqrt()
            start = (far * start + (1 - far) * latents[: len(start)]).to(self.device)
        latents, noise, times = (x.to(self.device) for x in (latents, noise, times))
        batch = noised(self.schedule, latents, noise, times, options.snr_gamma, start)
        gamma = further = None
        if options.style_loss is not None:
            low, high = options.style_loss.gamma
            gamma = low + (high - low) * torch.rand(stylised, generator=generator).to(self.device)
            if options.style_loss.ahead:
                drawn = torch.randint(
                    options.style_loss.ahead + 1, (stylised,), generator=generator
                )
                further = drawn.to(self.device)
        loss: tuple[Tensor, Tensor] = model(batch, text, draw.pairs, gamma, further)
        return loss

    def _stylised(self, draw: Draw, times: Tensor, generator: torch.Generator) -> int:
        """Number of stylised rows beside the batch; also draws the timesteps that their contents and styles share."""
        options = self.spec.unet.style_loss
        if options is None:
            return 0
        pairs, total = draw.pairs, int(self.schedule.config.num_train_timesteps)
        count = min(round(options.share * len(times)), pairs, len(times) - 2 * pairs)
        drawn = torch.randint(options.begin, min(options.end, total), (count,), generator=generator)
        times[pairs : pairs + count] = times[2 * pairs : 2 * pairs + count] = drawn
        return count

    def _decode(self, latents: Tensor) -> Tensor:
        """Images of scaled latents, with gradients."""
        images: Tensor = self.parts.vae.decode(latents / latent_scale(self.parts.vae)).sample
        return images

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        """Timesteps of a batch: uniform, or a share of them from the range of `timestep_bias`."""
        total = int(self.schedule.config.num_train_timesteps)
        times = torch.randint(total, (count,), generator=generator)
        bias = self.spec.unet.timestep_bias
        if bias is not None:
            within = torch.randint(bias.begin, min(bias.end, total), (count,), generator=generator)
            times = torch.where(torch.rand(count, generator=generator) < bias.share, within, times)
        return times

    def measures(self, error: float) -> dict[str, float]:
        """The unweighted squared error, and the parts of the style loss in the last batch."""
        return {"error": error} | {name: float(part) for name, part in self.module.shown.items()}

    @torch.no_grad()
    def validate(self) -> ValidationGrid:
        """Samples of the prompts: one row per prompt, the same seeds in every row."""
        options = self.spec.validation
        pipeline = StableDiffusionPipeline(
            vae=self.parts.vae, text_encoder=self.parts.text_encoder, tokenizer=self.parts.tokenizer,
            unet=self.trained, scheduler=DDIMScheduler.from_config(dict(self.schedule.config)),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        pictures: list[Pixels] = []
        for prompt in options.prompts:
            streams = [torch.Generator().manual_seed(seed) for seed in range(options.count)]
            made = pipeline(
                [prompt] * options.count, num_inference_steps=options.steps, guidance_scale=options.guidance,
                generator=streams, output_type="np",
            ).images  # fmt: skip
            pictures += [(image * 255).round().astype(np.uint8) for image in made]
        return ValidationGrid(pictures, options.count, {})

    def export(self) -> nn.Module:
        """The network itself."""
        network: nn.Module = self.trained
        return network


class VaeStage:
    """Reconstruction of crops."""

    part = "vae"

    def __init__(self, run: StageInputs) -> None:
        self.spec, self.images = run.spec, run.images
        self.device = run.accelerator.device
        self.trained = run.parts.vae.requires_grad_(True)
        if run.spec.vae.only == "decoder":
            for part in (self.trained.encoder, self.trained.quant_conv):
                if part is not None:
                    part.requires_grad_(False)
        judge = judge_of(run.spec, self.device)
        self.module = AutoencoderLoss(self.trained, run.spec.vae, judge)
        self.rows: Sequence[int] = range(len(run.images))
        self.groups: Sequence[Sequence[int]] = ()
        self.factor = run.checkpoint.family.sizes.latent_factor
        self.held_out = self._held_out()

    def _held_out(self) -> Tensor | None:
        path = self.spec.validation.images
        if path is None:
            return None
        source, size = open_source(path, "validation.images"), self.spec.data.size
        items = list_images(source).items[: self.spec.validation.count]
        pictures = [load_image(one.ref, source, size, name=one.id).pixels for one in items]
        return torch.from_numpy(stack(pictures)).to(self.device)

    def loss(self, model: nn.Module, draw: Draw) -> tuple[Tensor, Tensor]:
        """Reconstruction loss of windows of fresh crops; the next row stands in for one that is no image."""
        rng = np.random.default_rng(draw.seed)
        side, windows = draw.window.size, []
        for row in draw.rows:
            crop = self._crop(row, rng)
            top, left = rng.integers(0, crop.shape[0] - side + 1, 2)
            windows.append(crop[top : top + side, left : left + side])
        images = torch.from_numpy(stack(windows)).to(self.device)
        shape = (
            len(images),
            latent_channels(self.trained),
            side // self.factor,
            side // self.factor,
        )
        noise = torch.randn(shape, generator=draw.generator()).to(self.device)
        loss: tuple[Tensor, Tensor] = model(images, noise)
        return loss

    def _crop(self, row: int, rng: np.random.Generator) -> Pixels:
        for attempt in range(16):
            try:
                return self.images.crop((row + attempt) % len(self.images), rng)
            except SampleError as error:
                last = error
        raise ManifestError(f"data.path: 16 rows in a row cannot be decoded; the last: {last}")

    def measures(self, error: float) -> dict[str, float]:
        """Reconstruction PSNR in dB, of pixels in [-1, 1], and the distance that the judge saw in the last batch."""
        shown = {name: float(part) for name, part in self.module.shown.items()}
        return {"psnr": float(10 * np.log10(4 / max(error, 1e-10)))} | shown

    @torch.no_grad()
    def validate(self) -> ValidationGrid:
        """Originals above their reconstructions, and the mean PSNR of held-out images."""
        count = self.spec.validation.count
        images = self.held_out
        if images is None:
            rng = np.random.default_rng(self.spec.seed)
            images = torch.from_numpy(stack([self._crop(row, rng) for row in range(count)])).to(
                self.device
            )
        vae = fold(self.module).eval()
        again = torch.cat([round_trip(vae, part) for part in images.split(4)])
        error = (again - images).square().flatten(1).mean(1).clamp_min(1e-10)
        both = torch.cat([images, again]).add(1).mul(127.5).round().clamp(0, 255).byte()
        pixels = list(both.permute(0, 2, 3, 1).cpu().numpy())
        psnr = float((10 * torch.log10(4 / error)).mean())
        return ValidationGrid(
            pixels,
            len(images),
            {"held-out psnr" if self.held_out is not None else "psnr of crops": psnr},
        )

    def export(self) -> nn.Module:
        """The autoencoder, its latents standardised if `vae.noise` is set."""
        vae: nn.Module = fold(self.module)
        return vae
