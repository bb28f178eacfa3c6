"""The published checkpoints at full size: configs and parameters of every part, read from published.json.

Sources: the config files of CompVis/stable-diffusion-v1-4, stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1-base,
stable-diffusion-2-1 and stable-diffusion-xl-base-1.0; sizes in arXiv 2307.01952, table 1. Keys at diffusers' defaults are left out
unless they tell the families apart. `attention_head_dim` counts heads (diffusers kept the misnomer).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]
_WIDTHS = (
    "block_out_channels",
    "cross_attention_dim",
    "norm_num_groups",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
)


@dataclass(frozen=True)
class Published:
    """A checkpoint of the hub: configs by part, parameters of the parts that have any, pixels it was trained on."""

    title: str
    native_size: int
    configs: Mapping[str, Config]
    parameters: Mapping[str, int]


def _read() -> dict[str, Published]:
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


PUBLISHED = _read()
"""By the names of `spec.MODEL_IDS`."""


def narrowed(published: Published, divisor: int) -> dict[str, dict[str, Any]]:
    """The same configs with every width divided: as many layers, heads, and channels per group as the original."""

    def divide(value: Any) -> Any:
        return (
            [width // divisor for width in value] if isinstance(value, list) else value // divisor
        )

    return {
        part: {key: divide(value) if key in _WIDTHS else value for key, value in config.items()}
        for part, config in published.configs.items()
    }
