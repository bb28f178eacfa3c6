"""StyleAligned: the reference is itself, sets split without a trace, options that cannot work are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.noise import draw
from stylebatch.diffusion.windows import Windows
from stylebatch.methods.prompted import Prompts, embedded
from stylebatch.methods.stylealigned.algorithm import Reference, StyleAligned
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.unet.stable_diffusion import StableDiffusion


@pytest.fixture(scope="module")
def xl(golden: Path) -> StableDiffusion:
    return load_checkpoint(Checkpoint(golden / "stylealigned_sdxl" / "model"), device="cpu")


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def network(request: pytest.FixtureRequest) -> StableDiffusion:
    loaded: StableDiffusion = request.getfixturevalue(
        {"sd": "v_model", "sdxl": "xl"}[request.param]
    )
    return loaded


def text2img(model: StableDiffusion, prompts: Prompts, noise: Tensor, *, steps: int) -> Tensor:
    """Plain DDIM sampling."""
    return ddim.run(
        model.schedule,
        lambda x, step: prompts.predict(model, x, step),
        noise,
        model.schedule.sampling_steps(steps),
    )


TEXTS = ["a cat, stripes", "a house, stripes", "a train, stripes", "a tree, stripes"]


def scene(model: StableDiffusion, guidance: float = 5.0) -> tuple[Reference, Tensor, Prompts]:
    noise = draw(range(4), (4, 16, 16))
    prompts = embedded(model, TEXTS, negative=["blurred"], guidance=guidance)
    samples = Prompts(prompts.positive.select([1, 2, 3]), prompts.negative, guidance)
    return Reference(noise[:1], prompts.select([0])), noise[1:], samples


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_set_split_over_batches_gives_the_same_images(
    network: StableDiffusion, guidance: float
) -> None:
    method = StyleAligned(steps=4, shared_score_shift=0.5, shared_score_scale=1.1)
    reference, noise, prompts = scene(network, guidance)
    whole = method.generate(network, reference, noise, prompts, batch=4)
    for batch in (2, 3):
        split = method.generate(network, reference, noise, prompts, batch=batch)
        torch.testing.assert_close(split.samples, whole.samples, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(split.reference, whole.reference, rtol=1e-4, atol=1e-4)


def test_the_reference_runs_as_if_alone_and_the_others_do_not(network: StableDiffusion) -> None:
    method = StyleAligned(
        steps=4, adain_values=True, shared_score_scale=1.3, shared_score_shift=1.0
    )
    reference, noise, prompts = scene(network)
    found = method.generate(network, reference, noise, prompts)
    alone = text2img(network, reference.prompts, reference.start, steps=4)
    torch.testing.assert_close(found.reference, alone, rtol=1e-4, atol=1e-4)
    plain = text2img(network, prompts, noise, steps=4)
    assert float((found.samples - plain).norm() / plain.norm()) > 0.01


def test_nothing_shared_is_plain_sampling(network: StableDiffusion) -> None:
    method = StyleAligned(
        steps=4,
        share_attention=False,
        adain_queries=False,
        adain_keys=False,
        share_group_norm=False,
    )
    reference, noise, prompts = scene(network)
    found = method.generate(network, reference, noise, prompts)
    torch.testing.assert_close(found.samples, text2img(network, prompts, noise, steps=4))


def test_every_layer_plain_is_attention_unshared(v_model: StableDiffusion) -> None:
    reference, noise, prompts = scene(v_model)
    unshared = StyleAligned(
        steps=2, share_attention=False, adain_queries=False, adain_keys=False
    ).generate(v_model, reference, noise, prompts)
    plain = StyleAligned(steps=2, only_self_level=1.0).generate(v_model, reference, noise, prompts)
    torch.testing.assert_close(plain.samples, unshared.samples, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("level", "shared"),
    [
        (0.0, tuple(range(10))),
        (0.05, tuple(range(10))),
        (0.3, (1, 2, 4, 5, 7, 8)),
        (0.5, (1, 3, 5, 7, 9)),
        (0.7, (0, 3, 6, 9)),
        (1.0, ()),
    ],
)
def test_only_self_level_picks_layers(level: float, shared: tuple[int, ...]) -> None:
    assert StyleAligned(only_self_level=level).shared_layers(10) == shared


def test_full_sharing_of_equal_samples_changes_nothing(v_model: StableDiffusion) -> None:
    reference, _, _ = scene(v_model)
    method = StyleAligned(steps=2, full_attention_share=True)
    same = reference.start.expand(3, -1, -1, -1)
    found = method.generate(v_model, reference, same, reference.prompts)
    alone = text2img(v_model, reference.prompts, reference.start, steps=2)
    torch.testing.assert_close(found.samples, alone.expand(3, -1, -1, -1), rtol=1e-4, atol=1e-4)


def test_full_sharing_cannot_be_split(v_model: StableDiffusion) -> None:
    reference, noise, prompts = scene(v_model)
    with pytest.raises(ValueError, match="batch: found 3 for 3 samples"):
        StyleAligned(steps=2, full_attention_share=True).generate(
            v_model, reference, noise, prompts, batch=3
        )


def test_a_reference_image_ends_as_itself_and_the_network_is_left_as_found(
    network: StableDiffusion,
) -> None:
    _, noise, prompts = scene(network)
    picture = draw([9], (4, 16, 16))
    method = StyleAligned(steps=4, offset=2)
    before = dict(network.unet.attn_processors)
    lone = prompts.select([0])
    levels = method.invert(network, picture, Prompts(lone.positive, network.embed_nothing(), 2.0))
    assert len(levels) == 5
    reference = method.reference_of_image(levels, lone)
    assert torch.equal(reference.start, levels[2])
    found = method.generate(network, reference, noise, prompts, batch=2)
    assert torch.equal(found.reference, picture)
    assert network.unet.attn_processors == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.unet.modules())


def test_panorama_of_one_window_is_the_plain_sample(v_model: StableDiffusion) -> None:
    reference, noise, prompts = scene(v_model)
    method = StyleAligned(steps=2)
    plain = method.generate(v_model, reference, noise, prompts)
    found = method.generate(v_model, reference, noise, prompts, windows=Windows(16, 8))
    assert torch.equal(found.samples, plain.samples)


@pytest.mark.parametrize("circular", [False, True])
def test_panoramas_do_not_depend_on_the_batch(v_model: StableDiffusion, circular: bool) -> None:
    reference, _, prompts = scene(v_model)
    canvases, windows = draw([5, 6, 7], (4, 16, 32)), Windows(16, 8, circular)
    method = StyleAligned(steps=2)
    found = [
        method.generate(v_model, reference, canvases, prompts, windows=windows, batch=batch)
        for batch in (2, 8)
    ]
    torch.testing.assert_close(found[0].samples, found[1].samples, rtol=1e-4, atol=1e-4)
    lone = method.generate(v_model, reference, canvases[1:2], prompts.select([1]), windows=windows)
    torch.testing.assert_close(found[0].samples[1:2], lone.samples, rtol=1e-4, atol=1e-4)


def test_a_reference_of_another_size_is_refused(v_model: StableDiffusion) -> None:
    reference, _, prompts = scene(v_model)
    with pytest.raises(ValueError, match=r"reference: found a latent of \(4, 16, 16\)"):
        StyleAligned(steps=2).generate(v_model, reference, draw([1], (4, 16, 32)), prompts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 4, "offset": 4},
        {"guidance": 0.5},
        {"only_self_level": 1.1},
        {"shared_score_scale": 0.0},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StyleAligned.model_validate(wrong)


def test_edits_come_off_when_the_network_fails(
    v_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, noise, prompts = scene(v_model)
    before = dict(v_model.unet.attn_processors)

    def failing(count: int) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(v_model, "on_evaluations", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        StyleAligned(steps=2).generate(v_model, reference, noise, prompts)
    assert v_model.unet.attn_processors == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in v_model.unet.modules())
