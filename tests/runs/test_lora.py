"""LoRA weights: every layout means the same change of weights, and what fits no layer is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from stylebatch.cli import main
from stylebatch.errors import ManifestError
from stylebatch.methods.builtin import Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import LoraSpec, ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.runs import small_manifest

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


def as_files(pipeline: Any, folder: Path, seed: int) -> tuple[LoraSpec, ...]:
    """Two sets of weights on layers in common, in the layouts of peft and kohya, for the UNet and each text encoder."""
    draw = torch.Generator().manual_seed(seed)
    tensors: list[dict[str, Tensor]] = [{}, {}]
    for part in ("unet", "text_encoder", "text_encoder_2"):
        network = getattr(pipeline, part, None)
        layers = {} if network is None else dict(network.named_modules())
        ends = ("attn1.to_q", "attn2.to_v", "self_attn.q_proj", "self_attn.out_proj")
        chosen = [name for name in layers if name.endswith(ends)][::3]
        for name in chosen:
            out, wide = layers[name].weight.shape
            inner = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
            stem = {"unet": "lora_unet", "text_encoder": "lora_te"}.get(part, "lora_te2")
            if part == "text_encoder" and hasattr(pipeline, "text_encoder_2"):
                stem = "lora_te1"
            for place, keys in enumerate(
                (
                    (f"{part}.{inner}.lora_A.weight", f"{part}.{inner}.lora_B.weight"),
                    (
                        f"{stem}_{inner.replace('.', '_')}.lora_down.weight",
                        f"{stem}_{inner.replace('.', '_')}.lora_up.weight",
                    ),
                )
            ):
                for key, shape in zip(keys, ((RANK, wide), (out, RANK)), strict=True):
                    tensors[place][key] = torch.randn(shape, generator=draw) / 4
            tensors[1][f"{stem}_{inner.replace('.', '_')}.alpha"] = torch.tensor(1.5)
    found = []
    for state, name, scale in zip(tensors, ("one", "two"), (0.7, -0.4), strict=True):
        save_file(state, folder / f"{name}.safetensors")
        found.append(LoraSpec(path=str(folder / f"{name}.safetensors"), scale=scale))
    return tuple(found)


# peft means that two at once may be a mistake
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@pytest.mark.parametrize("name", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_two_files_with_weights_are_the_stock_pipeline(
    name: str, twins: Callable[[str], Path], tmp_path: Path
) -> None:
    """As diffusers loads them with peft, in either order; each of the two matters."""
    cls: Any = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    options = {"add_watermarker": False} if name == "sdxl" else {"safety_checker": None}
    stock = cls.from_pretrained(twins(name), **options)
    stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    loras = as_files(stock, tmp_path, 1)
    for lora in loras:
        stock.load_lora_weights(str(tmp_path), weight_name=Path(lora.path).name, adapter_name=Path(lora.path).stem)  # fmt: skip
    stock.set_adapters(["one", "two"], [lora.scale for lora in loras])
    seeds, prompts = [3, 8], ["a cat", "two houses in the rain"]
    expected = stock(
        prompts, height=64, width=64, num_inference_steps=2, guidance_scale=5.0, output_type="latent",
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images  # fmt: skip
    asked = Samples(tuple(prompts), (None, None), tuple(seeds), (4, 8, 8))

    def made(*given: LoraSpec) -> Tensor:
        return Text2Img(steps=2, guidance=5.0).render(loaded(twins(name), *given), asked)

    found = made(*loras)
    assert float((found - expected).abs().max()) <= 1e-4
    assert float((found - made(*reversed(loras))).abs().max()) <= 1e-5
    assert float((found - made(loras[0])).abs().max()) > 1e-2


def test_halves_of_float16_weights_add_up_in_any_order(
    change: Any, tmp_path: Path, eps_folder: Path
) -> None:
    """Rounded once: one by one, small changes would be lost in another way in another order."""
    specs = []
    for place, scale in enumerate((0.001, 3.0, -0.0013)):
        save_file(peft(change), tmp_path / f"{place}.safetensors")
        specs.append(LoraSpec(path=str(tmp_path / f"{place}.safetensors"), scale=scale))

    def unet(*loras: LoraSpec) -> dict[str, Tensor]:
        spec = ModelSpec(path=str(eps_folder), lora=loras, dtype="bfloat16")
        found: dict[str, Tensor] = load_model(spec, device="cpu").unet.state_dict()  # type: ignore[attr-defined]
        return found

    first, second = unet(*specs), unet(*reversed(specs))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


def test_the_same_weights_twice_are_told(change: Any, tmp_path: Path, capsys: Any) -> None:
    manifest = small_manifest(tmp_path, contents=1, styles=1)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.ones(2, 96), f"{layer}.lora_B.weight": torch.ones(96, 2)}  # fmt: skip
    for name in ("a", "copy"):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    given = [{"path": "a.safetensors", "scale": 0.5}, {"path": "copy.safetensors"}]
    plain = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(plain | {"model": {"name": "tiny", "lora": given}}))
    assert main(["plan", str(manifest)]) == 0
    told = capsys.readouterr().out
    assert f"{tmp_path}/a.safetensors and {tmp_path}/copy.safetensors: found the same weights 2 times" in told  # fmt: skip
    assert "count with the sum of their scales, 1.5" in told
    manifest.write_text(json.dumps(plain | {"model": {"name": "tiny", "lora": given[:1]}}))
    assert main(["plan", str(manifest)]) == 0
    assert "model.lora" not in capsys.readouterr().out
    # what is added with nothing in front of it
    without = [given[0], {"path": "copy.safetensors", "scale": 0}]
    manifest.write_text(json.dumps(plain | {"model": {"name": "tiny", "lora": without}}))
    assert main(["plan", str(manifest)]) == 0
    told = capsys.readouterr().out
    assert f"model.lora: {tmp_path}/copy.safetensors: scale 0 has no effect" in told
    manifest.write_text(json.dumps(plain | {"model": {"name": "tiny", "lora": given[:1]}}))
    # as a person checks it
    path = tmp_path / "run.yaml"
    assert main(["doctor", str(path), "--no-measure"]) == 0
    assert "tiny, LoRA a.safetensors (0.5)" in capsys.readouterr().out
    elsewhere = {key.replace(layer, f"{layer}x"): x for key, x in tensors.items()}
    save_file(elsewhere, tmp_path / "a.safetensors")
    assert main(["doctor", str(path), "--no-measure"]) == 2
    assert "which this model lacks" in capsys.readouterr().out
