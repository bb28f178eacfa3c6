"""Writes a pipeline folder as one file in the layout of the original code (CompVis LDM, Stability AI SGM)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def write_single_file(folder: Path, path: Path) -> Path:
    """The weights of the pipeline in `folder` as one safetensors file at `path`."""
    is_xl = (folder / "text_encoder_2").is_dir()
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
    state = _prefixed("model.diffusion_model.", _unet(unet, config))
    state |= _prefixed("first_stage_model.", original_vae(vae))
    text = load_file(folder / "text_encoder" / "model.safetensors")
    if is_xl:
        state |= _prefixed("conditioner.embedders.0.transformer.", _clip(text))
        second = load_file(folder / "text_encoder_2" / "model.safetensors")
        state |= _prefixed("conditioner.embedders.1.model.", _open_clip(second))
    elif config["use_linear_projection"]:
        state |= _prefixed("cond_stage_model.model.", _open_clip(text, unused_layer=23))
    else:
        state |= _prefixed("cond_stage_model.transformer.", _clip(text))
        state["alphas_cumprod"] = torch.linspace(1, 0, 1000)  # buffers come along in real files
    save_file({key: x.contiguous() for key, x in state.items()}, path)
    return path


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + key: x for key, x in state.items()}


def _renamed(state: State, old: str, new: str, inner: dict[str, str] | None = None) -> State:
    """The entries under `old.`, under `new.`, with the first words of the rest replaced."""
    found = {}
    for key, x in state.items():
        if key.startswith(f"{old}."):
            rest = key.removeprefix(f"{old}.")
            for before, after in (inner or {}).items():
                if rest.startswith(f"{before}."):
                    rest = f"{after}.{rest.removeprefix(f'{before}.')}"
                    break
            found[f"{new}.{rest}"] = x
    return found


def _unet(unet: State, config: dict[str, Any]) -> State:
    levels, layers = len(config["block_out_channels"]), int(config["layers_per_block"])
    out = _renamed(unet, "conv_in", "input_blocks.0.0")
    out |= _renamed(unet, "time_embedding.linear_1", "time_embed.0")
    out |= _renamed(unet, "time_embedding.linear_2", "time_embed.2")
    out |= _renamed(unet, "add_embedding.linear_1", "label_emb.0.0")
    out |= _renamed(unet, "add_embedding.linear_2", "label_emb.0.2")
    block = 1
    for level in range(levels):
        for layer in range(layers):
            down = f"down_blocks.{level}"
            out |= _renamed(unet, f"{down}.resnets.{layer}", f"input_blocks.{block}.0", RESNET)
            out |= _renamed(unet, f"{down}.attentions.{layer}", f"input_blocks.{block}.1")
            block += 1
        if level < levels - 1:
            out |= _renamed(
                unet, f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{block}.0.op"
            )
            block += 1
    out |= _renamed(unet, "mid_block.resnets.0", "middle_block.0", RESNET)
    out |= _renamed(unet, "mid_block.attentions.0", "middle_block.1")
    out |= _renamed(unet, "mid_block.resnets.1", "middle_block.2", RESNET)
    for level in range(levels):
        for layer in range(layers + 1):
            block = level * (layers + 1) + layer
            up = f"up_blocks.{level}"
            out |= _renamed(unet, f"{up}.resnets.{layer}", f"output_blocks.{block}.0", RESNET)
            attention = _renamed(unet, f"{up}.attentions.{layer}", f"output_blocks.{block}.1")
            if layer == layers:
                place = 2 if attention else 1
                out |= _renamed(
                    unet, f"{up}.upsamplers.0.conv", f"output_blocks.{block}.{place}.conv"
                )
            out |= attention
    out |= _renamed(unet, "conv_norm_out", "out.0")
    out |= _renamed(unet, "conv_out", "out.2")
    assert len(out) == len(unet)
    return out


def original_vae(vae: State) -> State:
    out = {key: x for key, x in vae.items() if key.startswith(("quant_conv", "post_quant_conv"))}
    shortcut = {"conv_shortcut": "nin_shortcut"}
    for side, sample in (("encoder", "down"), ("decoder", "up")):
        out |= _renamed(vae, f"{side}.conv_in", f"{side}.conv_in")
        out |= _renamed(vae, f"{side}.conv_out", f"{side}.conv_out")
        out |= _renamed(vae, f"{side}.conv_norm_out", f"{side}.norm_out")
        for layer in range(2):
            block = f"{side}.mid.block_{layer + 1}"
            out |= _renamed(vae, f"{side}.mid_block.resnets.{layer}", block, shortcut)
        attention = _renamed(
            vae, f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", VAE_ATTENTION
        )
        out |= {key: x[:, :, None, None] if x.ndim == 2 else x for key, x in attention.items()}
        for level in range(4):
            block = f"{side}.{sample}.{level if side == 'encoder' else 3 - level}"
            old = f"{side}.{sample}_blocks.{level}"
            for layer in range(3):
                out |= _renamed(vae, f"{old}.resnets.{layer}", f"{block}.block.{layer}", shortcut)
            out |= _renamed(vae, f"{old}.{sample}samplers.0.conv", f"{block}.{sample}sample.conv")
    assert len(out) == len(vae)
    return out


def _clip(text: State) -> State:
    return text | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


def _open_clip(text: State, unused_layer: int | None = None) -> State:
    """OpenCLIP fuses q, k and v; 2.x files carry a last layer that the pipeline leaves out."""
    inner = {key.removeprefix("text_model."): x for key, x in text.items()}
    out = {
        "positional_embedding": inner["embeddings.position_embedding.weight"],
        "token_embedding.weight": inner["embeddings.token_embedding.weight"],
        "ln_final.weight": inner["final_layer_norm.weight"],
        "ln_final.bias": inner["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    width = out["positional_embedding"].shape[1]
    projection = inner.get("text_projection.weight", torch.eye(width))
    out["text_projection"] = projection.T
    layers = sum(key.endswith("layer_norm1.weight") for key in inner)
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [inner[f"{old}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            out[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
            out[f"{new}.attn.out_proj.{kind}"] = inner[f"{old}.self_attn.out_proj.{kind}"]
            out[f"{new}.ln_1.{kind}"] = inner[f"{old}.layer_norm1.{kind}"]
            out[f"{new}.ln_2.{kind}"] = inner[f"{old}.layer_norm2.{kind}"]
            out[f"{new}.mlp.c_fc.{kind}"] = inner[f"{old}.mlp.fc1.{kind}"]
            out[f"{new}.mlp.c_proj.{kind}"] = inner[f"{old}.mlp.fc2.{kind}"]
    if unused_layer is not None:
        last = f"transformer.resblocks.{layers - 1}."
        out |= {
            key.replace(last, f"transformer.resblocks.{unused_layer}."): torch.full_like(x, 9.0)
            for key, x in list(out.items())
            if key.startswith(last)
        }
    return out
