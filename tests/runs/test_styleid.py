"""StyleID: blocks equal pairs one at a time, options do what they say, evaluations are those promised."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from stylebatch.diffusion import attention, ddim
from stylebatch.methods.builtin import METHODS
from stylebatch.methods.styleid.algorithm import Pairs, StyleID
from stylebatch.methods.styleid.features import FeatureKind, Inverted
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import CONTENTS, STYLES, Counting, inverted, rel, styleid

WIDE = 0.8 * torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(3))


@cache
def alone(
    method: StyleID, model: StableDiffusion, kind: FeatureKind, row: int, wide: bool
) -> Inverted:
    images = CONTENTS if kind == "query" else WIDE if wide else STYLES
    return method.invert(model, images[[row]], kind)


@cache
def pair(method: StyleID, model: StableDiffusion, content: int, style: int, wide: bool) -> Tensor:
    query = alone(method, model, "query", content, False)
    return method.stylise(model, query, alone(method, model, "key_value", style, wide))


def one_at_a_time(
    method: StyleID, model: StableDiffusion, pairs: Pairs, *, wide: bool = False
) -> Tensor:
    """Every image inverted alone, every pair rendered alone."""
    rows = zip(pairs.content, pairs.style, strict=True)
    return torch.cat([pair(method, model, content, style, wide) for content, style in rows])


@cache
def block_of(method: StyleID, model: StableDiffusion) -> Tensor:
    """Every content with every style."""
    return method.stylise(model, *inverted(method, model))


@pytest.mark.parametrize("convention", ["ldm", "diffusers"])
def test_block_equals_one_pair_at_a_time(model: StableDiffusion, convention: str) -> None:
    method = styleid(convention=convention)
    block, rows = block_of(method, model), [0, 2, 4, 7, 8]
    assert block.shape == (9, 4, 8, 8)
    assert block.dtype == torch.float32
    block = block[rows]  # by style, then by content
    separate = one_at_a_time(
        method, model, Pairs(tuple(row % 3 for row in rows), tuple(row // 3 for row in rows))
    )
    assert rel(block, separate) < 1e-4
    assert max(rel(a, b) for a, b in zip(block, separate, strict=True)) < 1e-4


@pytest.mark.parametrize(
    "pairs",
    [
        Pairs((1,), (2,)),
        Pairs((0, 1, 2), (0, 1, 2)),
        Pairs((0, 1, 2, 1), (0, 0, 0, 2)),
        Pairs((2, 0, 1), (0, 2, 2)),
        Pairs((1, 1, 2, 0), (1, 1, 2, 2)),
    ],
    ids=lambda pairs: f"{pairs.content}x{pairs.style}",
)
def test_irregular_pairs_equal_one_pair_at_a_time(eps_model: StableDiffusion, pairs: Pairs) -> None:
    method = styleid()
    block = method.stylise(eps_model, *inverted(method, eps_model), pairs)
    separate = one_at_a_time(method, eps_model, pairs)
    assert max(rel(a, b) for a, b in zip(block, separate, strict=True)) < 1e-4


@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_size_of_batches_does_not_change_the_result(eps_model: StableDiffusion, batch: int) -> None:
    method = styleid()
    whole = block_of(method, eps_model)
    cut = method.stylise(eps_model, *inverted(method, eps_model, batch), batch=batch)
    assert max(rel(a, b) for a, b in zip(cut, whole, strict=True)) < 1e-4


def test_pairs_in_any_order_keep_their_order_or_are_refused(eps_model: StableDiffusion) -> None:
    method, pairs = styleid(), ((0, 1, 2), (1, 0, 1))
    try:
        block = method.stylise(eps_model, *inverted(method, eps_model), Pairs(*pairs))
    except ValueError:
        return  # an error is as good as the right order; a picture under the wrong names is not
    separate = one_at_a_time(method, eps_model, Pairs(*pairs))
    assert max(rel(a, b) for a, b in zip(block, separate, strict=True)) < 1e-4


IRREGULAR = Pairs((0, 1, 2, 3, 4, 0, 0, 1, 2, 4), (0, 0, 0, 0, 0, 1, 3, 3, 3, 4))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 9, 10, 100])
@pytest.mark.parametrize(
    "pairs",
    [Pairs.product(5, 4), Pairs.product(1, 7), Pairs.product(7, 1), IRREGULAR],
    ids=["5x4", "1x7", "7x1", "irregular"],
)
def test_batches_cover_every_pair_once_in_order(pairs: Pairs, size: int) -> None:
    batches = pairs.batches(size)
    assert tuple(c for part in batches for c in part.content) == pairs.content
    assert tuple(s for part in batches for s in part.style) == pairs.style
    assert all(1 <= len(part.content) <= size for part in batches)
    per_style = Counter(pairs.style)
    for style, count in per_style.items():
        holding = sum(style in part.style for part in batches)
        assert holding == -(-count // size)  # whole where it fits, else as few parts as possible


def test_product_is_sorted_by_style_then_content() -> None:
    pairs = Pairs.product(3, 2)
    assert list(zip(pairs.style, pairs.content, strict=True)) == list(product(range(2), range(3)))


@pytest.mark.parametrize("steps", [4, 5])
def test_without_injection_and_adain_the_style_is_ignored_and_the_reverse_is_plain(
    model: StableDiffusion, steps: int
) -> None:
    method = styleid(steps=steps, start="level", inject=False, init_adain=False)
    contents, styles = inverted(method, model)
    plain = method.reverse_plain(model, contents)
    out = method.stylise(model, contents, styles)
    assert rel(out, plain.repeat(3, 1, 1, 1)) < 1e-5


def test_port_returns_the_clean_latent_of_the_last_step(model: StableDiffusion) -> None:
    method = styleid(convention="diffusers", inject=False, init_adain=False)
    contents, styles = inverted(method, model)
    path, cond = method.trajectory(model), model.embed([""])

    def predict(x: Tensor, step: Any) -> Tensor:
        return model.predict_noise(x, step.t, cond, level=step.source)

    before = ddim.run(model.schedule, predict, contents.latent, path.reverse[:-1])
    expected = ddim.predict_x0(
        model.schedule, before, predict(before, path.reverse[-1]), path.reverse[-1]
    )
    out = method.stylise(model, contents, styles, Pairs((0, 1, 2), (0, 0, 0)))
    assert rel(out, expected) < 1e-5


@pytest.mark.parametrize(
    "changed",
    [
        {"gamma": 0.0},
        {"gamma": 1.0},
        {"tau": 1.0},
        {"sites": [6, 9]},
        {"init_adain": False},
        {"inject": False},
        {"start": "paper"},
        {"steps": 5},
    ],
    ids=str,
)
def test_every_option_changes_the_result(
    eps_model: StableDiffusion, changed: dict[str, Any]
) -> None:
    found, plain = (pair(m, eps_model, 0, 0, False) for m in (styleid(**changed), styleid()))
    assert rel(found, plain) > 1e-3


def test_gamma_one_and_zero_differ_from_each_other(model: StableDiffusion) -> None:
    contents, styles = inverted(styleid(), model)
    one, zero = (
        styleid(gamma=gamma).stylise(model, contents, styles, Pairs((0,), (0,)))
        for gamma in (1.0, 0.0)
    )
    assert rel(one, zero) > 1e-2


def test_results_of_two_styles_differ(eps_model: StableDiffusion) -> None:
    method = styleid()
    out = method.stylise(eps_model, *inverted(method, eps_model), Pairs((0, 0), (0, 1)))
    assert rel(out[0], out[1]) > 1e-2


@pytest.mark.parametrize(
    "options",
    [{"start": "level"}, {"start": "paper"}, {"steps": 5}, {"convention": "diffusers"}],
    ids=str,
)
def test_evaluations_are_as_many_as_the_options_promise(
    eps_model: StableDiffusion, options: dict[str, Any]
) -> None:
    method, counting = styleid(**options), Counting(eps_model)
    path = method.trajectory(counting)
    contents = method.invert(counting, CONTENTS[:1], "query")
    assert [t for t, _ in counting.evaluations] == [step.t for step in path.inversion]
    assert len(counting.evaluations) == method.num_inversion_evaluations
    styles = method.invert(counting, STYLES[:1], "key_value")
    counting.evaluations.clear()
    method.stylise(counting, contents, styles)
    assert [t for t, _ in counting.evaluations] == [step.t for step in path.reverse]
    assert len(counting.evaluations) == method.num_reverse_evaluations


def test_no_evaluation_is_larger_than_the_batch(eps_model: StableDiffusion) -> None:
    method, counting = styleid(), Counting(eps_model)
    contents, styles = inverted(method, counting, batch=2)
    method.stylise(counting, contents, styles, batch=2)
    assert max(rows for _, rows in counting.evaluations) == 2
    assert sum(rows for _, rows in counting.evaluations) == 4 * (3 + 3 + 9)


@pytest.mark.parametrize("kind", ["query", "key_value"])
def test_features_are_kept_for_the_timesteps_of_the_reverse_alone(
    eps_model: StableDiffusion, kind: FeatureKind
) -> None:
    method = styleid(start="paper")
    source = method.invert(eps_model, CONTENTS, kind, batch=2)
    used = [step.t for step in method.trajectory(eps_model).reverse]
    assert sorted(source.features.by_timestep, reverse=True) == used  # type: ignore[attr-defined]
    assert 751 not in used
    for t in used:
        features = source.features.at(t)
        assert tuple(features) == method.sites
        names = ("q",) if kind == "query" else ("k", "v")
        for tensors in features.values():
            assert tuple(tensors) == names
            assert all(tensor.shape[0] == 3 for tensor in tensors.values())
    assert source.num_images == 3


def test_without_injection_no_features_are_kept(eps_model: StableDiffusion) -> None:
    source = styleid(inject=False).invert(eps_model, CONTENTS, "query", batch=2)
    assert source.features.by_timestep == {}  # type: ignore[attr-defined]


def test_start_has_the_content_layout_and_the_style_statistics(eps_model: StableDiffusion) -> None:
    method, pairs = styleid(), Pairs((0, 2), (1, 1))
    contents, styles = inverted(method, eps_model)
    start = method.initial_latents(contents, styles, pairs)
    torch.testing.assert_close(
        start.mean((2, 3)), styles.latent[[1, 1]].mean((2, 3)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        start.std((2, 3)), styles.latent[[1, 1]].std((2, 3)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        start, attention.adain(contents.latent[[0, 2]], styles.latent[[1, 1]])
    )
    plain = styleid(init_adain=False).initial_latents(contents, styles, pairs)
    assert torch.equal(plain, contents.latent[[0, 2]])


def test_port_adds_1e_4_to_the_content_std(eps_model: StableDiffusion) -> None:
    method, pairs = styleid(convention="diffusers"), Pairs((0,), (1,))
    contents, styles = inverted(method, eps_model)
    expected = attention.adain(contents.latent[:1], styles.latent[1:2], eps=1e-4)
    assert torch.equal(method.initial_latents(contents, styles, pairs), expected)


def test_style_of_another_size_is_accepted(eps_model: StableDiffusion) -> None:
    method = styleid()
    contents, _ = inverted(method, eps_model)
    styles = method.invert(eps_model, WIDE, "key_value")
    out = method.stylise(eps_model, contents, styles)
    assert out.shape == (6, 4, 8, 8)
    assert rel(out, one_at_a_time(method, eps_model, Pairs.product(3, 2), wide=True)) < 1e-4


@pytest.mark.parametrize("batch", [16, 2])
def test_latents_of_every_level_are_shown_for_all_images(
    eps_model: StableDiffusion, batch: int
) -> None:
    method = styleid()
    source = method.invert(eps_model, CONTENTS, "query", batch=batch)
    seen = source.levels
    assert list(seen) == [1, 251, 501, 751]
    assert torch.equal(seen[1], CONTENTS)
    assert all(latent.shape == CONTENTS.shape for latent in seen.values())
    assert torch.equal(seen[751], source.latent)


def test_network_is_left_without_edits(eps_model: StableDiffusion) -> None:
    before = dict(eps_model.unet.attn_processors)
    method = styleid()
    method.stylise(eps_model, *inverted(method, eps_model), Pairs((0,), (0,)))
    assert all(
        eps_model.unet.attn_processors[name] is processor for name, processor in before.items()
    )


def test_site_that_the_network_lacks_is_a_value_error(eps_model: StableDiffusion) -> None:
    with pytest.raises(ValueError, match=r"sites: \[0\] not in this network"):
        styleid(sites=[0, 6]).invert(eps_model, CONTENTS, "query")


def test_methods_are_found_by_the_name_in_the_manifest() -> None:
    assert all(method.model_fields["name"].default == name for name, method in METHODS.items())
    assert METHODS["styleid"] is StyleID
