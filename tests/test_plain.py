"""Plain sampling equals the stock pipelines on the same weights and seeds, and does not depend on batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor

from stylebatch.diffusion.noise import draw
from stylebatch.methods.plain import img2img, inpaint, text2img
from stylebatch.methods.prompted import embedded
from stylebatch.models.stable_diffusion import StableDiffusion, load_model
from tests.checkpoints import with_schedule

PROMPTS = ["a cat", "two houses in the rain"]
SEEDS = [3, 8]
TOLERANCE = 1e-4


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
        num_inference_steps=7,
        guidance_scale=guidance,
        generator=generators(),
        output_type="latent",
    ).images
    prompts = embedded(
        model, PROMPTS, negative=None if negative is None else [negative], guidance=guidance
    )
    side = 64 // model.latent_factor
    found = text2img(model, prompts, draw(SEEDS, (4, side, side)), steps=7)
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
        num_inference_steps=7,
        guidance_scale=6.0,
        generator=generators(),
        output_type="latent",
    ).images
    found = img2img(
        model,
        embedded(model, PROMPTS, guidance=6.0),
        clean,
        draw(SEEDS, (4, 8, 8)),
        steps=7,
        strength=strength,
    )
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
        num_inference_steps=7,
        guidance_scale=6.0,
        generator=generators(),
        output_type="latent",
    ).images
    found = inpaint(
        model,
        embedded(model, PROMPTS, guidance=6.0),
        clean,
        draw(SEEDS, (4, 8, 8)),
        half_mask(side),
        steps=7,
        strength=strength,
    )
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
    prompts = embedded(
        model, PROMPTS, negative=None if negative is None else [negative], guidance=6.0
    )
    found = text2img(model, prompts, draw(SEEDS, (4, 16, 8)), steps=5)
    assert float((found - expected).abs().max()) <= TOLERANCE


def test_batches_change_nothing(eps_model: StableDiffusion) -> None:
    noise = draw(range(5), (4, 8, 8))
    assert torch.equal(draw([3], (4, 8, 8)), noise[3:4])
    prompts = embedded(eps_model, [f"{i} cats" for i in range(5)], guidance=4.0)
    whole = text2img(eps_model, prompts, noise, steps=3)
    split = text2img(eps_model, prompts, noise, steps=3, batch=2)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)


def test_strength_zero_changes_nothing(eps_model: StableDiffusion) -> None:
    clean, noise = draw([1], (4, 8, 8)), draw([2], (4, 8, 8))
    prompts = embedded(eps_model, ["a cat"], guidance=4.0)
    assert torch.equal(img2img(eps_model, prompts, clean, noise, steps=5, strength=0.0), clean)
    with pytest.raises(ValueError, match=r"strength: found 1\.5; accepted: 0"):
        img2img(eps_model, prompts, clean, noise, steps=5, strength=1.5)


def test_guidance_below_one_and_texts_that_do_not_fit_are_refused(
    eps_model: StableDiffusion,
) -> None:
    with pytest.raises(ValueError, match=r"guidance: found 0\.5; accepted: 1"):
        embedded(eps_model, ["a"], guidance=0.5)
    with pytest.raises(ValueError, match="negative: found 2 texts for 3 prompts"):
        embedded(eps_model, ["a", "b", "c"], negative=["d", "e"], guidance=2.0)
