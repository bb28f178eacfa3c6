"""The untrained embedded model as a pipeline folder: where the training configs start.

Stable Diffusion 1.x topology: four levels, twelve decoder positions, 128 px, latents 32 x 32 of eight channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from pipelines.embedded.text import CONTEXT, WIDTH, build_text_encoder, build_tokenizer

LATENT_CHANNELS = 8


def build_autoencoder(channels: tuple[int, ...] = (24, 48, 96)) -> AutoencoderKL:
    """Factor 4; a single group per norm keeps it cheap, no attention keeps it local."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,
    )


def build_unet() -> UNet2DConditionModel:
    """Three levels with attention and one without; one head at 32 x 32, where attention costs most."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=2,
        attention_head_dim=(1, 2, 4, 4),
        cross_attention_dim=WIDTH,
        norm_num_groups=4,
    )


def build_scheduler() -> DDIMScheduler:
    """DDIM with the schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def write_untrained(captions: Sequence[str], folder: Path, seed: int = 0) -> None:
    """A `StableDiffusionPipeline` folder with random networks and a tokenizer that knows the words of `captions`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer", captions)
    assert tokenizer.model_max_length == CONTEXT
    StableDiffusionPipeline(
        vae=build_autoencoder(), unet=build_unet(), tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)), scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(str(folder), safe_serialization=True)  # fmt: skip


def halve(folder: Path) -> None:
    """Store UNet and autoencoder in half precision, without the paths that configs remember.

    The text encoder stays in single precision: transformers loads what is stored, diffusers float32.
    """
    for part, cls in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        network = cls.from_pretrained(str(folder / part), dtype=torch.float32)
        network.half().save_pretrained(str(folder / part), safe_serialization=True)
    for path in folder.rglob("*.json"):
        fields = json.loads(path.read_text())
        if isinstance(fields, dict) and fields.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)
