"""`model.compile`: which layers are compiled, what they compute, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from stylebatch.errors import ManifestError
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet import unet_loading
from stylebatch.models.unet.compiling import COMPILED, compile_layers, require_compiler
from stylebatch.models.unet.unet_loading import as_stable_diffusion


def test_layers_without_attention_are_compiled(
    eps_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet_loading, "require_compiler", lambda device: None)
    model = as_stable_diffusion(load_model(ModelSpec(path=str(eps_folder), compile="default")))
    for network in (model.unet, model.vae):
        compiled = {type(x) for x in network.modules() if x._compiled_call_impl is not None}
        assert ResnetBlock2D in compiled
        assert compiled <= set(COMPILED)
    plain = as_stable_diffusion(load_model(ModelSpec(path=str(eps_folder))))
    assert not any(x._compiled_call_impl is not None for x in plain.unet.modules())


@pytest.mark.slow
def test_compiled_layers_compute_the_same() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.residual = ResnetBlock2D(in_channels=32, temb_channels=16, groups=8)
            self.feed_forward = FeedForward(32)

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.feed_forward(self.residual(x, time).flatten(2).mT)
            return found

    torch.manual_seed(0)
    network = Network().eval()
    batches = [torch.randn(size, 32, 8, 8) for size in (2, 3, 1)]
    with torch.inference_mode():
        expected = [network(x, torch.ones(len(x), 16)) for x in batches]
        compile_layers(network, "default")
        for x, known in zip(batches, expected, strict=True):
            torch.testing.assert_close(
                network(x, torch.ones(len(x), 16)), known, rtol=1e-4, atol=1e-5
            )


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/no/such/compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    torch.compiler.reset()
    with pytest.raises(
        ManifestError, match=r"model\.compile: nothing can be compiled for cpu here"
    ):
        require_compiler(torch.device("cpu"))


def test_weights_that_move_at_each_layer_are_not_compiled() -> None:
    with pytest.raises(ValueError, match="offload sequential"):
        ModelSpec(name="tiny", compile="max", offload="sequential")
