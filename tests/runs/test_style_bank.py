"""Styles out of a cache: a cold and a warm one give the same bytes, and agree with features held in memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylebatch.features.codecs import Codec
from stylebatch.features.style_bank import Style, StyleBank
from stylebatch.features.style_cache import StyleCache
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.codec import FeatureCodec
from stylebatch.methods.styleid.features import Inverted
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import Counting, rel, styleid
from tests.support.styles import PICTURES

CODECS = {
    "kv": (Codec("kv", "float32"), 1e-4),
    "x": (Codec("x", "float32"), 1e-4),
    "x half": (Codec("x", "float16"), 2e-3),
    "x8": (Codec("x8", "float32"), 2e-2),
}
CONTENTS = 0.8 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@cache
def contents_of(method: StyleID, model: StableDiffusion) -> Inverted:
    return method.invert(model, CONTENTS, "query")


@cache
def latents_of(model: StableDiffusion) -> Tensor:
    return torch.cat([model.encode(to_tensor([picture.pixels])) for picture in PICTURES])


def render(
    root: Path, method: StyleID, model: StableDiffusion, codec: Codec, count: int = 3
) -> tuple[Tensor, StyleBank]:
    bank = StyleBank(StyleCache(root), codec, method, model, model_fingerprint="f")
    styles = [
        bank.style(picture.pixels, f"style {i}") for i, picture in enumerate(PICTURES[:count])
    ]
    styled = method.stylise(model, contents_of(method, model), bank.inverted(styles))
    return styled, bank


LATENTS = Codec("trajectory", "float32")


@pytest.mark.parametrize(
    ("name", "convention"), [*((name, "ldm") for name in CODECS), ("x", "diffusers")]
)
def test_cold_and_warm_cache_give_the_same_bytes(
    eps_model: StableDiffusion, tmp_path: Path, name: str, convention: str
) -> None:
    (codec, loss), method = CODECS[name], styleid(convention=convention)
    cold, bank = render(tmp_path, method, eps_model, codec)
    assert bank.num_built == 3
    warm, bank = render(tmp_path, method, eps_model, codec)
    assert bank.num_built == 0
    assert torch.equal(cold, warm)

    latents = latents_of(eps_model)
    held = method.invert(
        eps_model, latents, "key_value", batch=1,
        codec=FeatureCodec(codec.name, getattr(torch, codec.dtype)),
    )  # fmt: skip
    contents = contents_of(method, eps_model)
    assert torch.equal(method.stylise(eps_model, contents, held), warm)
    exact = method.invert(eps_model, latents, "key_value")
    assert rel(warm, method.stylise(eps_model, contents, exact)) < loss


@pytest.mark.parametrize(
    "options",
    [{}, {"convention": "diffusers"}, {"start": "paper", "solver": "ab2"}, {"inversion": "bdia"}],
)
def test_latents_of_a_cache_give_the_features_of_an_inversion(
    eps_model: StableDiffusion, tmp_path: Path, options: dict[str, Any]
) -> None:
    method = styleid(**options)
    cold, bank = render(tmp_path, method, eps_model, LATENTS)
    assert bank.num_built == 3
    warm, bank = render(tmp_path, method, eps_model, LATENTS)
    assert bank.num_built == 0
    assert torch.equal(cold, warm)
    latents = latents_of(eps_model)
    contents = contents_of(method, eps_model)
    held, recomputed = (
        method.stylise(
            eps_model,
            contents,
            method.invert(eps_model, latents, "key_value", batch=1, keep=keep),
        )
        for keep in ("held", "recomputed")
    )
    assert rel(warm, held) < 1e-4
    named = [bank.style(picture.pixels, "style") for picture in PICTURES]
    assert torch.equal(
        method.stylise(eps_model, contents, bank.inverted(named, batch=1)), recomputed
    )


def test_latents_are_recomputed_in_batches(eps_model: StableDiffusion, tmp_path: Path) -> None:
    method, counting = styleid(start="paper"), Counting(eps_model)
    bank = StyleBank(StyleCache(tmp_path), LATENTS, method, counting, model_fingerprint="f")
    styles = [bank.style(picture.pixels, str(i)) for i, picture in enumerate(PICTURES)]
    inverted = bank.inverted(styles, batch=2)
    built = sum(rows for _, rows in counting.evaluations)
    for step in method.trajectory(eps_model).reverse:
        inverted.features.at(step.t)
    assert [rows for _, rows in counting.evaluations[-6:]] == [2, 1] * 3
    assert sum(rows for _, rows in counting.evaluations) - built == 3 * 3
    assert inverted.latent.shape[0] == 3


def test_latents_serve_all_sites(eps_model: StableDiffusion, tmp_path: Path) -> None:
    for method, built in (
        (styleid(), 1),
        (styleid(sites=[6]), 0),
        (styleid(inject=False), 0),
        (styleid(start="paper"), 1),
        (styleid(steps=2), 1),
    ):
        _, bank = render(tmp_path, method, eps_model, LATENTS, count=1)
        assert bank.num_built == built


def test_other_timesteps_are_another_entry(eps_model: StableDiffusion, tmp_path: Path) -> None:
    grids: list[dict[str, Any]] = [{}, {"grid": "spread"}, {"grid": "spread", "grid_power": 1.2}]
    for grid in (*grids, *grids):
        _, bank = render(tmp_path, styleid(**grid), eps_model, Codec("x", "float32"), count=1)
    assert bank.num_built == 0
    assert len(list(tmp_path.glob("*.tar"))) == len(grids)


def test_style_does_not_depend_on_the_styles_beside_it(
    eps_model: StableDiffusion, tmp_path: Path
) -> None:
    codec, method = Codec("x", "float32"), styleid()
    render(tmp_path / "one", method, eps_model, codec, count=1)
    render(tmp_path / "three", method, eps_model, codec)
    (name,) = [path.name for path in (tmp_path / "one").glob("*.tar")]
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_warm_cache_costs_no_evaluations_of_styles(
    eps_model: StableDiffusion, tmp_path: Path
) -> None:
    method, codec = styleid(start="paper"), Codec("x8")
    for inverted in (4 * 3, 0):
        counting = Counting(eps_model)
        render(tmp_path, method, counting, codec)
        rows = sum(rows for _, rows in counting.evaluations)
        assert rows == inverted + 4 * 2 + 3 * 6


def test_other_options_are_other_styles(eps_model: StableDiffusion, tmp_path: Path) -> None:
    codec = Codec("x8")
    render(tmp_path, styleid(), eps_model, codec, count=1)
    for method, other, built in (
        (styleid(gamma=0.1, tau=1.0), codec, 0),  # nothing of the inversion
        (styleid(steps=2), codec, 1),
        (styleid(sites=[6]), codec, 1),
        (styleid(start="paper"), codec, 1),
        (styleid(), Codec("x"), 1),
    ):
        _, bank = render(tmp_path, method, eps_model, other, count=1)
        assert bank.num_built == built


@pytest.mark.parametrize("place", ["middle", "length"])
@pytest.mark.parametrize("codec", [Codec("x", "float32"), LATENTS], ids=lambda codec: codec.name)
def test_damaged_style_is_made_again_during_the_render(
    eps_model: StableDiffusion, tmp_path: Path, codec: Codec, place: str
) -> None:
    method = styleid()
    expected, _ = render(tmp_path, method, eps_model, codec)
    path = sorted(tmp_path.glob("*.tar"))[1]
    whole = path.read_bytes()
    if place == "length":
        path.write_bytes(whole[:-512])
    else:
        half = len(whole) // 2
        path.write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
    found, bank = render(tmp_path, method, eps_model, codec)
    assert bank.num_built == 1
    assert torch.equal(found, expected)
    assert path.read_bytes() == whole


def test_style_removed_between_writing_and_reading_is_made_again(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, codec = styleid(), Codec("x", "float32")
    expected, _ = render(tmp_path / "calm", method, eps_model, codec, count=1)
    build = StyleBank.build

    def built_and_collected(bank: StyleBank, style: Style) -> None:
        build(bank, style)
        if bank.num_built == 1:
            assert len(StyleCache(tmp_path / "busy").gc(0)) == 1

    monkeypatch.setattr(StyleBank, "build", built_and_collected)
    found, bank = render(tmp_path / "busy", method, eps_model, codec, count=1)
    assert bank.num_built == 2
    assert torch.equal(found, expected)
