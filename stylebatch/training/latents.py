"""Latents of all crops, and an autoencoder whose latents have mean 0 and variance 1.

The affine map that normalises each channel is folded into the 1 x 1 convolutions around the
latent, so that the diffusion model sees the same noise level in every channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor

from stylebatch.training.data import Crops, to_tensor
from stylebatch.training.loop import load_checkpoint, save_checkpoint
from stylebatch.training.text import build_text_encoder, build_tokenizer, embed
from stylebatch.training.vae import build_vae, trained_vae


@dataclass(frozen=True)
class Latents:
    """Scaled latents (n, 4, 32, 32) float16, group and caption ids (n,), caption embeddings."""

    values: Tensor
    groups: Tensor
    captions: Tensor
    embeddings: Tensor
    null: Tensor

    @staticmethod
    def load(path: Path) -> Latents:
        """Read what ``encode_all`` wrote."""
        state = load_checkpoint(path)
        if state is None:
            raise FileNotFoundError(path)
        return Latents(**state)


@torch.no_grad()
def normalise(vae: AutoencoderKL, latents: Tensor) -> float:
    """Fold the mean and deviation of ``latents`` into ``vae``; returns the scaling factor."""
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    inside, outside = vae.quant_conv, vae.post_quant_conv
    outside.bias += (outside.weight[:, :, 0, 0] * mean).sum(1)
    outside.weight *= std[None, :, None, None]
    inside.weight[:4] /= std[:, None, None, None]
    inside.bias[:4] = (inside.bias[:4] - mean) / std
    inside.bias[4:] -= 2 * std.log()
    vae.register_to_config(scaling_factor=1.0)
    return 1.0


@torch.no_grad()
def encode(vae: AutoencoderKL, crops: Crops, rows: np.ndarray, batch: int = 16) -> Tensor:
    """Posterior means of the chosen crops."""
    parts = [
        vae.encode(to_tensor(crops.pixels[rows[i : i + batch]])).latent_dist.mode()
        for i in range(0, len(rows), batch)
    ]
    return torch.cat(parts)


def encode_all(crops: Crops, out: Path) -> None:
    """Write ``vae_final.pt`` and ``latents.pt``; under torchrun the ranks share the work."""
    accelerator = Accelerator(cpu=True)
    vae = trained_vae(out / "vae.pt")
    sample = np.random.default_rng(3).choice(len(crops.pixels), 256, replace=False)
    scale = normalise(vae, encode(vae, crops, np.sort(sample)))
    rows = np.arange(accelerator.process_index, len(crops.pixels), accelerator.num_processes)
    values = (encode(vae, crops, rows) * scale).half()
    torch.save(values, out / f"latents_{accelerator.process_index}.part")
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    every = torch.empty(len(crops.pixels), 4, 32, 32, dtype=torch.float16)
    for rank in range(accelerator.num_processes):
        part = out / f"latents_{rank}.part"
        every[rank :: accelerator.num_processes] = torch.load(part)
        part.unlink()
    names = sorted(set(crops.captions))
    tokenizer = build_tokenizer(out / "tokenizer", names)
    encoder = build_text_encoder(len(tokenizer))
    save_checkpoint(
        out / "vae_final.pt", model=vae.state_dict(), scaling_factor=scale,
        channels=tuple(vae.config.block_out_channels),
    )  # fmt: skip
    save_checkpoint(
        out / "latents.pt",
        values=every,
        groups=torch.from_numpy(crops.groups),
        captions=torch.tensor([names.index(caption) for caption in crops.captions]),
        embeddings=embed(names, tokenizer, encoder),
        null=embed([""], tokenizer, encoder),
    )
    print(f"latents of {len(every)} crops, std {float(every.float().std()):.3f}", flush=True)


def final_vae(out: Path) -> AutoencoderKL:
    """The normalised autoencoder that ``encode_all`` wrote."""
    state = load_checkpoint(out / "vae_final.pt")
    if state is None:
        raise FileNotFoundError(out / "vae_final.pt")
    vae = build_vae(tuple(state["channels"]))
    vae.load_state_dict(state["model"])
    vae.register_to_config(scaling_factor=state["scaling_factor"])
    return vae.eval()
