"""LoRA weights (arXiv 2106.09685) added to the networks when they are loaded: W + scale * alpha / r * B A.

A run has one set of LoRA weights, so they are added once instead of kept beside the layers: no step costs more, and peft is
not needed. diffusers converts the keys of the kohya, diffusers and peft layouts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stylebatch.errors import ManifestError
from stylebatch.models.model_section import LoraSpec
from stylebatch.models.unet.lora_keys import ACCEPTED, check_keys, num_layers

_DOWN = ("lora_A", "lora.down", "lora_linear_layer.down")
_UP = {"lora_A": "lora_B"}
_ATTENTION = re.compile(r"(.+?)(?:\.processor)?\.(to_[qkv]|to_out)_lora\.(?:down|up)\.weight")
"""Attention layers as early versions of diffusers named their weights."""
_UNET_NAMES = {"to_out": "to_out.0"}
_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_PREFIXES = {"unet", "text_encoder", "text_encoder_2"}


@torch.no_grad()
def add_loras(
    loras: Sequence[LoraSpec], networks: Mapping[str, nn.Module], unet_config: Any
) -> None:
    """Add the weights of all files to `networks` (keys: `unet`, `text_encoder`, `text_encoder_2`); their order changes nothing.

    Raises ManifestError, naming the file, for weights that belong to no layer or have another shape.
    """
    layers = {
        (part, name): layer
        for part, network in networks.items()
        for name, layer in network.named_modules()
    }
    changes: dict[int, list[_Change]] = {}
    weights: dict[int, Tensor] = {}
    for lora in loras:
        tensors, alphas = _read(Path(lora.path), unet_config)
        for key, (down, up) in _pairs(tensors, lora.path).items():
            part, _, name = key.partition(".")
            # files before transformers 5 have `text_model.` in the names of text encoders
            layer = layers.get((part, name)) or layers.get((part, name.removeprefix("text_model.")))
            if layer is None or not isinstance(getattr(layer, "weight", None), Tensor):
                raise ManifestError(
                    f"model.lora: {lora.path}: found weights for {key}, which this model lacks; accepted: {ACCEPTED}"
                )
            weight: Tensor = layer.weight  # type: ignore[assignment]
            rank = down.shape[0]
            factor = lora.scale * alphas.get(key, float(rank)) / rank
            change = _Change(lora.path, key, factor, down, up)
            change.require_fit(weight)
            changes.setdefault(id(weight), []).append(change)
            weights[id(weight)] = weight
    for place, weight in weights.items():
        # In float64, and rounded once: float16 weights would lose most of a small change, and several in some order.
        total = torch.stack([change.product() for change in changes[place]]).sum(0)
        changed = weight.double() + total.reshape(weight.shape).to(weight.device)
        weight.copy_(changed.to(weight.dtype))


@dataclass(frozen=True)
class _Change:
    """What a file adds to a layer: factor * up @ down."""

    path: str
    key: str
    factor: float
    down: Tensor
    up: Tensor

    def require_fit(self, weight: Tensor) -> None:
        """Raise ManifestError unless the shapes are those of the layer's weights."""
        down, up = self.down, self.up
        fits = (
            min(down.ndim, up.ndim, weight.ndim) >= 2
            and up[0].numel() == down.shape[0]
            and (up.shape[0], down[0].numel()) == (weight.shape[0], weight[0].numel())
        )
        if not fits:
            raise ManifestError(
                f"model.lora: {self.path}: {self.key}: found {tuple(down.shape)} and {tuple(up.shape)} for weights of "
                f"{tuple(weight.shape)}; accepted: {ACCEPTED}"
            )

    def product(self) -> Tensor:
        """(outputs, inputs x kernel) in float64. Raises ManifestError for values that are not finite."""
        found = self.factor * (self.up.flatten(1).double() @ self.down.flatten(1).double())
        if not bool(found.isfinite().all()):
            raise ManifestError(
                f"model.lora: {self.path}: {self.key}: found values that are not finite; accepted: finite ones"
            )
        return found


def _read(path: Path, unet_config: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors under `unet.` and `text_encoder.` keys, and alpha by layer if it differs from the rank."""
    check_keys(path)
    try:
        raw = load_file(str(path))
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        if not isinstance(facts, dict):
            raise ValueError("lora_adapter_metadata is no object")
    except (OSError, SafetensorError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [error.__class__.__name__])[0]
        raise ManifestError(
            f"model.lora: {path}: cannot be read ({reason}); accepted: {ACCEPTED}"
        ) from None
    if any(facts.get(f"{part}.use_rslora") for part in _PREFIXES):
        raise ManifestError(f"model.lora: {path}: found rank-stabilised LoRA; accepted: {ACCEPTED}")
    loader: Any = StableDiffusionLoraLoaderMixin
    held = num_layers(list(raw))  # counted first: the conversion may take keys out of `raw`
    try:
        tensors, network_alphas = loader.lora_state_dict(raw, unet_config=unet_config)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or error.__class__.__name__
        raise ManifestError(
            f"model.lora: {path}: found names that cannot be converted ({reason}); accepted: {ACCEPTED}"
        ) from error
    # diffusers drops keys that it does not know, with a warning at most
    if (found := num_layers(list(tensors))) != held:
        raise ManifestError(
            f"model.lora: {path}: found {held} layers, of which {found} have names that are known; accepted: {ACCEPTED}"
        )
    alphas = {
        _layer(key.removesuffix(".alpha")): float(alpha)
        for key, alpha in (network_alphas or {}).items()
    }
    for key in [key for key in tensors if key.endswith(".alpha")]:
        alphas[_layer(key.removesuffix(".alpha"))] = float(tensors.pop(key))
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
    """(down, up) weights by layer. Raises ManifestError for a weight without its counterpart."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for key, down in tensors.items():
        mark = next((mark for mark in _DOWN if f"{mark}." in key), None)
        if mark is None:
            continue
        up = tensors.get(key.replace(mark, _UP.get(mark, mark.replace("down", "up"))))
        name = _layer(key)
        if up is None or name.partition(".")[0] not in _PREFIXES:
            raise ManifestError(f"model.lora: {path}: found {key} alone; accepted: {ACCEPTED}")
        found[name] = down, up
    if 2 * len(found) != len(tensors):
        alone = next(key for key in tensors if _layer(key) not in found)
        raise ManifestError(f"model.lora: {path}: found {alone} alone; accepted: {ACCEPTED}")
    return found


def _layer(key: str) -> str:
    """The layer that a key of any layout belongs to: `unet.down_blocks.0.attentions.0...attn1.to_q`."""
    if (found := _ATTENTION.match(key)) is not None:
        names = _TEXT_NAMES if key.startswith("text_encoder") else _UNET_NAMES
        return f"{found[1]}.{names.get(found[2], found[2])}"
    for mark in (".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", ".lora_linear_layer."):
        key = key.split(mark)[0]
    return key
