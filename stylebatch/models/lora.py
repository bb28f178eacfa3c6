"""LoRA weights (arXiv 2106.09685) added to the networks when they are loaded: W + scale * alpha / r * B A.

Added rather than kept beside the layers: a run has one set of weights, so a step costs nothing more and no further package is
needed. Keys of the kohya, diffusers and peft layouts are brought into one by diffusers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stylebatch.errors import ManifestError
from stylebatch.spec import LoraSpec

_DOWN = ("lora_A", "lora.down", "lora_linear_layer.down")
_UP = {"lora_A": "lora_B"}
_ATTENTION = re.compile(r"(.+?)(?:\.processor)?\.(to_[qkv]|to_out)_lora\.(?:down|up)\.weight")
"""Attention layers as early versions of diffusers named their weights."""
_UNET_NAMES = {"to_out": "to_out.0"}
_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_PREFIXES = {"unet", "text_encoder", "text_encoder_2"}
_ACCEPTED = (
    "a .safetensors file with LoRA weights for this model's UNet or text encoders (kohya, diffusers or peft layout, "
    "no DoRA)"
)


@torch.no_grad()
def add_loras(
    loras: Sequence[LoraSpec], networks: Mapping[str, nn.Module], unet_config: Any
) -> None:
    """Add the weights of each file to the networks, by `unet`, `text_encoder`, `text_encoder_2`.

    Raises ManifestError, naming the file, for weights that belong to no layer or have another shape.
    """
    for lora in loras:
        tensors, alphas = _read(Path(lora.path), unet_config)
        layers = {
            (part, name): layer
            for part, network in networks.items()
            for name, layer in network.named_modules()
        }
        for key, (down, up) in _pairs(tensors, lora.path).items():
            part, _, name = key.partition(".")
            layer = layers.get((part, name)) or layers.get((part, name.removeprefix("text_model.")))
            if layer is None or not isinstance(getattr(layer, "weight", None), Tensor):
                raise ManifestError(
                    f"model.lora: {lora.path}: found weights for {key}, which this model lacks; accepted: {_ACCEPTED}"
                )
            weight: Tensor = layer.weight  # type: ignore[assignment]
            rank = down.shape[0]
            change = up.flatten(1).double() @ down.flatten(1).double()
            if change.numel() != weight.numel():
                raise ManifestError(
                    f"model.lora: {lora.path}: {key}: found a change of {tuple(change.shape)} for weights of "
                    f"{tuple(weight.shape)}; accepted: {_ACCEPTED}"
                )
            factor = lora.scale * alphas.get(key, float(rank)) / rank
            changed = weight.double() + factor * change.reshape(weight.shape).to(weight.device)
            weight.copy_(changed.to(weight.dtype))


def _read(path: Path, unet_config: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors under `unet.`, `text_encoder.` keys, and alpha by layer where it is not the rank."""
    try:
        raw = load_file(str(path))
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [error.__class__.__name__])[0]
        raise ManifestError(
            f"model.lora: {path}: cannot be read ({reason}); accepted: {_ACCEPTED}"
        ) from None
    if any("dora_scale" in key for key in raw):
        raise ManifestError(f"model.lora: {path}: found DoRA weights; accepted: {_ACCEPTED}")
    if any(facts.get(f"{part}.use_rslora") for part in _PREFIXES):
        raise ManifestError(
            f"model.lora: {path}: found rank-stabilised LoRA; accepted: {_ACCEPTED}"
        )
    loader: Any = StableDiffusionLoraLoaderMixin
    tensors, network_alphas = loader.lora_state_dict(raw, unet_config=unet_config)
    alphas = {
        _layer(key.removesuffix(".alpha")): float(alpha)
        for key, alpha in (network_alphas or {}).items()
    }
    for part in _PREFIXES:
        default, by_layer = facts.get(f"{part}.lora_alpha"), facts.get(f"{part}.alpha_pattern", {})
        if default is None:
            continue
        for key in tensors:
            name = _layer(key)
            if name.startswith(f"{part}."):
                alphas[name] = float(by_layer.get(name.partition(".")[2], default))
    return tensors, alphas


def _pairs(tensors: Mapping[str, Tensor], path: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Down and up weights by layer."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for key, down in tensors.items():
        mark = next((mark for mark in _DOWN if f"{mark}." in key), None)
        if mark is None:
            continue
        up = tensors.get(key.replace(mark, _UP.get(mark, mark.replace("down", "up"))))
        name = _layer(key)
        if up is None or name.partition(".")[0] not in _PREFIXES:
            raise ManifestError(f"model.lora: {path}: found {key} alone; accepted: {_ACCEPTED}")
        found[name] = down, up
    if not found:
        raise ManifestError(f"model.lora: {path}: found no LoRA weights; accepted: {_ACCEPTED}")
    return found


def _layer(key: str) -> str:
    """The layer that a key of any layout is about: `unet.down_blocks.0.attentions.0...attn1.to_q`."""
    if (found := _ATTENTION.match(key)) is not None:
        names = _TEXT_NAMES if key.startswith("text_encoder") else _UNET_NAMES
        return f"{found[1]}.{names.get(found[2], found[2])}"
    for mark in (".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", ".lora_linear_layer."):
        key = key.split(mark)[0]
    return key
