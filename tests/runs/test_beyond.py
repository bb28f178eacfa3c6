"""StyleID beyond the paper: schedules of gamma, blends, masks, solvers and exact inversion, on the method itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipelines.embedded.further import DeepHalfReused, FewForContents
from stylebatch.diffusion import attention
from stylebatch.methods.styleid.algorithm import Mixture, Pairs, StyleID
from stylebatch.methods.styleid.features import Kept
from stylebatch.methods.styleid.options import BEYOND_THE_PAPER, StyleIDOptions
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import CONTENTS, QUICK, STYLES, Counting, inverted, rel, styleid

CHANGED: dict[str, Any] = {
    "gamma_schedule": "cosine",
    "gamma_end_share": 0.25,
    "site_gammas": [0.9, 0.6, 0.3],
    "grid": "spread",
    "solver": "ab2",
    "inversion": "bdia",
    "blend": "outputs",
}


def test_options_beyond_the_paper_are_dumped_only_when_they_are_used() -> None:
    assert set(CHANGED) == set(BEYOND_THE_PAPER)
    assert not set(StyleIDOptions().model_dump()) & set(BEYOND_THE_PAPER)
    for name, value in CHANGED.items():
        options = styleid(**{name: value})
        for dumped in (options.model_dump(), options.model_dump(mode="json")):
            assert [field for field in dumped if field in BEYOND_THE_PAPER] == [name]
            assert StyleID.model_validate(dumped) == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site_gammas": [0.5]}, "site_gammas: found 1 values; accepted: 3, one for each of sites"),
        ({"inversion": "bdia", "solver": "ab2"}, "found solver ab2, accepted: ddim"),
        ({"inversion": "bdia", "start": "paper"}, "found start paper, accepted: level"),
        ({"inversion": "bdia", "convention": "diffusers"}, "found convention diffusers, accepted: ldm"),
        ({"inversion": "bdia", "steps": 2}, "steps: found 2; inversion bdia needs 3 or more"),
        ({"grid": "spread", "steps": 501}, "steps: found 501; grid spread accepts 2 to 500"),
        ({"grid": "spread", "convention": "diffusers"}, "convention diffusers accepts stride"),
        ({"grid_power": 1.2}, r"grid_power: found 1\.2; accepted with grid stride: 1"),
        ({"grid": "spread", "grid_power": 2, "steps": 100}, "100 steps repeat timesteps"),
        ({"steps": 7}, "and any number with grid: spread"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        styleid(**options)


@pytest.mark.parametrize(
    ("schedule", "middle"),
    [("constant", 0.8), ("linear", 0.6), ("cosine", 0.6), ("sqrt", 0.8 * (1 - 0.5 * 0.5**0.5))],
)
def test_gamma_falls_along_the_reverse(
    eps_model: StableDiffusion, schedule: str, middle: float
) -> None:
    method = styleid(gamma=0.8, gamma_schedule=schedule, steps=5)
    path = method.trajectory(eps_model)
    along = [method.gammas(step.t, path)[6] for step in path.reverse]
    assert along[0] == 0.8
    assert along[2] == pytest.approx(middle)
    assert along[-1] == pytest.approx(0.8 if schedule == "constant" else 0.4)
    assert along == sorted(along, reverse=True)


def test_each_site_may_have_its_own_gamma(eps_model: StableDiffusion) -> None:
    method = styleid(site_gammas=[0.9, 0.6, 0.3], gamma_schedule="linear", gamma_end_share=0.0)
    path = method.trajectory(eps_model)
    assert method.gammas(path.reverse[0].t, path) == {6: 0.9, 9: 0.6, 11: 0.3}
    assert method.gammas(path.reverse[-1].t, path) == {6: 0.0, 9: 0.0, 11: 0.0}


def test_equal_gammas_per_site_are_one_gamma(eps_model: StableDiffusion) -> None:
    one, each = styleid(gamma=0.6), styleid(site_gammas=[0.6, 0.6, 0.6])
    contents, styles = inverted(one, eps_model)
    expected = one.stylise(eps_model, contents, styles)
    assert torch.equal(each.stylise(eps_model, contents, styles), expected)
    other = styleid(site_gammas=[0.6, 0.6, 0.1]).stylise(eps_model, contents, styles)
    assert rel(other, expected) > 1e-4


def test_weights_of_a_blend_are_shares_of_every_key() -> None:
    q, k, v = (
        torch.randn(n, 2, 6, 4, generator=torch.Generator().manual_seed(n)) for n in (3, 2, 4)
    )
    k, v, weights = torch.cat([k, k[:1]]), v[:3], (0.5, 0.3, 0.2)
    found = attention.attend_blended(q, k, v, weights, tau=1.5)
    logits = 1.5 * torch.einsum("chld,mhnd->chlmn", q, k) / 2.0
    shares = logits.exp() * torch.tensor(weights)[:, None]
    shares = shares / shares.sum(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(found, torch.einsum("chlmn,mhnd->chld", shares, v))


@pytest.mark.parametrize("blend", ["tokens", "outputs"])
def test_a_style_blended_with_itself_is_that_style(eps_model: StableDiffusion, blend: str) -> None:
    method = styleid(blend=blend)
    contents, _ = inverted(method, eps_model)
    styles = method.invert(eps_model, STYLES[[1, 1, 2]], "key_value")
    expected = method.stylise(eps_model, contents, styles, Pairs.product(3, 1))
    mixed = method.stylise(eps_model, contents, styles, mixtures=[Mixture((0, 1), (0.3, 0.7))])
    assert rel(mixed, expected) < 1e-5


@pytest.mark.parametrize("blend", ["tokens", "outputs"])
def test_a_blend_lies_between_its_styles(eps_model: StableDiffusion, blend: str) -> None:
    method = styleid(blend=blend)
    contents, styles = inverted(method, eps_model)

    def render(weight: float) -> Tensor:
        rows = Mixture((0, 1), (weight, 1.0 - weight))
        return method.stylise(eps_model, contents, styles, mixtures=[rows])

    first, second = (
        method.stylise(eps_model, contents, styles, mixtures=[Mixture((row,))]) for row in (0, 1)
    )
    assert rel(render(0.999), first) < 0.02 < rel(first, second)
    assert rel(render(0.001), second) < 0.02
    nearness = [rel(render(weight), first) for weight in (0.2, 0.5, 0.8)]
    assert nearness == sorted(nearness, reverse=True)


def test_blends_and_styles_share_batches(eps_model: StableDiffusion) -> None:
    method = styleid()
    contents, styles = inverted(method, eps_model)
    mixtures = [Mixture((2,)), Mixture((0, 2), (0.4, 0.6)), Mixture((1,))]
    whole = method.stylise(eps_model, contents, styles, mixtures=mixtures)
    for index, mixture in enumerate(mixtures):
        alone = method.stylise(eps_model, contents, styles, mixtures=[mixture])
        assert rel(whole[3 * index : 3 * index + 3], alone) < 1e-4


def test_start_of_a_blend_has_the_blended_statistics(eps_model: StableDiffusion) -> None:
    method = styleid()
    contents, styles = inverted(method, eps_model)
    mixtures = [Mixture((0, 1), (0.25, 0.75))]
    start = method.initial_latents(contents, styles, Pairs.product(3, 1), mixtures=mixtures)
    mean, std = (
        0.25 * f(styles.latent[0]) + 0.75 * f(styles.latent[1])
        for f in (lambda x: x.mean((1, 2)), lambda x: x.std((1, 2)))
    )
    torch.testing.assert_close(start.mean((2, 3)), mean.expand(3, -1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(start.std((2, 3)), std.expand(3, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "weights"), [((0, 1), (0.5, 0.6)), ((0, 0), (0.5, 0.5)), ((0,), (0.9,)), ((0, 1), (1.0, 0.0))]
)  # fmt: skip
def test_weights_that_are_none_are_refused(
    rows: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="mixture: found"):
        Mixture(rows, weights)


def test_a_white_mask_is_no_mask(eps_model: StableDiffusion) -> None:
    method = styleid()
    contents, styles = inverted(method, eps_model)
    plain = method.stylise(eps_model, contents, styles)
    masked = method.stylise(eps_model, contents, styles, masks=torch.ones(3, 1, 8, 8))
    assert rel(masked, plain) < 1e-5


def test_under_a_black_mask_the_style_is_ignored(eps_model: StableDiffusion) -> None:
    method = styleid()
    contents, styles = inverted(method, eps_model)
    masked = method.stylise(eps_model, contents, styles, masks=torch.zeros(3, 1, 8, 8))
    plain = method.reverse_plain(eps_model, contents)
    assert rel(masked, plain.repeat(3, 1, 1, 1)) < 1e-5


def test_masks_go_with_their_contents(eps_model: StableDiffusion) -> None:
    method, masks = styleid(), torch.zeros(3, 1, 8, 8)
    masks[0], masks[2, :, :, 4:] = 1.0, 1.0
    contents, styles = inverted(method, eps_model)
    found = method.stylise(eps_model, contents, styles, masks=masks, batch=4)
    plain, whole = (
        method.reverse_plain(eps_model, contents),
        method.stylise(eps_model, contents, styles),
    )
    assert rel(found[0::3], whole[0::3]) < 1e-4
    assert rel(found[1::3], plain[[1, 1, 1]]) < 1e-4
    left, right = found[2::3, ..., :4], found[2::3, ..., 4:]
    assert rel(left, plain[[2, 2, 2]][..., :4]) < rel(right, plain[[2, 2, 2]][..., 4:])


@pytest.mark.parametrize(
    ("inversion", "solver"),
    [("ddim", "ddim"), ("ddim", "ab2"), ("ddim", "dpmpp_2m"), ("bdia", "ddim")],
)
def test_evaluations_are_those_promised(
    eps_model: StableDiffusion, inversion: str, solver: str
) -> None:
    for start in ("level",) if inversion != "ddim" else ("level", "paper"):
        for grid in ("stride", "spread"):
            method = styleid(inversion=inversion, solver=solver, start=start, grid=grid, steps=4)
            counting = Counting(eps_model)
            contents = method.invert(counting, CONTENTS[:1], "query")
            styles = method.invert(counting, STYLES[:1], "key_value")
            assert len(counting.evaluations) == 2 * method.num_inversion_evaluations
            counting.evaluations.clear()
            method.stylise(counting, contents, styles)
            assert len(counting.evaluations) == method.num_reverse_evaluations


@pytest.mark.parametrize("kind", [FewForContents, DeepHalfReused])
def test_experiments_that_save_nothing_change_nothing(
    eps_model: StableDiffusion, kind: type[StyleID]
) -> None:
    saving = {"content_steps": 2} if kind is FewForContents else {"every": 2}
    none = {"content_steps": 5} if kind is FewForContents else {"every": 1}
    found = {}
    for name, method in {
        "plain": styleid(grid="spread", steps=5),
        "none": kind.model_validate(QUICK | none | {"grid": "spread", "steps": 5}),
        "saving": kind.model_validate(QUICK | saving | {"grid": "spread", "steps": 5}),
    }.items():
        found[name] = method.stylise(eps_model, *inverted(method, eps_model))
    assert torch.equal(found["plain"], found["none"])
    assert not torch.equal(found["plain"], found["saving"])


def test_exact_inversion_returns_the_latent(model: StableDiffusion) -> None:
    method = styleid(inversion="bdia", steps=10)
    error = rel(method.reverse_plain(model, method.invert(model, CONTENTS, "query")), CONTENTS)
    ddim = styleid(steps=10)
    assert (
        error
        < 1e-3
        < rel(ddim.reverse_plain(model, ddim.invert(model, CONTENTS, "query")), CONTENTS)
    )


@pytest.mark.parametrize("keep", ["held", "hosted", "recomputed"])
def test_content_stylised_by_itself_returns_exactly(eps_model: StableDiffusion, keep: Kept) -> None:
    method = styleid(inversion="bdia", steps=10, gamma=1.0, tau=1.0)
    contents = method.invert(eps_model, CONTENTS, "query", keep=keep)
    own = method.invert(eps_model, CONTENTS, "key_value", keep=keep)
    found = method.stylise(eps_model, contents, own, Pairs((0, 1, 2), (0, 1, 2)))
    assert rel(found, CONTENTS) < 1e-3
