"""Loads a checkpoint of the family: its networks behind one `Denoiser`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from stylebatch.errors import ManifestError
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.model_section import CompileMode
from stylebatch.models.offload import Offload, place
from stylebatch.models.unet.compiling import compile_layers, require_compiler
from stylebatch.models.unet.lora import add_loras
from stylebatch.models.unet.parts import Parts, read_parts, read_unet
from stylebatch.models.unet.scheduler_config import schedule_from_config
from stylebatch.models.unet.stable_diffusion import StableDiffusion, StableDiffusionXL
from stylebatch.models.unet.textual_inversion import add_embeddings
from stylebatch.models.unet.unet_family import UNet
from stylebatch.models.unet.weight_checks import bare
from stylebatch.models.unet.weight_checks import faults as weight_faults
from stylebatch.models.weights import NETWORKS

__all__ = ["as_stable_diffusion", "check", "compile", "faults", "load", "load_unet"]


def load(
    family: UNet, *, dtype: str, device: torch.device, offload: Offload = "none"
) -> StableDiffusion:
    """See `models.loading.Loader.load`."""
    files = family.files
    parts = read_parts(family, dtype)
    # diffusers cuts tiles by one number, and a config may give two sides
    if not isinstance(parts.vae.config.sample_size, int):
        parts.vae.tile_sample_min_size = int(parts.vae.config.sample_size[0])
    for name in files.vae_passes:
        parts.vae.enable_slicing() if name == "slicing" else parts.vae.enable_tiling()
    encoders = dict(zip(("text_encoder", "text_encoder_2"), parts.text_encoders, strict=False))
    for (part, encoder), tokenizer in zip(encoders.items(), parts.tokenizers, strict=True):
        add_embeddings(family.embeddings, part, encoder, tokenizer)
    # before `place`: offload hooks would hide the weights on the meta device
    add_loras(files.loras, {"unet": parts.unet, **encoders}, parts.unet.config)
    place([*parts.text_encoders, parts.unet, parts.vae], device, offload)
    model = _adapter(family, parts, device)
    model.clip_skip = files.clip_skip
    return model


def _adapter(family: UNet, parts: Parts, device: torch.device) -> StableDiffusion:
    schedule = schedule_from_config(family.files.config("scheduler"))
    if not family.is_xl:
        return StableDiffusion(
            parts.unet,
            schedule,
            vae=parts.vae,
            text_encoder=parts.text_encoders[0],
            tokenizer=parts.tokenizers[0],
            device=device,
        )
    return StableDiffusionXL(
        parts.unet,
        schedule,
        vae=parts.vae,
        texts=list(zip(parts.text_encoders, parts.tokenizers, strict=True)),
        zeros_for_nothing=family.zeros_for_nothing,
        device=device,
    )


def compile(model: StableDiffusion, mode: CompileMode) -> None:
    """See `models.loading.Loader.compile`."""
    require_compiler(model.device)
    for network in (model.unet, model.vae):
        compile_layers(network, mode)


def check(family: UNet) -> None:
    """Raise ManifestError unless the weights and LoRA files are complete and fit each other."""
    for fault in faults(family):
        raise fault


def faults(family: UNet) -> Iterator[ManifestError]:
    """See `models.loading.Loader.faults`; of LoRA files too."""
    yield from weight_faults(family)
    if not family.files.loras:
        return
    try:
        # on the meta device: names and shapes are compared, nothing is added up
        networks = {part: bare(family, part) for part in NETWORKS if part in family.parts}
        add_loras(family.files.loras, networks, networks["unet"].config)
    except ManifestError as error:
        yield error


def as_stable_diffusion(model: Denoiser) -> StableDiffusion:
    """`model` as `StableDiffusion`, for callers that use its networks. Raises TypeError for another family."""
    if not isinstance(model, StableDiffusion):
        raise TypeError(f"found {type(model).__name__}; accepted: a model of the UNet family")
    return model


def load_unet(unet: Path, scheduler: Path) -> StableDiffusion:
    """A network without VAE and text encoder, from a UNet folder and a scheduler folder; CPU, float32."""
    config = json.loads((scheduler / "scheduler_config.json").read_text(encoding="utf-8"))
    return StableDiffusion(read_unet(unet), schedule_from_config(config))
