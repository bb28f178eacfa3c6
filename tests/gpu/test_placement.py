"""Where accelerate puts a model, and that everything it computes is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from stylebatch.engine.measure import find_place
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_checkpoint, placement
from stylebatch.models.offload import Offload
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import CONTENTS, STYLES, styleid

PICTURES = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
LoadOnDevice = Callable[[str], StableDiffusion]


def places(network: nn.Module) -> set[str]:
    """Kinds of device of a network's weights and buffers."""
    return {tensor.device.type for tensor in (*network.parameters(), *network.buffers())}


@pytest.mark.parametrize(
    ("precision", "kind", "dtype"),
    [("no", "cpu", "float32"), ("bf16", "cpu", "bfloat16"), ("no", "cuda", "float16"),
     ("bf16", "cuda", "bfloat16"), ("fp16", "cuda", "float16")],
)  # fmt: skip
def test_auto_means_a_dtype_by_kind_of_device(
    precision: str, kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    assert placement("auto", kind) == (torch.device(kind), dtype)


@pytest.mark.gpu
def test_accelerate_chooses_the_gpu_and_half_its_memory_is_for_activations(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert placement()[0].type == "cuda"
    place = find_place("auto")
    assert (place.device, place.dtype) == ("cuda", "float16")
    total = torch.cuda.get_device_properties(cuda).total_memory / 2**30
    assert place.batch_gb == pytest.approx(total / 2, abs=0.1)


def test_all_parts_and_all_results_are_on_the_device(
    device: torch.device, on_device: LoadOnDevice
) -> None:
    model, method = on_device("float32"), styleid(steps=2)
    for part in (model.unet, model.vae, model.text_encoder):
        assert places(part) == {device.type}
    latents = model.encode(PICTURES)
    contents, styles = (
        method.invert(model, latents[:1], "query"),
        method.invert(model, latents[1:], "key_value"),
    )
    features = [contents.features, styles.features]
    last = method.trajectory(model).reverse[-1].t
    tensors = [tensor for one in features for site in one.at(last).values() for tensor in site.values()]  # fmt: skip
    made = method.stylise(model, contents, styles)
    for tensor in (model.embed(["a"]).hidden, latents, made, model.decode(made), *tensors):
        assert tensor.device.type == device.type


def test_latents_and_masks_may_come_from_main_memory(
    device: torch.device, on_device: LoadOnDevice
) -> None:
    model, method = on_device("float32"), styleid(steps=2)
    masks = torch.ones(3, 1, 8, 8)
    masks[..., 4:] = 0.0
    contents = method.invert(model, CONTENTS.to(device), "query")
    styles = method.invert(model, STYLES.to(device), "key_value")
    made = method.stylise(model, contents, styles, masks=masks)
    assert made.device.type == device.type
    assert bool(made.isfinite().all())
    assert not torch.equal(made, method.stylise(model, contents, styles))


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_weights_wait_in_main_memory_and_give_the_same_pictures(
    device: torch.device, on_device: LoadOnDevice, eps_folder: Path, offload: Offload
) -> None:
    away = load_checkpoint(Checkpoint(eps_folder), dtype="float32", device=device, offload=offload)
    method, made = StyleID(steps=2), []
    for model in (away, on_device("float32")):
        latents = model.encode(PICTURES)
        content = method.invert(model, latents[:1], "query")
        style = method.invert(model, latents[1:], "key_value")
        made.append(model.decode(method.stylise(model, content, style)))
    assert torch.equal(*made)
    assert made[0].device.type == device.type
    if offload == "model":  # the network that worked last is on the device
        assert places(away.unet) | places(away.text_encoder) == {"cpu"}
