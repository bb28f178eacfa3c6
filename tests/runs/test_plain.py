"""Plain sampling equals the stock pipelines on the same weights and seeds, and does not depend on batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)
from pydantic import ValidationError
from torch import Tensor

from stylebatch.diffusion.noise import draw
from stylebatch.methods.builtin import Img2Img, Inpaint, Text2Img
from stylebatch.methods.plain.options import WindowOptions
from stylebatch.methods.prompted import embedded
from stylebatch.methods.samples import Samples
from stylebatch.models.loading import load_model
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.checkpoints import with_schedule

PROMPTS = ["a cat", "two houses in the rain"]
SEEDS = [3, 8]
TOLERANCE = 1e-4


STOCK = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


def samples(
    model: StableDiffusion, *, height: int = 8, width: int = 8, negative: str | None = None
) -> Samples:
    """The two samples of this file, on latents of `height` x `width`."""
    return Samples(
        tuple(PROMPTS), (negative, negative), tuple(SEEDS), (model.latent_channels, height, width)
    )


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def stock(cls: Any, model: StableDiffusion, folder: Path) -> Any:
    """The stock pipeline around the very networks of `model`."""
    pipeline = cls(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=DDIMScheduler.from_pretrained(str(folder), subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=["sd1", "sd2_v", "trailing", "linspace"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StableDiffusion, Path]:
    """(model, folder): epsilon, v prediction, and other spacings that end at the clean level."""
    source = request.getfixturevalue("v_folder" if request.param == "sd2_v" else "eps_folder")
    settings: dict[str, object] = {"clip_sample": False}
    if request.param in ("trailing", "linspace"):
        settings |= {"timestep_spacing": request.param, "set_alpha_to_one": True}
    folder = with_schedule(source, tmp_path_factory.mktemp(request.param) / "model", **settings)
    return load_model(folder, device="cpu"), folder


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, None), (6.0, None), (6.0, "blurred")])
def test_text2img_is_the_stock_pipeline(
    loaded: tuple[StableDiffusion, Path], guidance: float, negative: str | None
) -> None:
    model, folder = loaded
    expected = stock(StableDiffusionPipeline, model, folder)(
        PROMPTS,
        negative_prompt=None if negative is None else [negative] * 2,
        height=64,
        width=64,
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=generators(),
        output_type="latent",
    ).images
    side = 64 // model.latent_factor
    asked = samples(model, height=side, width=side, negative=negative)
    found = Text2Img(steps=5, guidance=guidance).render(model, asked)
    assert float((found - expected).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_img2img_is_the_stock_pipeline(
    loaded: tuple[StableDiffusion, Path], strength: float
) -> None:
    model, folder = loaded
    clean = draw([20, 21], (4, 8, 8))
    expected = stock(StableDiffusionImg2ImgPipeline, model, folder)(
        PROMPTS,
        image=clean,
        strength=strength,
        num_inference_steps=5,
        guidance_scale=6.0,
        generator=generators(),
        output_type="latent",
    ).images
    method = Img2Img(steps=5, strength=strength, guidance=6.0)
    found = method.from_latents(model, samples(model), clean)
    assert float((found - expected).abs().max()) <= TOLERANCE


def half_mask(side: int) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., : side // 2] = 1.0
    return mask


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpaint_is_the_stock_pipeline(
    loaded: tuple[StableDiffusion, Path], strength: float
) -> None:
    model, folder = loaded
    side = 8 * model.latent_factor
    clean = draw([20, 21], (4, 8, 8))
    expected = stock(StableDiffusionInpaintPipeline, model, folder)(
        PROMPTS,
        image=clean,
        mask_image=half_mask(side),
        masked_image_latents=clean,  # read by 9-channel networks alone; spares encoding
        height=side,
        width=side,
        strength=strength,
        num_inference_steps=5,
        guidance_scale=6.0,
        generator=generators(),
        output_type="latent",
    ).images
    asked = replace(samples(model), images={"mask": half_mask(side).expand(2, -1, -1, -1)})
    method = Inpaint(steps=5, strength=strength, guidance=6.0)
    found = method.from_latents(model, asked, clean)
    assert float((found - expected).abs().max()) <= TOLERANCE
    assert torch.equal(found[..., 4:], clean[..., 4:])


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("negative", [None, "blurred"])
def test_xl_text2img_is_the_stock_pipeline(
    golden: Path, tmp_path: Path, zeros: bool, negative: str | None
) -> None:
    source = golden / "stylealigned_sdxl" / "model"
    folder = with_schedule(source, tmp_path / "model", steps_offset=1)
    (folder / "model_index.json").unlink()
    index = json.loads((source / "model_index.json").read_text("utf-8"))
    index["force_zeros_for_empty_prompt"] = zeros
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    pipeline = StableDiffusionXLPipeline.from_pretrained(str(folder), add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS,
        negative_prompt=None if negative is None else [negative] * 2,
        height=128,
        width=64,
        num_inference_steps=5,
        guidance_scale=6.0,
        generator=generators(),
        output_type="latent",
    ).images
    model = load_model(folder, device="cpu")
    asked = samples(model, height=16, width=8, negative=negative)
    found = Text2Img(steps=5, guidance=6.0).render(model, asked)
    assert float((found - expected).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("scheduler", list(STOCK))
@pytest.mark.parametrize("strength", [None, 0.6])
def test_schedulers_are_those_of_the_stock_pipeline(
    loaded: tuple[StableDiffusion, Path], scheduler: str, strength: float | None
) -> None:
    model, folder = loaded
    cls = StableDiffusionPipeline if strength is None else StableDiffusionImg2ImgPipeline
    pipeline = stock(cls, model, folder)
    config = pipeline.scheduler.config
    pipeline.scheduler = STOCK[scheduler].from_config(
        config, timestep_spacing=config.timestep_spacing
    )
    clean = draw([20, 21], (4, 8, 8))
    side = 8 * model.latent_factor
    place = {"height": side, "width": side} if strength is None else {"image": clean}
    expected = pipeline(
        PROMPTS,
        **place,
        **({} if strength is None else {"strength": strength}),
        num_inference_steps=5,
        guidance_scale=6.0,
        generator=generators(),
        output_type="latent",
    ).images
    if strength is None:
        method = Text2Img(steps=5, guidance=6.0, scheduler=scheduler)
        found = method.render(model, samples(model))
    else:
        changed = Img2Img(steps=5, guidance=6.0, scheduler=scheduler, strength=strength)
        found = changed.from_latents(model, samples(model), clean)
    assert float((found - expected).abs().max()) <= TOLERANCE * max(
        1.0, float(expected.abs().max())
    )


@pytest.mark.parametrize("scheduler", ["dpmpp", "euler_ancestral"])
def test_inpainting_by_another_scheduler_keeps_what_the_mask_leaves(
    eps_model: StableDiffusion, scheduler: str
) -> None:
    clean = draw([20, 21], (4, 8, 8))
    mask = half_mask(8 * eps_model.latent_factor).expand(2, -1, -1, -1)
    asked = replace(samples(eps_model), images={"mask": mask})
    found = Inpaint(steps=4, guidance=4.0, scheduler=scheduler).from_latents(
        eps_model, asked, clean
    )
    assert torch.equal(found[..., 4:], clean[..., 4:])
    assert float((found - clean)[..., :4].abs().mean()) > 0.1


@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral"])
def test_batches_change_nothing(eps_model: StableDiffusion, scheduler: str) -> None:
    asked = Samples(
        tuple(f"{i} cats" for i in range(5)),
        (None, "dogs", None, "", "mice"),
        tuple(range(5)),
        (4, 8, 8),
    )
    assert torch.equal(asked.select([3]).noise(), asked.noise()[3:4])
    method = Text2Img(steps=3, guidance=4.0, scheduler=scheduler)
    whole = method.render(eps_model, asked, batch=10)
    split = method.render(eps_model, asked, batch=4)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)
    alone = method.render(eps_model, asked.select([1]))
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-4, atol=1e-4)


def test_one_window_is_no_window_and_more_are_seamless(eps_model: StableDiffusion) -> None:
    options = {"steps": 3, "guidance": 4.0}
    plain = Text2Img(**options).render(eps_model, samples(eps_model))
    one = Text2Img(**options, windows=WindowOptions(size=8, stride=4))
    torch.testing.assert_close(one.render(eps_model, samples(eps_model)), plain)
    wide = one.render(eps_model, samples(eps_model, width=24))
    assert wide.shape == (2, 4, 8, 24)
    few = one.render(eps_model, samples(eps_model, width=24), batch=4)
    torch.testing.assert_close(few, wide, rtol=1e-4, atol=1e-4)


def test_strength_zero_changes_nothing(eps_model: StableDiffusion) -> None:
    clean = draw([1, 2], (4, 8, 8))
    method = Img2Img(steps=5, strength=0.0)
    assert torch.equal(method.from_latents(eps_model, samples(eps_model), clean), clean)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Img2Img(steps=5, strength=1.5)


def test_guidance_below_one_and_texts_that_do_not_fit_are_refused(
    eps_model: StableDiffusion,
) -> None:
    with pytest.raises(ValueError, match=r"guidance: found 0\.5; accepted: 1"):
        embedded(eps_model, ["a"], guidance=0.5)
    with pytest.raises(ValueError, match="negative: found 2 texts for 3 prompts"):
        embedded(eps_model, ["a", "b", "c"], negative=["d", "e"], guidance=2.0)
