"""Manifests of families other than SD 1.x, from the file to the shards, compared with the stock pipelines and the methods."""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
import yaml
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from stylebatch.cli import main
from stylebatch.data.images import load_picture
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned.algorithm import StyleAligned
from stylebatch.methods.styleid.algorithm import Pairs, StyleID
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.store.verify import verify
from tests.support.images import picture

SIZE = 64
CELLS = (4, SIZE // 8, SIZE // 8)
PROMPTS, SEEDS = ["a cat", "two houses in the rain"], [3, 8]
RANK = 2
LAYERS = {
    "unet": {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "up_blocks.0.attentions.1.transformer_blocks.3.attn2.to_v": "lora_unet_output_blocks_1_1_transformer_blocks_3_attn2_to_v",
        "mid_block.attentions.0.proj_in": "lora_unet_middle_block_1_proj_in",
    },
    "text_encoder": {
        "text_model.encoder.layers.0.self_attn.q_proj": "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "text_model.encoder.layers.1.self_attn.out_proj": "lora_te1_text_model_encoder_layers_1_self_attn_out_proj",
    },
    "text_encoder_2": {
        "text_model.encoder.layers.1.self_attn.v_proj": "lora_te2_text_model_encoder_layers_1_self_attn_v_proj",
        "text_model.encoder.layers.0.self_attn.out_proj": "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
    },
}
"""Layers of SDXL as diffusers and as kohya's trainer name them."""


def write(folder: Path, **sections: Any) -> Path:
    """A manifest; pixels come back exactly."""
    data = {
        "image": {"size": SIZE},
        "engine": {"name": "local", "threads": 1},
        "output": {"path": str(folder / "out"), "image": {"format": "png"}},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(data | sections))
    return path


def rendered(manifest: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Records and pixels of what `stylebatch run` makes of a manifest, in key order."""
    assert main(["run", str(manifest)]) == 0
    output = manifest.parent / "out"
    assert list(verify(output)) == []
    tars = sorted(glob.glob(f"{output}/data/*.tar"))
    return [
        (json.loads(one["json"]), np.asarray(Image.open(io.BytesIO(one["png"]))).astype(int))
        for one in webdataset.WebDataset(tars, shardshuffle=False)
    ]


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_styleid_by_manifest_is_the_method(
    name: str, tmp_path: Path, twins: Callable[[str], Path], twin_model: Callable[..., Any]
) -> None:
    for side in ("contents", "styles"):
        (tmp_path / side).mkdir()
        for i in range(2):
            picture(10 * len(side) + i, SIZE, SIZE).save(tmp_path / side / f"{i}.png")
    found = rendered(
        write(
            tmp_path,
            contents={"path": "contents"},
            styles={"path": "styles"},
            method={"name": "styleid", "steps": 2},
            model={"path": str(twins(name))},
        )
    )
    sites = tuple(range(6)) if name == "sdxl" else tuple(range(6, 12))
    assert [record["sites"] for record, _ in found] == [list(sites)] * 4
    model: StableDiffusion = twin_model(name)
    assert model.schedule.prediction_type == ("epsilon" if name == "sdxl" else "v_prediction")
    method = StyleID(steps=2, sites=sites)
    latents = {
        side: model.encode(
            to_tensor([load_picture(tmp_path / side / f"{i}.png", SIZE).pixels for i in range(2)])
        )
        for side in ("contents", "styles")
    }
    contents = method.invert(model, latents["contents"], "query")
    styles = method.invert(model, latents["styles"], "key_value")
    pairs = Pairs.product(2, 2)
    pixels = to_pixels(model.decode(method.stylise(model, contents, styles, pairs)))
    expected = {
        (f"{c}.png", f"{s}.png"): one
        for c, s, one in zip(pairs.content, pairs.style, pixels, strict=True)
    }
    assert len({one.tobytes() for one in pixels}) == 4
    for record, image in found:
        wanted = expected[record["content_id"], record["style_id"]]
        assert np.abs(image - wanted).max() <= 1


def test_stylealigned_of_sdxl_by_manifest_is_the_method(
    tmp_path: Path, twins: Callable[[str], Path], twin_model: Callable[..., Any]
) -> None:
    (tmp_path / "rows.csv").write_text(
        "prompt,style,seed\na cat,ink,3\ntwo houses in the rain,ink,8\n"
    )
    method = {"name": "stylealigned", "steps": 2, "guidance": 5}
    found = rendered(
        write(
            tmp_path,
            prompts={"path": "rows.csv"},
            method=method,
            model={"path": str(twins("sdxl"))},
        )
    )
    model: StableDiffusion = twin_model("sdxl")
    first, second = (Samples((PROMPTS[i],), (None,), (SEEDS[i],), CELLS) for i in range(2))
    aligned = StyleAligned(steps=2, guidance=5.0).render(model, second, beside=first)
    expected = to_pixels(model.decode(torch.cat([aligned.reference, aligned.samples])))
    for (record, image), wanted, prompt in zip(found, expected, PROMPTS, strict=True):
        assert record["prompt"] == prompt
        assert np.abs(image - wanted).max() <= 1
    alone = StyleAligned(steps=2, guidance=5.0, share_attention=False, share_group_norm=False)
    plain = alone.render(model, second, beside=first).samples
    assert float((plain - aligned.samples).abs().max()) > 1e-2


def lora(pipeline: Any, layout: str) -> tuple[dict[str, Tensor], dict[tuple[str, str], Tensor]]:
    """A file's tensors in a layout, and the change of weights that they mean by part and layer."""
    draw = torch.Generator().manual_seed(1)
    tensors, changes = {}, {}
    for part, layers in LAYERS.items():
        for name, kohya in layers.items():
            weight = layer_of(pipeline, part, name).weight
            down = torch.randn(RANK, weight.shape[1], generator=draw) / 2
            up = torch.randn(weight.shape[0], RANK, generator=draw) / 2
            stem = kohya if layout == "kohya" else f"{part}.{name}"
            marks = ("lora_down", "lora_up") if layout == "kohya" else ("lora_A", "lora_B")
            for mark, tensor in zip(marks, (down, up), strict=True):
                tensors[f"{stem}.{mark}.weight"] = tensor
            if layout == "kohya":
                tensors[f"{stem}.alpha"] = torch.tensor(1.0)
            changes[part, name] = up @ down / (RANK if layout == "kohya" else 1)
    return tensors, changes


def layer_of(pipeline: Any, part: str, name: str) -> torch.nn.Module:
    network: torch.nn.Module = getattr(pipeline, part)
    known = dict(network.named_modules())
    return known.get(name) or known[name.removeprefix("text_model.")]


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_text2img_of_sdxl_with_lora_by_manifest_is_the_stock_pipeline(
    layout: str, tmp_path: Path, twins: Callable[[str], Path]
) -> None:
    """Its own loader and loop; the LoRA's change is added to its UNet and both text encoders here."""
    stock = StableDiffusionXLPipeline.from_pretrained(twins("sdxl"), add_watermarker=False)
    stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)

    def pictures() -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        options = {"num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "pil"}
        made = stock(PROMPTS, height=SIZE, width=SIZE, generator=generators, **options).images
        return np.stack([np.asarray(one) for one in made]).astype(int)

    tensors, changes = lora(stock, layout)
    save_file(tensors, tmp_path / "look.safetensors")
    rows = [f"{p},{s}" for p, s in zip(PROMPTS, SEEDS, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["prompt,seed", *rows]))
    found = rendered(
        write(
            tmp_path,
            prompts={"path": "rows.csv"},
            method={"name": "text2img", "steps": 2, "guidance": 5},
            model={
                "path": str(twins("sdxl")),
                "lora": [{"path": "look.safetensors", "scale": 0.8}],
            },
        )
    )
    images = np.stack([image for _, image in found])
    before = {one: layer_of(stock, *one).weight.detach().clone() for one in changes}
    assert np.abs(images - pictures()).max() > 8  # without the LoRA
    with torch.no_grad():
        for one, change in changes.items():
            layer_of(stock, *one).weight.add_(0.8 * change)
    expected = pictures()
    assert np.abs(images - expected).max() <= 1
    for one in changes:  # each of them matters
        with torch.no_grad():
            weight = layer_of(stock, *one).weight
            now = weight.clone()
            weight.copy_(before[one])
            assert np.abs(images - pictures()).max() > 1, one
            weight.copy_(now)
