"""Attention edits: what they see, that they come off again, and that recording changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stylebatch.diffusion import attention
from stylebatch.methods.styleid.features import FeatureKind, Recorder
from stylebatch.models.denoiser import SelfAttention, Site
from stylebatch.models.unet.edits import EditedProcessor, decoder_sites, installed
from stylebatch.models.unet.stable_diffusion import StableDiffusion


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def processors(model: StableDiffusion) -> dict[str, Any]:
    return dict(model.unet.attn_processors)


def passing(site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
    return layer.output(
        attention.attend(
            layer.query(hidden), layer.key(hidden), layer.value(hidden), scale=layer.scale
        )
    )


def zeroing(site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
    return torch.zeros_like(hidden)


def test_sites_are_numbered_three_per_level_with_none_where_a_level_has_no_attention(
    eps_model: StableDiffusion,
) -> None:
    sites = decoder_sites(eps_model.unet)
    assert eps_model.sites == tuple(sites) == tuple(range(3, 12))
    blocks = eps_model.unet.up_blocks
    assert sites[6] is blocks[2].attentions[0].transformer_blocks[0].attn1
    assert sites[11] is blocks[3].attentions[2].transformer_blocks[0].attn1


@pytest.mark.parametrize("kind", ["query", "key_value"])
def test_recording_leaves_the_network_output_unchanged(
    model: StableDiffusion, latents: Tensor, kind: FeatureKind
) -> None:
    cond = model.embed([""])
    plain = model.predict_noise(latents, 481, cond)
    recorder = Recorder(kind, attention.attend)
    with model.editing(recorder, model.sites):
        edited = model.predict_noise(latents, 481, cond)
    torch.testing.assert_close(edited, plain, rtol=1e-5, atol=1e-5)
    seen = recorder.take()
    assert tuple(seen) == model.sites
    assert recorder.take() == {}
    for site, tensors in seen.items():
        assert tuple(tensors) == {"query": ("q",), "key_value": ("k", "v")}[kind]
        layer = decoder_sites(model.unet)[site]
        shape = (2, layer.heads, 4 ** (site // 3), layer.inner_dim // layer.heads)
        assert all(tensor.shape == shape for tensor in tensors.values())
        assert all(is_dense(tensor) for tensor in tensors.values()), "a view keeps more alive"


def is_dense(tensor: Tensor) -> bool:
    """Whether (B, H, L, d) fills its storage, heads before tokens or within them."""
    fits = tensor.is_contiguous() or tensor.transpose(1, 2).is_contiguous()
    return fits and tensor.untyped_storage().nbytes() == tensor.nbytes


def test_layer_view_projects_as_the_layer_itself(
    eps_model: StableDiffusion, latents: Tensor
) -> None:
    cond = eps_model.embed([""])
    layer = decoder_sites(eps_model.unet)[8]
    recorders = [Recorder("query", attention.attend), Recorder("key_value", attention.attend)]
    for recorder in recorders:
        inputs: list[Tensor] = []
        hook = layer.to_q.register_forward_hook(
            lambda _module, args, _out, into=inputs: into.append(args[0])
        )
        with eps_model.editing(recorder, (8,)):
            eps_model.predict_noise(latents, 481, cond)
        hook.remove()
    queries, styles = (recorder.take()[8] for recorder in recorders)
    q, k, v = queries["q"], styles["k"], styles["v"]
    for tensor, projection in ((q, layer.to_q), (k, layer.to_k), (v, layer.to_v)):
        folded = layer.head_to_batch_dim(
            projection(inputs[0])
        )  # diffusers' own splitting into heads
        torch.testing.assert_close(tensor.flatten(0, 1), folded, rtol=1e-5, atol=1e-6)


def test_edit_replaces_the_layer_while_installed_and_only_then(
    eps_model: StableDiffusion, latents: Tensor
) -> None:
    cond, before = eps_model.embed([""]), processors(eps_model)
    plain = eps_model.predict_noise(latents, 481, cond)
    with eps_model.editing(zeroing, (6, 11)):
        assert sum(isinstance(p, EditedProcessor) for p in processors(eps_model).values()) == 2
        assert not torch.allclose(eps_model.predict_noise(latents, 481, cond), plain, atol=1e-3)
    after = processors(eps_model)
    assert all(after[name] is before[name] for name in before)
    assert torch.equal(eps_model.predict_noise(latents, 481, cond), plain)


def test_edit_comes_off_when_the_block_raises(eps_model: StableDiffusion) -> None:
    before = processors(eps_model)
    with pytest.raises(KeyError, match="from inside"), eps_model.editing(zeroing, (6, 7)):
        raise KeyError("from inside")
    assert all(processors(eps_model)[name] is before[name] for name in before)


def test_edit_comes_off_when_the_edit_itself_raises(
    eps_model: StableDiffusion, latents: Tensor
) -> None:
    def broken(site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        raise RuntimeError("out of memory")

    before = processors(eps_model)
    with pytest.raises(RuntimeError, match="out of memory"), eps_model.editing(broken, (9,)):
        eps_model.predict_noise(latents, 481, eps_model.embed([""]))
    assert all(processors(eps_model)[name] is before[name] for name in before)


def test_unknown_site_is_named_with_the_sites_there_are_and_nothing_is_installed(
    eps_model: StableDiffusion,
) -> None:
    before = processors(eps_model)
    match = r"sites: \[0, 12\] not in this network; it has self-attention at sites \[3, 4, 5, 6, 7, 8, 9, 10, 11\]"
    with pytest.raises(ValueError, match=match), installed(eps_model.unet, zeroing, (0, 6, 12)):
        pass
    assert all(processors(eps_model)[name] is before[name] for name in before)


def test_nested_installs_restore_the_outer_edit_first(eps_model: StableDiffusion) -> None:
    layer, before = decoder_sites(eps_model.unet)[7], processors(eps_model)
    with eps_model.editing(passing, (6, 7)):
        outer = layer.processor
        with eps_model.editing(zeroing, (7, 8)):
            assert layer.processor.edit is zeroing
        assert layer.processor is outer
        assert outer.edit is passing
    assert all(processors(eps_model)[name] is before[name] for name in before)


def test_edit_sees_every_chosen_site_once_in_decoder_order(
    eps_model: StableDiffusion, latents: Tensor
) -> None:
    visited: list[Site] = []

    def noting(site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        visited.append(site)
        return passing(site, hidden, layer)

    with eps_model.editing(noting, (11, 6, 9)):
        eps_model.predict_noise(latents, 481, eps_model.embed([""]))
    assert visited == [6, 9, 11]


def test_no_sites_install_nothing(eps_model: StableDiffusion) -> None:
    before = processors(eps_model)
    with eps_model.editing(zeroing, ()):
        assert all(processors(eps_model)[name] is before[name] for name in before)


def test_cross_attention_is_refused(eps_model: StableDiffusion) -> None:
    layer = decoder_sites(eps_model.unet)[6]
    hidden = torch.zeros(1, 4, 8)
    with pytest.raises(ValueError, match="site 6 is not plain self-attention"):
        EditedProcessor(passing, 6)(layer, hidden, encoder_hidden_states=hidden)
