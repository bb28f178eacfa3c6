"""The published checkpoints: configs and numbers of parameters of every part, read from published.json.

Sources: the config files of CompVis/stable-diffusion-v1-4, stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1-base,
stable-diffusion-2-1 and stable-diffusion-xl-base-1.0; sizes in arXiv 2307.01952, table 1. Keys at diffusers' defaults are left out
unless they tell the families apart. `attention_head_dim` counts heads (diffusers kept the misnomer).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]
DEFAULTS: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "use_linear_projection": False,
    "addition_embed_type": None,
}
"""Keys by which UNets differ, with the values that diffusers takes where a config has none."""


@dataclass(frozen=True)
class Published:
    """A checkpoint of the hub: configs by part, parameters of the parts that have any, pixels it was trained on."""

    title: str
    native_size: int
    configs: Mapping[str, Config]
    parameters: Mapping[str, int]


@cache
def published_checkpoints() -> dict[str, Published]:
    """By the names of `section.MODEL_IDS`."""
    numbers = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return {
        name: Published(
            found["title"],
            found["native_size"],
            {part: numbers["configs"][config] for part, config in found["parts"].items()},
            found["parameters"],
        )
        for name, found in numbers["checkpoints"].items()
    }


def names_of(unet: Config, prediction_type: str) -> tuple[str, ...]:
    """Names of the published checkpoints with this UNet config and prediction type.

    sd21 and sd21-base have one network, trained on different predictions; sd14 and sd15 differ in their weights alone.
    """
    facts = (_facts(unet), prediction_type)
    return tuple(
        name
        for name, one in published_checkpoints().items()
        if (_facts(one.configs["unet"]), one.configs["scheduler"]["prediction_type"]) == facts
    )


def _facts(unet: Config) -> dict[str, Any]:
    return {key: unet.get(key, default) for key, default in DEFAULTS.items()}
