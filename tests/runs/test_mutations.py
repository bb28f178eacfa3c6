"""Breaking the method must be noticed: gamma, tau, AdaIN, site list, timestep order, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stylebatch.data.images import load_picture
from stylebatch.diffusion import attention
from stylebatch.methods.styleid.features import HeldFeatures, SiteFeatures
from stylebatch.models.loading import load_model
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.semantics import Scene, broken

DEMO = Path(__file__).parents[2] / "manifests" / "demo"
CLAIMS = {
    "self": 24.0,
    "colour": 0.6,
    "texture": 0.3,
    "structure": 0.5,
    "gamma": 0.15,
    "tau": 1.0,
    "adain": 0.15,
    "injection": 0.15,
}
"""At least this much, in dB, shares of the distance to the style, edge correlation, levels and Lab units; see Scene.measure."""


@pytest.fixture(scope="module")
def scene() -> Scene:
    torch.set_num_threads(1)
    contents = [
        load_picture(DEMO / "contents" / n, 128).pixels
        for n in ("animal/macaw.jpg", "object/coffee.jpg")
    ]
    styles = [
        load_picture(DEMO / "styles" / n, 128).pixels for n in ("starry_night.jpg", "carpet.jpg")
    ]
    return Scene(load_model("tiny", device="cpu"), contents, styles, steps=5)


def _ignore_gamma(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "blend_query", lambda own, content, gamma: content)


def _ignore_tau(patch: pytest.MonkeyPatch) -> None:
    real = attention.attend_shared

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        counts: list[int],
        *,
        tau: float = 1.0,
        scale: float | None = None,
    ) -> Tensor:
        return real(q, k, v, counts, scale=scale)

    patch.setattr(attention, "attend_shared", attend)


def _ignore_adain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "adain", lambda content, style, eps=0.0, mask=None: content)


def _swap_keys_and_values(patch: pytest.MonkeyPatch) -> None:
    real = attention.attend_shared
    patch.setattr(
        attention,
        "attend_shared",
        lambda q, k, v, counts, **options: real(q, v, k, counts, **options),
    )


def _rotate_sites(patch: pytest.MonkeyPatch) -> None:
    real = HeldFeatures.at

    def at(self: HeldFeatures, t: int) -> SiteFeatures:
        found = real(self, t)
        return {site: found[3 * (site // 3) + (site + 1) % 3] for site in found}

    patch.setattr(HeldFeatures, "at", at)


def _drop_sites(patch: pytest.MonkeyPatch) -> None:
    real = StableDiffusion.editing
    patch.setattr(StableDiffusion, "editing", lambda self, edit, sites: real(self, edit, sites[:1]))


def _reverse_timesteps(patch: pytest.MonkeyPatch) -> None:
    real = HeldFeatures.at

    def at(self: HeldFeatures, t: int) -> SiteFeatures:
        times = sorted(self.by_timestep)
        return real(self, times[-1 - times.index(t)])

    patch.setattr(HeldFeatures, "at", at)


def test_the_method_meets_its_claims(scene: Scene) -> None:
    assert broken(scene, CLAIMS) == []


@pytest.mark.parametrize(
    ("mutate", "noticed"),
    [
        (_ignore_gamma, "gamma"),
        (_ignore_tau, "tau"),
        (_ignore_adain, "adain"),
        (_swap_keys_and_values, "self"),
        (_rotate_sites, "self"),
        (_drop_sites, "injection"),
        (_reverse_timesteps, "self"),
    ],
)
@pytest.mark.slow
def test_broken_method_is_noticed(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], None],
    noticed: str,
) -> None:
    mutate(monkeypatch)
    assert broken(scene, {noticed: CLAIMS[noticed]})
