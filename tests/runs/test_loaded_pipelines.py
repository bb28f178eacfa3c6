"""`load_model` of a pipeline that diffusers has loaded: the same network, left as it was; others are refused by their class."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

import stylebatch
from stylebatch import StyleAlignedPipeline, StyleIDPipeline
from stylebatch.errors import ManifestError
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.loaded_pipeline import denoiser_of

STOCK = {
    "tiny": (
        StableDiffusionPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
    ),
    "sdxl": (
        StableDiffusionXLPipeline,
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLInpaintPipeline,
    ),
}


@pytest.fixture(scope="module")
def pipes(twins: Callable[[str], Path]) -> Callable[[str], Any]:
    """`pipes(name)`: the stock pipeline of a family."""
    loaded: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in loaded:
            folder = TINY if name == "tiny" else twins(name)
            kind = STOCK["sdxl" if name == "sdxl" else "tiny"][0]
            loaded[name] = kind.from_pretrained(folder)
            loaded[name].set_progress_bar_config(disable=True)
        return loaded[name]

    return of


def state(pipe: Any) -> dict[str, Any]:
    """Everything of a pipeline that a guest could have changed."""
    found: dict[str, Any] = {}
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            found[name] = repr(getattr(part, "config", part))
            continue
        for key, tensor in part.state_dict().items():
            found[f"{name}.{key}"] = (tensor.dtype, tensor.device, tensor.double().sum().item())
        for key, one in part.named_parameters():
            found[f"{name}.{key} as a parameter"] = (one.requires_grad, one.is_inference())
        for key, module in part.named_modules():
            # a text encoder of transformers gets hooks of its own when it is first asked for all its layers
            hooks = (
                (len(module._forward_hooks), len(module._forward_pre_hooks))
                if name in ("unet", "vae")
                else ()
            )
            found[f"{name}.{key} as a module"] = (
                module.training,
                hooks,
                id(getattr(module, "processor", None)),
            )
    return found


def used(model: Denoiser) -> torch.Tensor:
    """A result of all parts, with edits that come and go."""
    size = 16 * model.latent_factor
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    method = stylebatch.StyleID(steps=2, sites=model.sites[-2:])
    latents = model.encode(images)
    styles = method.invert(model, latents[1:], "key_value")
    made = method.stylise(model, method.invert(model, latents[:1], "query"), styles)
    model.embed(["a cat"])
    with pytest.raises(RuntimeError), model.sharing_norms(lambda rows: torch.zeros(rows).long()):
        raise RuntimeError("an edit that fails")
    return model.decode(made)


@pytest.mark.parametrize("name", ["tiny", "sdxl"])
def test_a_loaded_pipeline_serves_and_stays_as_it_was(
    name: str, pipes: Callable[[str], Any], twins: Callable[[str], Path]
) -> None:
    pipe = pipes(name)
    before = state(pipe)
    picture = used(stylebatch.load_model(pipe))
    assert state(pipe) == before
    folder = TINY if name == "tiny" else twins(name)
    assert torch.equal(picture, used(stylebatch.load_model(folder, device="cpu")))
    # it can still be trained
    pipe.unet.conv_out.bias.sum().backward()
    assert pipe.unet.conv_out.bias.grad is not None
    pipe.unet.conv_out.bias.grad = None


@pytest.mark.parametrize("name", ["tiny", "sdxl"])
def test_pipelines_of_the_same_parts_are_taken(name: str, pipes: Callable[[str], Any]) -> None:
    parts = pipes(name).components
    expected = stylebatch.load_model(pipes(name)).embed(["a cat"]).hidden
    for kind in STOCK[name][1:]:
        other = kind(**parts, **({} if name == "sdxl" else {"requires_safety_checker": False}))
        assert torch.equal(stylebatch.load_model(other).embed(["a cat"]).hidden, expected)
        for ours in (StyleIDPipeline, StyleAlignedPipeline):
            made = ours.from_pipe(other)
            assert made.unet is pipes(name).unet
            assert stylebatch.load_model(made).sites == stylebatch.load_model(other).sites


def test_another_sampler_changes_nothing(pipes: Callable[[str], Any]) -> None:
    pipe = StableDiffusionPipeline(**pipes("tiny").components, requires_safety_checker=False)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    assert torch.equal(
        used(stylebatch.load_model(pipe)), used(stylebatch.load_model(pipes("tiny")))
    )


def test_a_pipeline_made_of_another_casts_and_moves_nothing() -> None:
    stock = StableDiffusionPipeline.from_pretrained(TINY, torch_dtype=torch.bfloat16)
    stock.vae.to(torch.float32)
    before = state(stock)
    StyleIDPipeline.from_pipe(stock)
    assert state(stock) == before
    made = StyleIDPipeline.from_pipe(stock, dtype=torch.float32)
    assert made.unet.dtype == stock.unet.dtype == torch.float32


def test_weights_that_move_while_they_work_can_be_trained_afterwards() -> None:
    """Offloading moves weights within our calls; in inference mode they would be spoilt for good."""
    pipe = StableDiffusionPipeline.from_pretrained(TINY)
    model = stylebatch.load_model(pipe)

    def there_and_back(module: torch.nn.Module, *_: Any) -> None:
        module.to(torch.float64).to(torch.float32)

    for part in (pipe.unet, pipe.vae.decoder, pipe.vae.encoder, pipe.text_encoder):
        part.register_forward_pre_hook(there_and_back)
    with torch.inference_mode():  # as the methods of stylebatch have it
        used(model)
    parameters = [p for n in ("unet", "vae", "text_encoder") for p in getattr(pipe, n).parameters()]
    assert not any(one.is_inference() for one in parameters)
    pipe.unet(torch.zeros(1, 8, 16, 16), 1, torch.zeros(1, 16, 64)).sample.sum().backward()
    assert pipe.unet.conv_in.weight.grad is not None


@pytest.mark.slow
def test_a_half_autoencoder_of_xl_is_wide_while_it_works(pipes: Callable[[str], Any]) -> None:
    stock = pipes("sdxl")
    vae = AutoencoderKL.from_config(stock.vae.config).to(torch.float16)
    assert vae.config.force_upcast
    pipe = StableDiffusionXLPipeline(**{**stock.components, "vae": vae})
    before = state(pipe)
    dtypes = set[torch.dtype]()
    vae.encoder.register_forward_pre_hook(lambda module, _: dtypes.add(module.conv_in.weight.dtype))
    vae.decoder.register_forward_pre_hook(lambda module, _: dtypes.add(module.conv_in.weight.dtype))
    hooked = state(pipe)
    assert torch.isfinite(used(stylebatch.load_model(pipe))).all()
    assert dtypes == {torch.float32}
    assert state(pipe) == hooked
    assert {k: v for k, v in hooked.items() if "module" not in k} == {
        k: v for k, v in before.items() if "module" not in k
    }


def flux() -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), transformer=transformer, **parts
    )


def stable_diffusion_3() -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=8, num_layers=1, attention_head_dim=8, num_attention_heads=2, caption_projection_dim=16,
        joint_attention_dim=16, pooled_projection_dim=16, pos_embed_max_size=16,
    )  # fmt: skip
    names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")  # fmt: skip
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), transformer=transformer, **dict.fromkeys(names)
    )


@pytest.mark.parametrize(
    ("make", "kind", "denoiser"),
    [
        (flux, "FluxPipeline", "FluxTransformer2DModel"),
        (stable_diffusion_3, "StableDiffusion3Pipeline", "SD3Transformer2DModel"),
    ],
)
def test_other_families_are_refused_by_their_class(
    make: Callable[[], Any], kind: str, denoiser: str
) -> None:
    pipe = make()
    for attempt in (
        stylebatch.load_model,
        StyleIDPipeline.from_pipe,
        StyleAlignedPipeline.from_pipe,
    ):
        with pytest.raises(ManifestError) as error:
            attempt(pipe)
        text = str(error.value)
        assert kind in text
        assert denoiser in text
        assert "StableDiffusionXLPipeline" in text


def test_parts_that_cannot_be_used_are_named(pipes: Callable[[str], Any]) -> None:
    parts = pipes("tiny").components
    nine = UNet2DConditionModel.from_config(parts["unet"].config, in_channels=17)
    flow = FlowMatchEulerDiscreteScheduler()
    for changes, words in (
        ({"unet": nine}, "StableDiffusionInpaintPipeline/unet: in_channels: found 17"),
        ({"vae": AutoencoderTiny()}, "the vae AutoencoderTiny; accepted: AutoencoderKL"),
        ({"text_encoder": None}, "StableDiffusionInpaintPipeline without text_encoder"),
        ({"scheduler": flow}, "StableDiffusionInpaintPipeline/scheduler: _class_name"),
    ):
        with pytest.raises(ManifestError, match=words):
            stylebatch.load_model(
                StableDiffusionInpaintPipeline(
                    **{**parts, **changes, "requires_safety_checker": False}
                )
            )
    with pytest.raises(ManifestError, match="an object of type int"):
        stylebatch.load_model(7)  # type: ignore[arg-type]
    with pytest.raises(ManifestError, match="device: found cuda beside a loaded pipeline"):
        stylebatch.load_model(pipes("tiny"), device="cuda")


def test_a_controlnet_is_not_left_out_in_silence(pipes: Callable[[str], Any]) -> None:
    parts = pipes("tiny").components
    control = ControlNetModel.from_unet(parts["unet"], conditioning_channels=3)
    pipe = StableDiffusionControlNetPipeline(
        **parts, controlnet=control, requires_safety_checker=False
    )
    with pytest.raises(ManifestError, match="StableDiffusionControlNetPipeline with controlnet"):
        stylebatch.load_model(pipe)
    assert stylebatch.load_model(StyleIDPipeline.from_pipe(pipe)).sites


def test_a_tokenizer_without_a_limit_stops_at_the_encoders(pipes: Callable[[str], Any]) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(TINY)
    pipe.tokenizer.model_max_length = 10**30
    found = stylebatch.load_model(pipe).embed(["a cat"])
    assert torch.equal(found.hidden, stylebatch.load_model(pipes("tiny")).embed(["a cat"]).hidden)
    assert pipe.tokenizer.model_max_length == 10**30


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny", "sdxl"])
def test_prompts_are_those_of_the_stock_pipeline(name: str, pipes: Callable[[str], Any]) -> None:
    """With a textual inversion of several vectors, and with layers left out."""
    stock = pipes(name)
    parts = {
        n: copy.deepcopy(p) if n[:4] in ("text", "toke") else p for n, p in stock.components.items()
    }
    pipe = type(stock)(**parts, **({} if name == "sdxl" else {"requires_safety_checker": False}))
    width = pipe.text_encoder.config.hidden_size
    learned = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion({"<look>": learned}, token="<look>")
    text = ["a cat in <look>"]
    # stock pipelines of 1.x look for a layer that text encoders of transformers 5 no longer have
    for skip in (0, 1) if name == "sdxl" else (0,):
        model = denoiser_of(pipe)
        model.clip_skip = skip
        found = model.embed(text)
        expected = pipe.encode_prompt(
            text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=skip or None
        )  # fmt: skip
        assert float((found.hidden - expected[0]).abs().max()) < 1e-4
        if found.pooled is not None:
            assert float((found.pooled - expected[2]).abs().max()) < 1e-4
    assert not torch.equal(found.hidden, denoiser_of(pipe).embed(["a cat in look"]).hidden)
