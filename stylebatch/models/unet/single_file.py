"""Single files of weights in the original layout of Stable Diffusion (CompVis and Stability AI's own code)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from stylebatch.errors import ManifestError
from stylebatch.models.weights import Stored, num_parameters

HARMLESS_VAE = ("loss.", "model_ema.")
"""Prefixes of the discriminator and of averaged copies, which training leaves in a file."""
Layout = Literal["1.x", "2.x", "xl"]
"""Layouts of a checkpoint: Stable Diffusion 1.x (CLIP ViT-L), 2.x (OpenCLIP ViT-H), XL (both CLIP ViT-L and OpenCLIP ViT-bigG)."""
UNET_KEYS, VAE_KEYS = "model.diffusion_model.", "first_stage_model."
TEXT_KEYS: dict[Layout, tuple[str, ...]] = {
    "xl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    "2.x": ("cond_stage_model.model.",),
    "1.x": ("cond_stage_model.transformer.",),
}
"""Prefixes of the text encoders' tensors."""


def single_file_layout(
    path: Path, tensors: Mapping[str, Stored], *, needs_vae: bool = True
) -> Layout:
    """Layout of an original single file. Raises ManifestError for other kinds of file, each with the next step.

    `needs_vae`: false where another autoencoder takes the place of the file's.
    """
    accepted = (
        "accepted: a whole Stable Diffusion 1.x, 2.x or XL base checkpoint in the original layout, with UNet "
        "(model.diffusion_model.*), VAE (first_stage_model.*) and text encoder (cond_stage_model.* or conditioner.*)"
    )
    # LoRA files and parts of a folder first: they are what people mistake for a checkpoint
    prefixes = {name.split(".")[0] for name in tensors}
    if any(name.startswith(("lora_", "unet.down_blocks")) or ".lora_" in name for name in tensors):
        raise ManifestError(
            f"model.path: {path} holds LoRA weights, which belong to a checkpoint; {accepted}"
        )
    if any(name.startswith(("down_blocks.", "text_model.", "encoder.")) for name in tensors):
        raise ManifestError(
            f"model.path: {path} is one part of a pipeline folder; {accepted}. Next: give the folder itself, "
            "the one with model_index.json, as `model: {path: FOLDER}`"
        )
    needed = (UNET_KEYS, VAE_KEYS) if needs_vae else (UNET_KEYS,)
    missing = [key for key in needed if not _has(tensors, key)]
    layouts: list[Layout] = [
        layout for layout, keys in TEXT_KEYS.items() if all(_has(tensors, key) for key in keys)
    ]
    if missing or not layouts:
        # the refiner has one text encoder, at the place of the base model's first
        refiner = _has(tensors, "conditioner.embedders.0.model.")
        what = "the XL refiner" if refiner else f"keys that begin with {_some(prefixes)}"
        lacks = ", ".join(f"{key}*" for key in missing) or "a text encoder that is known"
        raise ManifestError(f"model.path: {path}: found {what}, without {lacks}; {accepted}")
    channels = tensors[f"{UNET_KEYS}input_blocks.0.0.weight"].shape[1]
    if channels != 4:
        raise ManifestError(
            f"model.path: {path}: its UNet takes {channels} channels (a network for inpainting or depth); "
            "accepted: 4, the latents alone"
        )
    return layouts[0]


def vae_tensors(path: Path, tensors: Mapping[str, Stored]) -> tuple[str, dict[str, Stored]]:
    """The prefix of an autoencoder's tensors in a single file, and the tensors without it and without what training leaves.

    The names are diffusers' or those of the original code (`is_original_vae`). Raises ManifestError for another kind of file.
    """
    prefix = VAE_KEYS if _has(tensors, VAE_KEYS) else ""
    found = {
        name.removeprefix(prefix): stored
        for name, stored in tensors.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(HARMLESS_VAE)
    }
    if not (_has(found, "encoder.conv_in.") and _has(found, "decoder.conv_in.")):
        prefixes = {name.split(".")[0] for name in tensors}
        raise ManifestError(
            f"model.vae: {path}: found keys that begin with {_some(prefixes)}; accepted: an AutoencoderKL in diffusers' or the "
            "original layout (encoder.* and decoder.*, or first_stage_model.*)"
        )
    return prefix, found


def is_vae(tensors: Mapping[str, Stored]) -> bool:
    """Whether a single file holds an autoencoder and no other network."""
    others = (UNET_KEYS, *(key for keys in TEXT_KEYS.values() for key in keys))
    prefix = VAE_KEYS if _has(tensors, VAE_KEYS) else ""
    halves = (f"{prefix}encoder.conv_in.", f"{prefix}decoder.conv_in.")
    return all(_has(tensors, half) for half in halves) and not any(
        _has(tensors, key) for key in others
    )


def is_original_vae(names: Iterable[str]) -> bool:
    """Whether the names of an autoencoder's tensors are those of the original code."""
    return any(name.startswith(("encoder.down.", "encoder.mid.")) for name in names)


def parameters_by_part(layout: Layout, tensors: Mapping[str, Stored]) -> dict[str, int]:
    """Number of weights of each network in a file of this layout; keys are the parts of a pipeline folder."""
    texts = TEXT_KEYS[layout]
    names = {"unet": UNET_KEYS}
    names |= dict(zip(("text_encoder", "text_encoder_2"), texts, strict=False))
    return {
        part: num_parameters(tensors, [key]) for part, key in (names | {"vae": VAE_KEYS}).items()
    }


def _has(tensors: Mapping[str, Stored], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _some(words: Iterable[str]) -> str:
    ordered = sorted(words)
    return ", ".join(ordered[:5]) + (", ..." if len(ordered) > 5 else "") or "nothing"
