"""Features held, recomputed and through every codec give the same pictures, to the precision that each promises."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest
import torch

from stylebatch.features.codecs import Codec
from stylebatch.methods.styleid.algorithm import Pairs
from stylebatch.methods.styleid.codec import FeatureCodec, keys_values
from stylebatch.methods.styleid.features import HeldFeatures, Inverted, Kept
from stylebatch.models.unet.edits import AttentionLayer, decoder_sites
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import CONTENTS, STYLES, Counting, inverted, rel, styleid

CODECS = {
    "kv": FeatureCodec("kv", torch.float32),
    "x": FeatureCodec("x", torch.float32),
    "kv half": FeatureCodec("kv", torch.float16),
    "x half": FeatureCodec("x", torch.float16),
    "x8": FeatureCodec("x8"),
}
KEPT = get_args(Kept)
EACH = Pairs((0, 1, 2), (0, 1, 2))
"""Every content and every style, once."""
LOSS = {"kv": 1e-6, "x": 1e-5, "kv half": 2e-3, "x half": 2e-3, "x8": 2e-2}
"""Largest rel. L2 of final latents against keys and values as computed."""


@pytest.mark.parametrize("convention", ["ldm", "diffusers"])
def test_codec_costs_no_more_than_it_promises(model: StableDiffusion, convention: str) -> None:
    method = styleid(convention=convention)
    contents, styles = inverted(method, model)
    exact = method.stylise(model, contents, styles, EACH)
    for name, codec in CODECS.items():
        styles = method.invert(model, STYLES, "key_value", codec=codec)
        assert rel(method.stylise(model, contents, styles, EACH), exact) < LOSS[name], name


@pytest.mark.parametrize("convention", ["ldm", "diffusers"])
def test_hosted_features_equal_held_ones_and_recomputed_ones_agree(
    eps_model: StableDiffusion, convention: str
) -> None:
    method = styleid(convention=convention)
    contents = [method.invert(eps_model, CONTENTS, "query", keep=keep) for keep in KEPT]
    plain = styleid(convention=convention, inject=False)
    for codec in (CODECS["kv"], CODECS["x"], CODECS["x8"]):
        held, hosted, recomputed = (
            method.stylise(
                eps_model,
                queries,
                method.invert(eps_model, STYLES, "key_value", codec=codec, keep=keep),
                EACH,
            )
            for queries, keep in zip(contents, KEPT, strict=True)
        )
        assert torch.equal(hosted, held)
        assert rel(recomputed, held) < 1e-4
    styles = plain.invert(eps_model, STYLES, "key_value")
    assert rel(plain.stylise(eps_model, contents[0], styles, EACH), held) > 1e-3


def test_recomputing_costs_an_evaluation_per_image_and_reverse_step(
    eps_model: StableDiffusion,
) -> None:
    method, counting = styleid(start="paper"), Counting(eps_model)
    source = method.invert(counting, CONTENTS, "query", batch=2, keep="recomputed")
    assert not isinstance(source.features, HeldFeatures)
    inverted = sum(rows for _, rows in counting.evaluations)
    assert inverted == 4 * 3
    for step in method.trajectory(eps_model).reverse:
        for _ in range(2):  # the timestep asked for last is kept
            source.features.at(step.t)
    assert sum(rows for _, rows in counting.evaluations) - inverted == 3 * 3


def test_styles_are_projected_once_for_all_batches(
    eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = styleid()
    contents = method.invert(eps_model, CONTENTS, "query")
    styles = method.invert(eps_model, STYLES, "key_value", codec=CODECS["x"])
    projected: list[int] = []
    real = AttentionLayer.key
    monkeypatch.setattr(
        AttentionLayer,
        "key",
        lambda self, hidden: projected.append(hidden.shape[0]) or real(self, hidden),
    )
    method.stylise(eps_model, contents, styles, batch=2)
    assert projected == [3] * (4 * len(method.sites))


@pytest.mark.parametrize("name", ["kv", "x", "x8"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tensors_are_encoded_into_the_form_that_the_style_cache_stores(
    name: Literal["kv", "x", "x8"], dtype: Literal["float16", "float32"]
) -> None:
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "k": torch.randn(2, 2, 16, 4, generator=generator),
        "v": torch.randn(2, 2, 16, 4, generator=generator),
        "x": torch.randn(2, 16, 8, generator=generator) * torch.logspace(-3, 3, 8),
    }
    tensors["x"][1, :, 3] = 0.0
    found = FeatureCodec(name, getattr(torch, dtype)).encode(tensors)
    for row in range(2):
        stored = Codec(name, dtype).checked({key: x[row].numpy() for key, x in found.items()})
        for key in () if name == "x8" else stored:
            assert np.array_equal(stored[key], tensors[key][row].numpy().astype(dtype)), key


def quantised(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int8 and scale of one image's x (L, channels), as `x8` stores them."""
    found = FeatureCodec("x8").encode({"x": x[None]})
    arrays = Codec("x8").checked({key: tensor[0].numpy() for key, tensor in found.items()})
    return arrays["x"], arrays["x.scale"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_int8_error_is_at_most_half_a_scale(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(500, 8, generator=generator) * torch.logspace(-4, 3, 8)).to(dtype)
    values, scale = quantised(x)
    assert np.abs(values).max(axis=0).tolist() == [127] * 8
    error = np.abs(values * scale - x.numpy().astype(float)).max(axis=0)
    assert (error <= scale / 2 * (1 + 1e-4)).all()


def test_int8_rounds_to_nearest_rather_than_down() -> None:
    values, _ = quantised(torch.tensor([[127.0], [0.6], [-0.6], [0.4]]))
    assert values[:, 0].tolist() == [127, 1, -1, 0]


def test_zero_and_subnormal_channels_do_not_divide_by_zero() -> None:
    x = torch.zeros(5, 3)
    x[:, 1] = 1e-44
    x[2, 2] = -3.0
    values, scale = quantised(x)
    np.testing.assert_allclose(values * scale, x.numpy(), atol=1e-37, rtol=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["kv", "x", "x8"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_that_are_not_finite_are_not_stored(
    name: Literal["kv", "x", "x8"], dtype: Literal["float16", "float32"], bad: float
) -> None:
    tensors = {"k": torch.ones(1, 2, 3, 4), "v": torch.ones(1, 2, 3, 4), "x": torch.ones(1, 3, 8)}
    for tensor in tensors.values():
        tensor[0, -1, -1] = bad
    found = FeatureCodec(name, getattr(torch, dtype)).encode(tensors)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        Codec(name, dtype).checked({key: x[0].numpy() for key, x in found.items()})


def test_keys_and_values_of_a_layer_come_back(eps_model: StableDiffusion) -> None:
    layer = AttentionLayer(decoder_sites(eps_model.unet)[6])
    width = layer.module.to_q.in_features
    x = torch.randn(2, 16, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = {"k": layer.key(x), "v": layer.value(x), "x": x}
        for name, codec in CODECS.items():
            found = keys_values(codec.encode(exact), layer, torch.float32)
            for tensor, key in zip(found, ("k", "v"), strict=True):
                assert tensor.dtype == torch.float32
                assert rel(tensor, exact[key]) < LOSS[name], (name, key)


def test_batches_of_recomputed_features_are_joined(eps_model: StableDiffusion) -> None:
    method = styleid()
    whole: Inverted = method.invert(eps_model, STYLES, "key_value", keep="recomputed")
    cut = method.invert(eps_model, STYLES, "key_value", batch=2, keep="recomputed")
    for step in method.trajectory(eps_model).reverse:
        ours, theirs = cut.features.at(step.t), whole.features.at(step.t)
        for site in method.sites:
            assert rel(ours[site]["k"], theirs[site]["k"]) < 1e-5
