"""LoRA weights: every layout means the same change of weights, and what fits no layer is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import LoraSpec, ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion

RANK = 3
LAYERS = {
    "unet": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "text_encoder": "encoder.layers.0.self_attn.q_proj",
}
CONVOLUTION = "down_blocks.0.resnets.0.conv1"


def weight(model: StableDiffusion, part: str, name: str) -> Tensor:
    network: Any = getattr(model, part)
    found: Tensor = network.get_submodule(name).weight.detach()
    return found


@pytest.fixture(scope="module")
def change(eps_model: StableDiffusion) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Down and up weights by part and layer."""
    draw = torch.Generator().manual_seed(1)
    found = {}
    for part, name in [*LAYERS.items(), ("unet", CONVOLUTION)]:
        shape = weight(eps_model, part, name).shape
        ends = (1, 1) if len(shape) == 4 else ()
        down = torch.randn(RANK, *shape[1:], generator=draw)
        found[part, name] = down, torch.randn(shape[0], RANK, *ends, generator=draw)
    return found


def key(part: str, name: str) -> str:
    return f"{part}.{'text_model.' if part == 'text_encoder' else ''}{name}"


def peft(change: Any) -> dict[str, Tensor]:
    return {
        f"{key(part, name)}.lora_{letter}.weight": tensor.clone()
        for (part, name), pair in change.items()
        for letter, tensor in zip("AB", pair, strict=True)
    }


def diffusers(change: Any) -> dict[str, Tensor]:
    return {
        f"{key(part, name)}.{'lora' if part == 'unet' else 'lora_linear_layer'}.{way}.weight": tensor.clone()
        for (part, name), pair in change.items()
        for way, tensor in zip(("down", "up"), pair, strict=True)
    }


def kohya(change: Any) -> dict[str, Tensor]:
    found = {}
    for (part, name), pair in change.items():
        stem = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part]
        stem += name.replace(".", "_")
        for way, tensor in zip(("down", "up"), pair, strict=True):
            found[f"{stem}.lora_{way}.weight"] = tensor.clone()
        found[f"{stem}.alpha"] = torch.tensor(6.0)
    return found


LAYOUTS = {"peft": (peft, 1.0), "diffusers": (diffusers, 1.0), "kohya": (kohya, 6.0 / RANK)}


def loaded(folder: Path, *loras: LoraSpec) -> StableDiffusion:
    return load_model(ModelSpec(path=str(folder), lora=loras), device="cpu")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_change_by_scale_alpha_and_rank(
    layout: str, change: Any, tmp_path: Path, eps_folder: Path, eps_model: StableDiffusion
) -> None:
    write, factor = LAYOUTS[layout]
    save_file(write(change), tmp_path / "x.safetensors")
    model = loaded(eps_folder, LoraSpec(path=str(tmp_path / "x.safetensors"), scale=0.5))
    for (part, name), (down, up) in change.items():
        before = weight(eps_model, part, name)
        expected = before + 0.5 * factor * (up.flatten(1) @ down.flatten(1)).view(before.shape)
        torch.testing.assert_close(weight(model, part, name), expected, rtol=1e-5, atol=1e-5)
    other = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    assert torch.equal(weight(model, "unet", other), weight(eps_model, "unet", other))


def test_alpha_of_peft_is_read(
    change: Any, tmp_path: Path, eps_folder: Path, eps_model: StableDiffusion
) -> None:
    facts = {"unet.lora_alpha": 6, "unet.alpha_pattern": {CONVOLUTION: 9}}
    path = tmp_path / "x.safetensors"
    save_file(peft(change), path, metadata={"lora_adapter_metadata": json.dumps(facts)})
    model = loaded(eps_folder, LoraSpec(path=str(path)))
    for name, factor in ((LAYERS["unet"], 2.0), (CONVOLUTION, 3.0)):
        down, up = change["unet", name]
        before = weight(eps_model, "unet", name)
        expected = before + factor * (up.flatten(1) @ down.flatten(1)).view(before.shape)
        torch.testing.assert_close(weight(model, "unet", name), expected, rtol=1e-5, atol=1e-5)


def test_the_fingerprint_tells_weights_and_scale(
    change: Any, tmp_path: Path, eps_folder: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(peft(change), path)

    def fingerprint(*loras: LoraSpec) -> str:
        return find_checkpoint(ModelSpec(path=str(eps_folder), lora=loras)).fingerprint

    one, half = LoraSpec(path=str(path)), LoraSpec(path=str(path), scale=0.5)
    assert len({fingerprint(), fingerprint(one), fingerprint(half), fingerprint(one, half)}) == 4
    (tmp_path / "copy.safetensors").write_bytes(path.read_bytes())
    assert fingerprint(LoraSpec(path=str(tmp_path / "copy.safetensors"))) == fingerprint(one)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({}, "found no LoRA weights"),
        (
            {"unet.nowhere.lora_A.weight": (3, 4), "unet.nowhere.lora_B.weight": (4, 3)},
            "unet.nowhere, which this model lacks",
        ),
        ({"unet.conv_in.lora_A.weight": (3, 4)}, "found unet.conv_in.lora_A.weight alone"),
        (
            {"unet.conv_in.lora_A.weight": (3, 4), "unet.conv_in.lora_B.weight": (4, 3)},
            "found (3, 4) and (4, 3) for weights of",
        ),
        ({"unet.conv_in.lora_A.dora_scale": (3,)}, "dora_scale (DoRA)"),
    ],
)
def test_weights_that_fit_no_layer_are_refused(
    tensors: dict[str, tuple[int, ...]], expected: str, tmp_path: Path, eps_folder: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(ManifestError) as caught:
        loaded(eps_folder, LoraSpec(path=str(path)))
    assert str(caught.value).startswith(f"model.lora: {path}: ")
    assert expected in str(caught.value)


def test_a_file_that_is_not_there_or_no_safetensors_is_said(
    tmp_path: Path, eps_folder: Path
) -> None:
    missing = LoraSpec(path=str(tmp_path / "none.safetensors"))
    with pytest.raises(ManifestError, match=r"none\.safetensors: cannot be read"):
        _ = find_checkpoint(ModelSpec(path=str(eps_folder), lora=(missing,))).fingerprint
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(ManifestError, match=r"bad\.safetensors: cannot be read"):
        loaded(eps_folder, LoraSpec(path=str(tmp_path / "bad.safetensors")))
