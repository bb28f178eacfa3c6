"""Published families load, encode, predict and render as the stock pipelines do; on twins with narrow layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipelines.proofs.published import PUBLISHED, narrowed
from stylebatch.diffusion.attention import attend
from stylebatch.diffusion.noise import draw
from stylebatch.methods.builtin import Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Recorder
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.model_section import MODEL_IDS
from stylebatch.models.unet.published import names_of
from stylebatch.models.unet.stable_diffusion import StableDiffusion, timestep_for
from tests.support.checkpoints import DIVISORS

FAMILIES = ("sd15", "sd21-base", "sd21", "sdxl")
PROMPTS = ["a cat", "two houses in the rain!"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, twin_model: Callable[[str], StableDiffusion]) -> StableDiffusion:
    return twin_model(family)


@pytest.fixture(scope="module")
def stock(family: str, twins: Callable[[str], Path]) -> Any:
    """The stock pipeline, loaded from the same folder by its own loader."""
    if family == "sdxl":
        pipeline = StableDiffusionXLPipeline.from_pretrained(twins(family), add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(twins(family))
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_on_meta(part: str, config: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        if part == "unet":
            return UNet2DConditionModel(**config)  # type: ignore[no-any-return]
        if part == "vae":
            return AutoencoderKL(**config)  # type: ignore[no-any-return]
        own = {key: x for key, x in config.items() if key not in ("architectures", "model_type")}
        projects = "Projection" in config["architectures"][0]
        return (CLIPTextModelWithProjection if projects else CLIPTextModel)(CLIPTextConfig(**own))


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_published_configs_give_the_published_parameters(name: str) -> None:
    published = PUBLISHED[name]
    for part, count in published.parameters.items():
        network = build_on_meta(part, dict(published.configs[part]))
        assert sum(weight.numel() for weight in network.parameters()) == count, part


def test_every_known_name_has_published_configs() -> None:
    assert set(PUBLISHED) == set(MODEL_IDS)
    rounded = {"sd14": 860, "sd15": 860, "sd21-base": 865, "sd21": 865, "sdxl": 2600}
    for name, millions in rounded.items():  # arXiv 2307.01952, table 1
        assert PUBLISHED[name].parameters["unet"] / 1e6 == pytest.approx(millions, rel=0.013)
    xl = PUBLISHED["sdxl"].parameters
    assert (xl["text_encoder"] + xl["text_encoder_2"]) / 1e6 == pytest.approx(817, abs=1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_twins_keep_all_but_the_widths(name: str) -> None:
    published, narrow = PUBLISHED[name].configs, narrowed(PUBLISHED[name], DIVISORS[name])
    assert narrow["unet"]["attention_head_dim"] == published["unet"]["attention_head_dim"]
    assert narrow["unet"]["block_out_channels"][0] == 320 // DIVISORS[name]
    text = sum(narrow[part]["hidden_size"] for part in narrow if part.startswith("text"))
    assert narrow["unet"]["cross_attention_dim"] == text
    if name == "sdxl":
        pooled = narrow["text_encoder_2"]["projection_dim"]
        sizes = 6 * narrow["unet"]["addition_time_embed_dim"]
        assert narrow["unet"]["projection_class_embeddings_input_dim"] == pooled + sizes
    unchanged = {"unet": ("down_block_types", "transformer_layers_per_block", "sample_size")}
    for key in unchanged["unet"]:
        assert narrow["unet"][key] == published["unet"][key]
    assert narrow["scheduler"] == published["scheduler"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_recognised(name: str) -> None:
    configs = PUBLISHED[name].configs
    found = names_of(configs["unet"], configs["scheduler"]["prediction_type"])
    assert name in found
    assert set(found) <= ({"sd14", "sd15"} if name in ("sd14", "sd15") else {name})
    narrow = narrowed(PUBLISHED[name], DIVISORS[name])["unet"]
    assert names_of(narrow, configs["scheduler"]["prediction_type"]) == ()


def test_configs_decide_sites_size_and_prediction(
    family: str, model: StableDiffusion, twins: Callable[[str], Path]
) -> None:
    checkpoint, published = Checkpoint(twins(family)), PUBLISHED[family]
    assert model.sites == checkpoint.sites
    assert model.sites == (tuple(range(6)) if family == "sdxl" else tuple(range(3, 12)))
    assert checkpoint.family.sizes.native == published.native_size
    assert checkpoint.family.about().layout == {"sd15": "1.x", "sdxl": "xl"}.get(family, "2.x")
    assert model.schedule.prediction_type == published.configs["scheduler"]["prediction_type"]
    assert model.schedule.offset == 1


def test_padding_is_that_of_the_family(family: str, model: StableDiffusion) -> None:
    """1.x pads with the end of text, 2.x and XL's second encoder with `!`, which is 0."""
    tokenizers = getattr(model, "tokenizers", None) or (model.tokenizer,)
    pads = {"sd15": ["<|endoftext|>"], "sdxl": ["<|endoftext|>", "!"]}.get(family, ["!"])
    assert [tokenizer.pad_token for tokenizer in tokenizers] == pads
    ids = tokenizers[-1](["a"], padding="max_length", max_length=77).input_ids[0]
    assert len(ids) == 77
    assert (ids[-1] == 0) == (pads[-1] == "!")


def test_prompts_are_encoded_as_by_the_stock_pipeline(
    family: str, model: StableDiffusion, stock: Any
) -> None:
    found = model.embed(PROMPTS)
    encoded = stock.encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    torch.testing.assert_close(found.hidden, encoded[0], rtol=1e-5, atol=1e-5)
    if family == "sdxl":
        assert found.pooled is not None
        torch.testing.assert_close(found.pooled, encoded[2], rtol=1e-5, atol=1e-5)
    else:
        assert found.pooled is None


def test_noise_is_predicted_as_by_the_stock_network(
    family: str, model: StableDiffusion, stock: Any
) -> None:
    cond = model.embed(PROMPTS)
    # sizes that were copied to the device for one canvas serve that canvas alone
    for width in (16, 24, 16):
        x, added = draw([1, 2], (4, 16, width)), None
        if family == "sdxl":
            sizes = torch.tensor([[128.0, 8 * width, 0, 0, 128, 8 * width]]).expand(2, -1)
            added = {"text_embeds": cond.pooled, "time_ids": sizes}
        with torch.inference_mode():
            out = stock.unet(x, 301, cond.hidden, added_cond_kwargs=added).sample
        signal, noise = model.schedule.signal(301), model.schedule.noise(301)
        expected = signal * out + noise * x if family == "sd21" else out
        found = model.predict_noise(x, 301, cond)
        assert float((found - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("t", [301, 300.5])
def test_a_network_takes_a_timestep_that_was_filled_on_the_device(
    model: StableDiffusion, t: float
) -> None:
    assert timestep_for(t, torch.device("cpu")) == t
    filled = timestep_for(t, torch.device("meta"))
    assert isinstance(filled, torch.Tensor)
    given = torch.full(filled.shape, t, dtype=filled.dtype)
    x, cond = draw([1], (4, 8, 8)), model.embed_nothing()
    added = model._added(x, cond)
    with torch.inference_mode():
        one, other = (
            model.unet(x, time, cond.hidden, added_cond_kwargs=added).sample for time in (t, given)
        )
    assert torch.equal(one, other)


def test_text2img_is_the_stock_pipeline(family: str, model: StableDiffusion, stock: Any) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 8)]
    options = {"num_inference_steps": 2, "guidance_scale": 5.0, "generator": generators}
    expected = stock(PROMPTS, height=128, width=64, output_type="latent", **options).images
    asked = Samples(tuple(PROMPTS), (None, None), (3, 8), (4, 16, 8))
    found = Text2Img(steps=2, guidance=5.0).render(model, asked)
    assert float((found - expected).abs().max()) <= TOLERANCE
    with torch.inference_mode():
        decoded = stock.vae.decode(found / stock.vae.config.scaling_factor).sample
    torch.testing.assert_close(model.decode_unclamped(found), decoded, rtol=1e-4, atol=1e-4)


def test_styleid_renders(family: str, model: StableDiffusion) -> None:
    """Two steps, injecting at the sites this network has among StyleID's, or at all of them."""
    paper = tuple(site for site in StyleID().sites if site in model.sites)
    method = StyleID.model_validate(
        {"steps": 2, "sites": list(paper or model.sites), "start": "level"}
    )
    clean = model.encode((draw([1, 2], (3, 64, 64)) / 3).clamp(-1, 1))
    content = method.invert(model, clean[:1], "query")
    style = method.invert(model, clean[1:], "key_value")
    latents = method.stylise(model, content, style)
    assert latents.shape == (1, 4, 8, 8)
    assert bool(latents.isfinite().all())
    assert float((latents - clean[:1]).abs().max()) > 1e-3
    kept = method.stylise(model, content, method.invert(model, clean[:1], "key_value"))
    assert float((kept - latents).abs().max()) > 1e-3


def test_arithmetic_of_sites_is_what_the_network_shows(
    family: str, model: StableDiffusion, twins: Callable[[str], Path]
) -> None:
    recorder = Recorder("key_value", attend)
    with model.editing(recorder, model.sites):
        model.predict_noise(draw([1], (4, 16, 16)), 301, model.embed([""]))
    found = recorder.take()
    shapes = Checkpoint(twins(family)).family.site_shapes(128)
    assert [shape.site for shape in shapes] == list(model.sites)
    assert len(found) == sum(shape.layers for shape in shapes)
    for shape in shapes:
        keys = found[shape.site]["k"]
        assert keys.shape[:3] == (1, shape.heads, shape.side**2)
        assert keys.shape[1] * keys.shape[3] == shape.channels
        assert keys.numel() * shape.layers == shape.elements
    depths = {"sdxl": [10] * 3 + [2] * 3}.get(family, [1] * 9)
    assert [shape.layers for shape in shapes] == depths
