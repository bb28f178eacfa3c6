"""What safetensors files hold, from their headers alone: names, shapes, sizes; and the layout of a single file.

A header is JSON behind its length (8 bytes, little-endian), so that nothing of the weights is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stylebatch.errors import ManifestError

FLOATS = ("F64", "F32", "F16", "BF16")
LFS_POINTER = b"version https://git-lfs"
LARGEST_HEADER = 100_000_000
Layout = Literal["1.x", "2.x", "xl"]
"""Of a checkpoint: Stable Diffusion 1.x (CLIP ViT-L), 2.x (OpenCLIP ViT-H), XL (both CLIP ViT-L and OpenCLIP ViT-bigG)."""
UNET_KEYS, VAE_KEYS = "model.diffusion_model.", "first_stage_model."
TEXT_KEYS: dict[Layout, tuple[str, ...]] = {
    "xl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    "2.x": ("cond_stage_model.model.",),
    "1.x": ("cond_stage_model.transformer.",),
}
"""Of the text encoders in an original single file (CompVis and Stability AI's own code)."""


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: dtype as safetensors writes it, shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by name.

    Raises ManifestError for a file that is a Git LFS pointer, truncated, or none of this kind.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            text = file.read(min(length, LARGEST_HEADER))
    except OSError as error:
        raise ManifestError(f"model: {path} cannot be read ({error.strerror})") from None
    if (start + text).startswith(LFS_POINTER):
        raise ManifestError(
            f"model: {path} is a Git LFS pointer of {size} bytes, not the weights; next: `git lfs pull` where it was "
            "cloned, or `hf download`"
        )
    try:
        table: dict[str, Any] = json.loads(text)
        table.pop("__metadata__", None)
        found = {name: Stored(row["dtype"], tuple(row["shape"])) for name, row in table.items()}
        end = 8 + length + max((row["data_offsets"][1] for row in table.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ManifestError(
            f"model: {path} ({size} bytes) is no safetensors file, or its header is cut off; next: fetch it again"
        ) from None
    if end != size:
        raise ManifestError(
            f"model: {path} has {size} bytes and its header tells of {end}; next: fetch it again"
        )
    return found


def num_parameters(tensors: Mapping[str, Stored], prefixes: Iterable[str] = ("",)) -> int:
    """Numbers of the floating tensors whose names begin with one of `prefixes`."""
    chosen = tuple(prefixes)
    return sum(
        tensor.elements
        for name, tensor in tensors.items()
        if name.startswith(chosen) and tensor.dtype in FLOATS
    )


def single_file_layout(path: Path, tensors: Mapping[str, Stored]) -> Layout:
    """Layout of an original single file. Raises ManifestError for other kinds of file, each with what to do."""
    accepted = (
        "accepted: a whole Stable Diffusion 1.x, 2.x or XL base checkpoint in the original layout, with UNet "
        "(model.diffusion_model.*), VAE (first_stage_model.*) and text encoder (cond_stage_model.* or conditioner.*)"
    )
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
    missing = [key for key in (UNET_KEYS, VAE_KEYS) if not _has(tensors, key)]
    layouts: list[Layout] = [
        layout for layout, keys in TEXT_KEYS.items() if all(_has(tensors, key) for key in keys)
    ]
    if missing or not layouts:
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


def _has(tensors: Mapping[str, Stored], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _some(words: Iterable[str]) -> str:
    ordered = sorted(words)
    return ", ".join(ordered[:5]) + (", ..." if len(ordered) > 5 else "") or "nothing"
