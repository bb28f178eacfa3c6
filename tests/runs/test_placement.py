"""What accelerate decides about a model: its device, its precision, and where its weights wait."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stylebatch.errors import ManifestError
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.loading import load_model, placement
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion


@pytest.fixture(scope="module")
def offloaded(eps_folder: Path) -> StableDiffusion:
    return load_model(ModelSpec(path=str(eps_folder), offload="sequential"))


def test_offloaded_weights_are_nowhere_between_two_uses(offloaded: StableDiffusion) -> None:
    cond = offloaded.embed([""])
    offloaded.predict_noise(torch.zeros(1, 4, 8, 8), 301, cond)
    for part in (offloaded.unet, offloaded.vae, offloaded.text_encoder):
        assert {parameter.device.type for parameter in part.parameters()} == {"meta"}
    assert offloaded.device.type == "cpu"


def test_offloading_changes_nothing_in_the_pictures(
    offloaded: StableDiffusion, eps_model: StableDiffusion
) -> None:
    method, pictures = StyleID(steps=2), torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    made = []
    for model in (offloaded, eps_model):
        latents = model.encode(pictures)
        content = method.invert(model, latents[:1], "query")
        style = method.invert(model, latents[1:], "key_value")
        made.append(model.decode(method.stylise(model, content, style)))
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("precision", "dtype"), [(None, "float32"), ("no", "float32"), ("bf16", "bfloat16")]
)
def test_auto_follows_the_precision_that_accelerate_was_given(
    precision: str | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if precision is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    assert placement("auto", "cpu")[1] == dtype
    assert placement("float32", "cpu")[1] == "float32"


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_a_precision_that_cannot_be_had_is_named(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(ManifestError, match=rf"model\.dtype: .* found {precision} on cpu"):
        placement("auto", "cpu")
