"""Checkpoints for tests: twins of the published ones (random weights, every width divided), and changed copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipelines.proofs.published import PUBLISHED, narrowed
from tests.support.golden import GOLDEN, link_folder

DIVISORS = {"sd14": 8, "sd15": 8, "sd21-base": 16, "sd21": 16, "sdxl": 16}
"""Of every width; 1.x has 8 heads at each, so that 320 / 16 would not do."""
VOCABULARY = GOLDEN / "stylealigned_sdxl" / "model" / "tokenizer"
INDEX = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}


def with_schedule(source: Path, target: Path, **settings: object) -> Path:
    """A linked copy of a pipeline folder with other scheduler settings."""
    return with_config(source, target, "scheduler/scheduler_config.json", **settings)


def with_config(source: Path, target: Path, name: str, **settings: object) -> Path:
    """A linked copy of a pipeline folder with other settings in one of its JSON files."""
    config = json.loads((source / name).read_text("utf-8"))
    link_folder(source, target, without=(name,))
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text(json.dumps(config | settings), encoding="utf-8")
    return target


def configs_only(source: Path, target: Path) -> Path:
    """A linked copy of a pipeline folder without its weights."""
    weights = tuple(str(path.relative_to(source)) for path in source.rglob("*.safetensors"))
    return link_folder(source, target, without=weights)


def twin(name: str, folder: Path, *, dtype: torch.dtype = torch.float32, variant: str = "") -> Path:
    """A narrow twin of `PUBLISHED[name]` in the files of the hub's repository; `variant` in their names."""
    configs = narrowed(PUBLISHED[name], DIVISORS[name])
    vocabulary = len(json.loads((VOCABULARY / "vocab.json").read_text("utf-8")))
    infix = f".{variant}" if variant else ""
    torch.manual_seed(len(name))
    for part, config in configs.items():
        (folder / part).mkdir(parents=True)
        if part.startswith("tokenizer"):
            _write_tokenizer(folder / part, str(config["pad_token"]))
        elif part == "scheduler":
            _write(folder / part / "scheduler_config.json", config)
        elif part.startswith("text_encoder"):
            config["vocab_size"] = vocabulary
            _write(folder / part / "config.json", config)
            save_file(
                _text_weights(config, dtype), folder / part / f"model{infix}.safetensors", _PT
            )
        else:
            network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part](**config)
            _write(folder / part / "config.json", config | {"_class_name": INDEX[part][1]})
            weights = {key: x.to(dtype).contiguous() for key, x in network.state_dict().items()}
            save_file(weights, folder / part / f"diffusion_pytorch_model{infix}.safetensors", _PT)
    is_xl = name == "sdxl"
    index: dict[str, Any] = {part: INDEX[part] for part in configs if part in INDEX}
    index["_class_name"] = f"StableDiffusion{'XL' if is_xl else ''}Pipeline"
    index["scheduler"] = ["diffusers", configs["scheduler"]["_class_name"]]
    index |= {"force_zeros_for_empty_prompt": True} if is_xl else {}
    index |= {} if is_xl else {"safety_checker": [None, None], "feature_extractor": [None, None]}
    _write(folder / "model_index.json", index)
    return folder


_PT = {"format": "pt"}


def _text_weights(config: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Names as the hub's files have them: `text_model.` in front, whatever transformers calls them today."""
    projects = config["architectures"] == ["CLIPTextModelWithProjection"]
    cls = CLIPTextModelWithProjection if projects else CLIPTextModel
    own = {
        key: value for key, value in config.items() if key not in ("architectures", "model_type")
    }
    state = cls(CLIPTextConfig(**own)).state_dict()
    return {
        key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}": x.to(
            dtype
        ).contiguous()
        for key, x in state.items()
    }


def _write_tokenizer(folder: Path, pad_token: str) -> None:
    """In the hub's files: 2.x says its padding in special_tokens_map.json alone."""
    vocabulary = (VOCABULARY / "vocab.json").read_text("utf-8")
    merges = json.loads((VOCABULARY / "tokenizer.json").read_text("utf-8"))["model"]["merges"]
    lines = [" ".join(merge) if isinstance(merge, list) else merge for merge in merges]
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    names |= {"unk_token": "<|endoftext|>"}
    (folder / "vocab.json").write_text(vocabulary, "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), "utf-8")
    _write(folder / "special_tokens_map.json", names | {"pad_token": pad_token})
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    _write(folder / "tokenizer_config.json", {**names, **settings, "pad_token": "<|endoftext|>"})


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
