"""Stable Diffusion 1.x, 2.x and XL, and the embedded model of 1.x's topology, behind one `Denoiser`.

Owns device, dtype and placement. What the network predicts, the scaling factor and the noise schedule
come from the checkpoint's config files, never from its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from stylebatch.diffusion.schedule import (
    CLEAN,
    PredictionType,
    Schedule,
    linear_betas,
    scaled_linear_betas,
)
from stylebatch.errors import ManifestError
from stylebatch.models.base import NUM_SITES, AttentionEdit, Conditioning, Site
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.edits import (
    decoder_sites,
    installed,
    installed_at_layers,
    norms_shared,
    self_attentions,
)
from stylebatch.models.lora import add_loras
from stylebatch.models.offload import Offload, place
from stylebatch.models.parts import quiet, read_parts, read_unet
from stylebatch.spec import ModelSpec, describe_model

with quiet():
    from accelerate import PartialState
    from accelerate.utils import parse_choice_from_env

_PRECISIONS = {"no": "", "fp16": "float16", "bf16": "bfloat16"}
"""Accelerate's names."""


def schedule_from_config(config: dict[str, Any]) -> Schedule:
    """Noise schedule of a diffusers scheduler config (`scheduler_config.json`), in float64.

    Raises ManifestError for a beta schedule or prediction type that it does not know.
    """
    num = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind, predicts = config.get("beta_schedule", "linear"), config.get("prediction_type", "epsilon")
    if config.get("rescale_betas_zero_snr"):
        raise ManifestError(
            "scheduler.rescale_betas_zero_snr: found true; accepted: false (the inversion needs signal at every level)"
        )
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif kind in ("linear", "scaled_linear"):
        betas = (linear_betas if kind == "linear" else scaled_linear_betas)(num, start, end)
    else:
        raise ManifestError(
            f"scheduler.beta_schedule: found {kind!r}; accepted: linear, scaled_linear, or trained_betas"
        )
    if predicts not in ("epsilon", "v_prediction", "sample"):
        raise ManifestError(
            f"scheduler.prediction_type: found {predicts!r}; accepted: epsilon, v_prediction, sample"
        )
    spacing = config.get("timestep_spacing", "leading")
    if spacing not in ("leading", "trailing", "linspace"):
        raise ManifestError(
            f"scheduler.timestep_spacing: found {spacing!r}; accepted: leading, trailing, linspace"
        )
    return replace(
        Schedule.from_betas(betas, cast(PredictionType, predicts)),
        spacing=spacing,
        offset=int(config.get("steps_offset", 0)),
        last=CLEAN if config.get("set_alpha_to_one", True) else 0,
    )


class StableDiffusion:
    """A loaded checkpoint. `load_model` makes one; parts that a caller does not need may be None.

    `pictures_at_once` bounds what the autoencoder takes in one call, which needs more memory per picture than the network does;
    None: as many as it is given.
    """

    def __init__(
        self,
        unet: Any,
        schedule: Schedule,
        *,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        device: torch.device | None = None,
    ) -> None:
        self.unet = unet
        self.vae = vae
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.device = torch.device(unet.device) if device is None else device
        self.on_evaluations: Callable[[int], None] | None = None
        self.pictures_at_once: int | None = None
        self.sites: tuple[Site, ...] = tuple(sorted({n % NUM_SITES for n in decoder_sites(unet)}))
        self.latent_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.latent_channels = int(unet.config.in_channels)
        self.native_cells = int(unet.config.sample_size or 64)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, c, h, w), float32: the mode of the VAE's posterior."""
        return torch.cat([self._encoded(part) for part in self._at_once(images)])

    def _encoded(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device, self.vae.dtype).contiguous()
        latents = self.vae.encode(pixels).latent_dist.mode().float()
        return cast(Tensor, (latents - self._shift()) * float(self.vae.config.scaling_factor))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) -> images (B, 3, H, W) in [-1, 1], float32, clamped."""
        return self.decode_unclamped(latents).clamp(-1.0, 1.0)

    @torch.inference_mode()
    def decode_unclamped(self, latents: Tensor) -> Tensor:
        """As `decode`, before clamping: what the decoder itself returns."""
        unscaled = latents / float(self.vae.config.scaling_factor) + self._shift()
        parts = self._at_once(unscaled.to(self.device, self.vae.dtype))
        return torch.cat([self.vae.decode(part).sample.float() for part in parts])

    def _at_once(self, images: Tensor) -> Sequence[Tensor]:
        """Parts that the autoencoder takes one after another."""
        return list(images.split(self.pictures_at_once or max(1, len(images))))

    @torch.inference_mode()
    def embed(self, prompts: list[str]) -> Conditioning:
        """Last hidden state of the text encoder, prompts padded to its context length."""
        return Conditioning(self.text_encoder(_token_ids(self.tokenizer, prompts, self.device))[0])

    def embed_nothing(self) -> Conditioning:
        return self.embed([""])

    @torch.inference_mode()
    def predict_noise(
        self, x: Tensor, t: int, cond: Conditioning, *, level: int | None = None
    ) -> Tensor:
        """eps (B, c, h, w) in float32 for latents `x` at timestep `t`; `level` where x is elsewhere."""
        if self.on_evaluations is not None:
            self.on_evaluations(x.shape[0])
        dtype = self.unet.dtype
        out = self.unet(
            x.to(dtype),
            t,
            encoder_hidden_states=cond.expand(x.shape[0]).to(dtype),
            added_cond_kwargs=self._added(x, cond),
            return_dict=False,
        )[0]
        return self.schedule.to_eps(out.float(), x, t if level is None else level)

    def editing(self, edit: AttentionEdit, sites: tuple[Site, ...]) -> AbstractContextManager[None]:
        """Install `edit` at `sites` for a `with` block."""
        return installed(self.unet, edit, sites)

    @property
    def num_self_attentions(self) -> int:
        return len(self_attentions(self.unet))

    def editing_layers(
        self, edit: AttentionEdit, layers: tuple[int, ...]
    ) -> AbstractContextManager[None]:
        """Install `edit` at self-attention layers of the whole network for a `with` block."""
        return installed_at_layers(self.unet, edit, layers)

    def sharing_norms(self, reference: Tensor) -> AbstractContextManager[None]:
        return norms_shared(self.unet, reference.to(self.device))

    def _added(self, x: Tensor, cond: Conditioning) -> dict[str, Tensor] | None:
        return None

    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


class StableDiffusionXL(StableDiffusion):
    """A loaded SDXL checkpoint: two text encoders, and the picture's sizes as conditioning (arXiv 2307.01952)."""

    def __init__(
        self,
        unet: Any,
        schedule: Schedule,
        *,
        vae: Any = None,
        text_encoders: tuple[Any, Any] | None = None,
        tokenizers: tuple[Any, Any] | None = None,
        zeros_for_nothing: bool = True,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(unet, schedule, vae=vae, device=device)
        self.text_encoders = text_encoders
        self.tokenizers = tokenizers
        self.zeros_for_nothing = zeros_for_nothing

    @torch.inference_mode()
    def embed(self, prompts: list[str]) -> Conditioning:
        """The last but one hidden states of both encoders side by side; pooled: the second's projection."""
        if self.text_encoders is None or self.tokenizers is None:
            raise ValueError("this model was loaded without its text encoders")
        hidden = []
        for encoder, tokenizer in zip(self.text_encoders, self.tokenizers, strict=True):
            ids = _token_ids(tokenizer, prompts, self.device)
            out = encoder(ids, output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
        return Conditioning(torch.cat(hidden, dim=-1), pooled=out.text_embeds)

    def embed_nothing(self) -> Conditioning:
        """Zeros where `force_zeros_for_empty_prompt` says that the network was trained so."""
        empty = self.embed([""])
        if not self.zeros_for_nothing or empty.pooled is None:
            return empty
        return Conditioning(torch.zeros_like(empty.hidden), torch.zeros_like(empty.pooled))

    def _added(self, x: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        batch, dtype = x.shape[0], self.unet.dtype
        if cond.pooled is None:
            raise ValueError("conditioning: pooled is missing; Stable Diffusion XL needs it")
        sizes = cond.time_ids
        if sizes is None:
            height, width = (side * self.latent_factor for side in x.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]])
        return {
            "text_embeds": cond.pooled.expand(batch, -1).to(self.device, dtype),
            "time_ids": sizes.expand(batch, -1).to(self.device, dtype),
        }


def _token_ids(tokenizer: Any, prompts: list[str], device: torch.device) -> Tensor:
    """(B, context length), padded and cut."""
    ids = tokenizer(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    return cast(Tensor, ids.to(device))


def load_model(
    spec: ModelSpec | Literal["tiny"] | str | Path, *, device: str | torch.device | None = None
) -> StableDiffusion:
    """Load a checkpoint in inference mode on the device that accelerate assigns to this process.

    `spec`: a known name ("tiny", "sd15", ...), a pipeline folder, or a `ModelSpec` (single files, variants, offload). Raises
    ManifestError, one paragraph, for what cannot be found, fetched or used.
    """
    if not isinstance(spec, ModelSpec):
        try:
            spec = describe_model(str(spec))
        except ValueError as error:
            raise ManifestError(f"model: {error}") from None
    checkpoint = find_checkpoint(spec, families=("sd", "sdxl"))
    return load_checkpoint(checkpoint, dtype=spec.dtype, device=device, offload=spec.offload)


def placement(
    dtype: str = "auto", device: str | torch.device | None = None
) -> tuple[torch.device, str]:
    """Device that accelerate assigns to this process, and the dtype that `auto` means there.

    That is accelerate's mixed precision where it was given one. Raises ManifestError for one that cannot be had.
    """
    target = torch.device(device) if device is not None else PartialState().device
    if dtype != "auto":
        return target, dtype
    wanted = parse_choice_from_env("ACCELERATE_MIXED_PRECISION", "no")
    if wanted not in _PRECISIONS or (wanted == "fp16" and target.type == "cpu"):
        raise ManifestError(
            f"model.dtype: auto follows accelerate's mixed precision; found {wanted} on {target.type}; accepted: no, bf16, "
            "or fp16 on a GPU. Next: accelerate launch --mixed_precision no, or set model.dtype"
        )
    return target, _PRECISIONS[wanted] or ("float32" if target.type == "cpu" else "float16")


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    offload: Offload = "none",
) -> StableDiffusion:
    """Load the parts of a pipeline folder or single file; see `load_model`."""
    target, resolved = placement(dtype, device)
    schedule = schedule_from_config(checkpoint.config("scheduler"))
    parts = read_parts(checkpoint, resolved)
    for name in checkpoint.vae_passes:
        parts.vae.enable_slicing() if name == "slicing" else parts.vae.enable_tiling()
    encoders = dict(zip(("text_encoder", "text_encoder_2"), parts.text_encoders, strict=False))
    add_loras(checkpoint.loras, {"unet": parts.unet, **encoders}, parts.unet.config)
    place([*parts.text_encoders, parts.unet, parts.vae], target, offload)
    if checkpoint.family == "sd":
        return StableDiffusion(
            parts.unet,
            schedule,
            vae=parts.vae,
            text_encoder=parts.text_encoders[0],
            tokenizer=parts.tokenizers[0],
            device=target,
        )
    return StableDiffusionXL(
        parts.unet,
        schedule,
        vae=parts.vae,
        text_encoders=(parts.text_encoders[0], parts.text_encoders[1]),
        tokenizers=(parts.tokenizers[0], parts.tokenizers[1]),
        zeros_for_nothing=checkpoint.zeros_for_nothing,
        device=target,
    )


def load_unet(unet: Path, scheduler: Path) -> StableDiffusion:
    """A network without VAE and text encoder, from a UNet folder and a scheduler folder; CPU, float32."""
    config = json.loads((scheduler / "scheduler_config.json").read_text(encoding="utf-8"))
    return StableDiffusion(read_unet(unet), schedule_from_config(config))
