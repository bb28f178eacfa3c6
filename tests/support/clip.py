"""A small random CLIP as a transformers folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

TINY = Path(__file__).parents[2] / "stylebatch" / "models" / "tiny"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
"""Sizes of an encoder."""


def write_preprocessing(folder: Path, size: int) -> None:
    """A crop of `size` from pictures whose shorter side is 8 more."""
    settings = {
        "size": {"shortest_edge": size + 8}, "crop_size": {"height": size, "width": size}, "resample": 3,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def write_clip(folder: Path) -> Path:
    """Embeddings of 16 numbers, pictures of 30 px."""
    torch.manual_seed(0)
    shutil.copytree(TINY / "tokenizer", folder, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # CLIP reads a text off at its end
    text = SMALL | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision = SMALL | {"image_size": 30, "patch_size": 10}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    write_preprocessing(folder, 30)
    return folder
