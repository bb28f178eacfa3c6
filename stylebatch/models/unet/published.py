"""Recognises the UNets of the published checkpoints by the values that differ between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "use_linear_projection": False,
    "addition_embed_type": None,
}
"""The keys that are compared, with the values that diffusers takes where a config has none."""
_UNET_1 = DEFAULTS | {"cross_attention_dim": 768}
_UNET_2 = DEFAULTS | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_UNET_XL = DEFAULTS | {
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
# sd21 and sd21-base have one network, trained on different predictions; sd14 and sd15 differ in their weights alone.
PUBLISHED: dict[str, tuple[Mapping[str, Any], str]] = {
    "sd14": (_UNET_1, "epsilon"),
    "sd15": (_UNET_1, "epsilon"),
    "sd21-base": (_UNET_2, "epsilon"),
    "sd21": (_UNET_2, "v_prediction"),
    "sdxl": (_UNET_XL, "epsilon"),
}
"""Name (of `section.MODEL_IDS`) -> what its UNet's config says, and what it predicts."""


def names_of(unet: Mapping[str, Any], prediction_type: str) -> tuple[str, ...]:
    """Names of the published checkpoints with this UNet config and prediction type."""
    found = {key: unet.get(key, default) for key, default in DEFAULTS.items()}
    return tuple(
        name for name, published in PUBLISHED.items() if (found, prediction_type) == published
    )
