"""Loading checkpoints: what the configs decide, shapes, and errors for folders that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from stylebatch.diffusion.attention import attend
from stylebatch.errors import ManifestError
from stylebatch.methods.styleid.features import Recorder
from stylebatch.models.denoiser import Conditioning
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.scheduler_config import schedule_from_config
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.models.unet.unet_loading import load_unet


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_schedule_of_a_config_is_the_one_diffusers_builds(kind: str) -> None:
    config = {
        "num_train_timesteps": 500,
        "beta_start": 0.001,
        "beta_end": 0.015,
        "beta_schedule": kind,
    }
    schedule = schedule_from_config(config)
    assert schedule.num_train_timesteps == 500
    assert schedule.alpha_bar.dtype == torch.float64
    torch.testing.assert_close(
        schedule.alpha_bar, DDIMScheduler(**config).alphas_cumprod.double(), rtol=2e-5, atol=0.0
    )


def test_schedule_defaults_are_those_of_diffusers() -> None:
    schedule = schedule_from_config({})
    torch.testing.assert_close(
        schedule.alpha_bar, DDIMScheduler().alphas_cumprod.double(), rtol=2e-5, atol=0.0
    )
    assert schedule.prediction_type == "epsilon"


def test_trained_betas_take_precedence() -> None:
    betas = [0.1, 0.2, 0.3]
    schedule = schedule_from_config({"trained_betas": betas, "beta_schedule": "anything"})
    assert schedule.alpha_bar.tolist() == pytest.approx([0.9, 0.72, 0.504])


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (
            {"rescale_betas_zero_snr": True},
            r"rescale_betas_zero_snr: found true; accepted: false",
        ),
        (
            {"beta_schedule": "squaredcos_cap_v2"},
            r"beta_schedule: found 'squaredcos_cap_v2'; accepted: linear, scaled_linear",
        ),
        (
            {"prediction_type": "flow"},
            r"prediction_type: found 'flow'; accepted: epsilon, v_prediction, sample",
        ),
    ],
)
def test_schedules_that_are_not_understood_are_refused(config: dict[str, Any], match: str) -> None:
    with pytest.raises(ManifestError, match=match) as caught:
        schedule_from_config(config)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("fixture", "misleading", "expected"),
    [
        ("eps_folder", "stable-diffusion-2-1-v", "epsilon"),
        ("v_folder", "stable-diffusion-v1-5", "v_prediction"),
    ],
)
def test_prediction_type_comes_from_the_config_and_not_from_a_name(
    request: pytest.FixtureRequest,
    linked: Callable[..., Path],
    fixture: str,
    misleading: str,
    expected: str,
) -> None:
    folder = linked(request.getfixturevalue(fixture), misleading)
    assert load_model(str(folder), device="cpu").schedule.prediction_type == expected


def test_v_prediction_is_converted_at_the_level_of_the_latent(v_model: StableDiffusion) -> None:
    x, cond = rand(2, 4, 8, 8), v_model.embed([""])
    with torch.inference_mode():
        v = v_model.unet(x, 301, encoder_hidden_states=cond.expand(2)).sample
    for level in (301, 281):
        expected = v_model.schedule.signal(level) * v + v_model.schedule.noise(level) * x
        torch.testing.assert_close(
            v_model.predict_noise(x, 301, cond, level=level), expected, rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(
        v_model.predict_noise(x, 301, cond), v_model.predict_noise(x, 301, cond, level=301)
    )
    assert not torch.allclose(v_model.predict_noise(x, 301, cond), v, atol=1e-2)


def test_epsilon_prediction_is_the_network_output(eps_model: StableDiffusion) -> None:
    x, cond = rand(2, 4, 8, 8), eps_model.embed([""])
    with torch.inference_mode():
        eps = eps_model.unet(x, 301, encoder_hidden_states=cond.expand(2)).sample
    torch.testing.assert_close(
        eps_model.predict_noise(x, 301, cond, level=5), eps, rtol=1e-5, atol=1e-5
    )


def test_a_sample_is_predicted_alike_in_any_batch(model: StableDiffusion) -> None:
    x, cond = rand(3, 4, 8, 8), model.embed([""])
    together = model.predict_noise(x, 301, cond)
    alone = torch.cat([model.predict_noise(part, 301, cond) for part in x.split(1)])
    assert float((together - alone).norm() / alone.norm()) < 1e-5


def test_encode_and_decode_shapes_and_ranges(model: StableDiffusion) -> None:
    images = (rand(2, 3, 64, 128) * 0.5).clamp(-1, 1)
    latents = model.encode(images)
    assert latents.shape == (2, 4, 8, 16)
    assert latents.dtype == torch.float32
    assert model.latent_factor == 8
    back = model.decode(latents * 5)
    assert back.shape == images.shape
    assert float(back.abs().max()) <= 1.0
    torch.testing.assert_close(back, model.decode_unclamped(latents * 5).clamp(-1, 1))


def test_encode_is_the_scaled_mode_and_draws_no_noise(eps_model: StableDiffusion) -> None:
    images = (rand(1, 3, 64, 64) * 0.5).clamp(-1, 1)
    with torch.inference_mode():
        mode = eps_model.vae.encode(images).latent_dist.mean
    latents = eps_model.encode(images)
    torch.testing.assert_close(
        latents, mode * eps_model.vae.config.scaling_factor, rtol=1e-5, atol=1e-6
    )
    assert torch.equal(eps_model.encode(images), latents)
    channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(eps_model.encode(channels_last), latents)


def test_decode_undoes_the_scaling(eps_model: StableDiffusion) -> None:
    latents = rand(1, 4, 8, 8)
    with torch.inference_mode():
        expected = eps_model.vae.decode(latents / eps_model.vae.config.scaling_factor).sample
    torch.testing.assert_close(eps_model.decode_unclamped(latents), expected, rtol=1e-5, atol=1e-6)


def test_embeddings_of_two_prompts_differ_and_long_prompts_are_cut(model: StableDiffusion) -> None:
    hidden = model.embed(["", "a cat", "a cat " * 200]).hidden
    assert hidden.shape == (3, 77, 32)
    assert not torch.allclose(hidden[0], hidden[1], atol=1e-3)
    torch.testing.assert_close(model.embed(["a cat"]).hidden, hidden[1:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["styleid_diffusers_eps", "styleid_diffusers_v"])
def test_empty_prompt_has_the_embedding_of_the_reference_cases(
    golden: Path, request: pytest.FixtureRequest, case: str
) -> None:
    loaded: StableDiffusion = request.getfixturevalue(
        "eps_model" if case.endswith("eps") else "v_model"
    )
    expected = load_file(golden / case / "inputs.safetensors")["text_embedding"]
    torch.testing.assert_close(loaded.embed([""]).hidden, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_of_the_spec_is_the_networks_and_latents_stay_float32(
    eps_folder: Path, dtype: str
) -> None:
    loaded = load_model(ModelSpec(path=str(eps_folder), dtype=dtype), device="cpu")  # type: ignore[arg-type]
    assert str(loaded.unet.dtype) == f"torch.{dtype}"
    latents = loaded.encode(rand(1, 3, 64, 64).clamp(-1, 1))
    eps = loaded.predict_noise(latents, 301, loaded.embed([""]))
    assert {latents.dtype, eps.dtype, loaded.decode(latents).dtype} == {torch.float32}


def test_loaded_parts_are_frozen_and_in_inference_mode(model: StableDiffusion) -> None:
    for part in (model.unet, model.vae, model.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_unet_alone_predicts_like_the_whole_pipeline(
    eps_folder: Path, eps_model: StableDiffusion
) -> None:
    alone = load_unet(eps_folder / "unet", eps_folder / "scheduler")
    x, cond = rand(1, 4, 8, 8), eps_model.embed([""])
    torch.testing.assert_close(
        alone.predict_noise(x, 301, cond), eps_model.predict_noise(x, 301, cond)
    )


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        load_model(folder, device="cpu")
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert str(folder) in text
    assert "ccepted: " in text or "next: " in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_folder_that_lacks_a_part_is_refused(
    eps_folder: Path, linked: Callable[..., Path], part: str
) -> None:
    assert part in refusal(linked(eps_folder, "checkpoint", without=(part,)))


@pytest.mark.parametrize(
    "part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
)
def test_folder_with_only_pickled_weights_is_refused(
    eps_folder: Path, linked: Callable[..., Path], part: str
) -> None:
    folder = linked(eps_folder, "checkpoint", without=(f"{part}.safetensors",))
    pickled = folder / f"{part.replace('text_encoder/model', 'text_encoder/pytorch_model')}.bin"
    torch.save(load_file(eps_folder / f"{part}.safetensors"), pickled)
    assert "safetensors" in refusal(folder)


@pytest.mark.parametrize(
    "part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
)
def test_truncated_weights_are_refused(
    eps_folder: Path, linked: Callable[..., Path], part: str
) -> None:
    folder = linked(eps_folder, "checkpoint", without=(f"{part}.safetensors",))
    data = (eps_folder / f"{part}.safetensors").read_bytes()
    (folder / f"{part}.safetensors").write_bytes(data[: len(data) // 2])
    refusal(folder)


def test_weights_of_another_architecture_are_refused(
    eps_folder: Path, linked: Callable[..., Path]
) -> None:
    folder = linked(eps_folder, "checkpoint", without=("unet/config.json",))
    config = json.loads((eps_folder / "unet" / "config.json").read_text(encoding="utf-8")) | {
        "cross_attention_dim": 64
    }
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refusal(folder)


def test_name_that_is_neither_known_nor_a_folder_is_refused() -> None:
    with pytest.raises(ManifestError, match="sd99: no such model; accepted: tiny"):
        load_model("sd99")


def test_loading_prints_nothing(eps_folder: Path) -> None:
    program = f"from stylebatch.models.loading import load_model; load_model({str(eps_folder)!r}, device='cpu')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout + done.stderr == ""


def test_sd2_layout_with_linear_projections_and_upcast_attention_is_edited_alike() -> None:
    """SD 2.x differs from 1.x in projections, head counts and the upcast flag; sites mean the same."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 32, 64, 64),
        attention_head_dim=[2, 2, 4, 4],
        cross_attention_dim=24,
        norm_num_groups=8,
        use_linear_projection=True,
        upcast_attention=True,
    ).eval()
    model = StableDiffusion(unet, schedule_from_config({"prediction_type": "v_prediction"}))
    assert model.sites == tuple(range(3, 12))
    x, cond = torch.randn(2, 4, 16, 16), Conditioning(torch.randn(1, 7, 24))
    plain = model.predict_noise(x, 500, cond)
    recorder = Recorder("key_value", attend)
    with model.editing(recorder, model.sites):
        edited = model.predict_noise(x, 500, cond)
    assert torch.allclose(plain, edited, atol=1e-5)
    assert recorder.take()[11]["k"].shape == (2, 2, 256, 16)


@pytest.mark.parametrize("rows", [[], [0], [1, 2], [2, 0], [0, 1, 2], [2, 3], [4, 4]])
def test_rows_of_conditioning_are_counted_modulo_their_number(rows: list[int]) -> None:
    for count in (1, 3):
        hidden, pooled = (torch.arange(count * 10.0).view(count, 2, 5), torch.arange(float(count)))
        found = Conditioning(hidden, pooled).select(rows)
        places = [row % count for row in rows]
        assert torch.equal(found.hidden, hidden[places])
        assert found.hidden.is_contiguous()
        assert found.pooled is not None
        assert torch.equal(found.pooled, pooled[places])
        assert found.time_ids is None
