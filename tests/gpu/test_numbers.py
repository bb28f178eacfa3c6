"""Numbers of a device: half precisions stay near float32, batches and sources of features near each other or equal."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stylebatch.data.images import Pixels
from stylebatch.diffusion.attention import attend, attend_blended, attend_shared
from stylebatch.features.codecs import Codec
from stylebatch.features.style_bank import StyleBank, feature_codec
from stylebatch.features.style_cache import StyleCache
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.features import Inverted, Kept
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import CONTENTS, STYLES, rel, styleid

LoadOnDevice = Callable[[str], StableDiffusion]
NEAR = {"float32": 1e-4, "float16": 3e-2, "bfloat16": 0.2}
"""Largest rel. L2 of latents after a few steps from those in float32."""
TF32 = 1e-2
"""The same for float32 on a GPU, whose convolutions round to TF32."""
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def near(device: torch.device, dtype: str) -> float:
    return max(NEAR[dtype], TF32 if device.type == "cuda" else 0.0)


def block(model: StableDiffusion, *, batch: int = 16, convention: str = "ldm") -> Tensor:
    """Latents of 3 x 3 pairs, in main memory."""
    method, device = styleid(convention=convention), model.device
    contents = method.invert(model, CONTENTS.to(device), "query", batch=batch)
    styles = method.invert(model, STYLES.to(device), "key_value", batch=batch)
    return method.stylise(model, contents, styles, batch=batch).cpu()


@pytest.fixture(scope="module")
def expected(eps_model: StableDiffusion) -> Tensor:
    """The block in float32 on the CPU."""
    return block(eps_model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_is_finite_and_near_float32(
    device: torch.device, on_device: LoadOnDevice, expected: Tensor, dtype: str
) -> None:
    model = on_device(dtype)
    found = block(model)
    assert found.dtype == torch.float32
    assert rel(found, expected) < near(device, dtype)
    pictures = model.decode(found.to(device))
    assert pictures.dtype == torch.float32
    assert bool(pictures.isfinite().all())


def test_a_prompt_is_near_what_the_cpu_makes_of_it(
    device: torch.device, on_device: LoadOnDevice, eps_model: StableDiffusion
) -> None:
    hidden = on_device("float32").embed(["a red house"]).hidden
    assert rel(hidden.cpu(), eps_model.embed(["a red house"]).hidden) < near(device, "float32")


def test_batches_of_one_and_of_eight_agree(device: torch.device, on_device: LoadOnDevice) -> None:
    model = on_device("float32")
    one, eight = block(model, batch=1), block(model, batch=8)
    worst = max(rel(a, b) for a, b in zip(one, eight, strict=True))
    assert worst < near(device, "float32")


@pytest.mark.parametrize("convention", ["ldm", "diffusers"])
def test_the_same_block_twice_is_the_same(
    device: torch.device, on_device: LoadOnDevice, convention: str
) -> None:
    model = on_device("float16" if device.type == "cuda" else "float32")
    assert torch.equal(block(model, convention=convention), block(model, convention=convention))


def style_pixels(count: int) -> list[Pixels]:
    drawn = np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return list(drawn)


@pytest.mark.parametrize("name", ["kv", "x", "x8"])
def test_held_cached_and_recomputed_features_give_the_same_latents(
    device: torch.device, on_device: LoadOnDevice, tmp_path: Path, name: str
) -> None:
    dtype = "float16" if device.type == "cuda" else "float32"
    model, method, pixels = on_device(dtype), styleid(), style_pixels(2)
    codec = Codec(name, dtype)  # type: ignore[arg-type]
    bank = StyleBank(StyleCache(tmp_path), codec, method, model, model_fingerprint="random")
    clean = torch.cat([model.encode(to_tensor([one])) for one in pixels])
    contents = method.invert(model, CONTENTS.to(device), "query")

    def inverted(keep: Kept) -> Inverted:  # one at a time, as the bank inverts
        return method.invert(model, clean, "key_value", batch=1, codec=feature_codec(codec), keep=keep)  # fmt: skip

    sources = [
        inverted("held"),
        bank.inverted([bank.style(one, "style") for one in pixels]),
        inverted("hosted"),
        inverted("recomputed"),
    ]
    held, cached, hosted, recomputed = (
        method.stylise(model, contents, source) for source in sources
    )
    assert bank.num_built == 2
    assert torch.equal(held, cached)
    queries = method.invert(model, CONTENTS.to(device), "query", keep="hosted")
    # twice: a block begins at the first timestep again
    for _ in range(2):
        assert torch.equal(method.stylise(model, queries, sources[2]), hosted)
    assert torch.equal(hosted, held)
    assert rel(recomputed, held) < near(device, dtype)


def test_copied_features_stay_as_the_cache_has_them_while_others_are_read(
    device: torch.device, on_device: LoadOnDevice, tmp_path: Path
) -> None:
    dtype = "float16" if device.type == "cuda" else "float32"
    model, method, pixels = on_device(dtype), styleid(), style_pixels(3)
    codec = Codec("x", dtype)  # type: ignore[arg-type]
    bank = StyleBank(StyleCache(tmp_path), codec, method, model, model_fingerprint="random")
    styles = [bank.style(one, "style") for one in pixels]
    features = bank.inverted(styles).features
    asked = [step.t for step in method.trajectory(model).reverse]
    copied = {
        t: features.at(t) for t in asked
    }  # a buffer that is used again would change the first
    opened = [bank.open(style) for style in styles]
    for t, sites in copied.items():
        for site, tensors in sites.items():
            assert tensors["x"].device.type == device.type
            for row, style in enumerate(opened):
                stored = style.at(int(t))[site]["x"]
                assert np.array_equal(tensors["x"][row].cpu().numpy(), stored)


@pytest.mark.gpu
def test_pinned_copies_that_do_not_wait_arrive_whole(cuda: torch.device) -> None:
    source = torch.arange(1 << 22, dtype=torch.int32)
    pinned = source.pin_memory()
    copied = pinned.to(cuda, non_blocking=True)
    work = torch.randn(2048, 2048, device=cuda)
    for _ in range(20):
        work = work @ work / 2048
    back = torch.empty_like(source, pin_memory=True)
    back.copy_(copied, non_blocking=True)
    torch.cuda.synchronize(cuda)
    assert pinned.is_pinned()
    assert torch.equal(back, source)


@pytest.mark.parametrize(("tokens", "heads", "dim"), [(64, 8, 40), (64, 8, 80), (16, 8, 160), (64, 10, 64)])  # fmt: skip
def test_our_shapes_of_attention_are_served_by_fused_kernels(
    device: torch.device, tokens: int, heads: int, dim: int
) -> None:
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    draw = torch.Generator().manual_seed(dim)

    def by_token(
        rows: int,
    ) -> Tensor:  # (B, H, L, d), heads within tokens, as projections give them
        drawn = torch.randn(rows, tokens, heads, dim, generator=draw)
        return drawn.to(device, dtype).transpose(1, 2)

    q, k, v = by_token(4), by_token(2), by_token(2)
    with sdpa_kernel(FUSED), torch.inference_mode():
        shared = attend_shared(q, k, v, [2, 2], tau=1.5)
        blended = attend_blended(q, k, v, [0.25, 0.75], tau=1.5)
    plain = torch.cat([attend(q[[i]].float(), k[[i // 2]].float(), v[[i // 2]].float(), tau=1.5) for i in range(4)])  # fmt: skip
    assert rel(shared.float(), plain) < 5e-3
    logits = [1.5 * dim**-0.5 * q.float() @ k[[m]].float().transpose(-1, -2) + math.log(w) for m, w in enumerate((0.25, 0.75))]  # fmt: skip
    weights = torch.cat(logits, dim=-1).softmax(dim=-1)
    values = torch.cat([v[[m]].float() for m in range(2)], dim=2)
    assert rel(blended.float(), weights @ values) < 5e-3
