"""Installs attention edits in a UNet for a `with` block.

Everything that depends on how diffusers organises its attention layers is in this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from stylebatch.models.denoiser import AttentionEdit, Lenders, Site
from stylebatch.models.family import NUM_SITES
from stylebatch.models.unet.network import LEVELS, POSITIONS


@dataclass(frozen=True)
class AttentionLayer:
    """`SelfAttention` over a diffusers `Attention` module."""

    module: Any

    @property
    def scale(self) -> float:
        return float(self.module.scale)

    def query(self, hidden: Tensor) -> Tensor:
        return self._heads(self.module.to_q(hidden))

    def key(self, hidden: Tensor) -> Tensor:
        return self._heads(self.module.to_k(hidden))

    def value(self, hidden: Tensor) -> Tensor:
        return self._heads(self.module.to_v(hidden))

    def output(self, attended: Tensor) -> Tensor:
        batch, heads, tokens, dim = attended.shape
        # to_out[1] is dropout, which does nothing in inference
        merged = attended.transpose(1, 2).reshape(batch, tokens, heads * dim)
        return cast(Tensor, self.module.to_out[0](merged.to(self.module.to_out[0].weight.dtype)))

    def _heads(self, projected: Tensor) -> Tensor:
        batch, tokens, features = projected.shape
        heads = int(self.module.heads)
        return projected.view(batch, tokens, heads, features // heads).transpose(1, 2)


class EditedProcessor:
    """The processor that diffusers calls instead of the layer's usual one while an edit is installed."""

    def __init__(self, edit: AttentionEdit, site: Site) -> None:
        self.edit = edit
        self.site = site

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError(
                f"site {self.site} is not plain self-attention; edits accept only attn1 layers"
            )
        return self.edit(self.site, hidden_states, AttentionLayer(attn))


def decoder_sites(unet: nn.Module) -> dict[Site, Any]:
    """Self-attention layers of the decoder by number: block b of site s is `s + NUM_SITES * b`.

    Site 3 i + j is `up_blocks[i].attentions[j]`, so numbers mean the same in every UNet; levels without attention, and
    positions beyond the third, have no sites.
    """
    # Numbers count positions, not attention layers: a UNet that lacks attention at one level keeps the others' numbers.
    sites: dict[Site, Any] = {}
    for level, block in enumerate(list(cast(Any, unet).up_blocks)[:LEVELS]):
        for position, transformer in enumerate(
            (getattr(block, "attentions", None) or ())[:POSITIONS]
        ):
            for depth, layer in enumerate(transformer.transformer_blocks):
                if not layer.attn1.is_cross_attention:
                    sites[POSITIONS * level + position + NUM_SITES * depth] = layer.attn1
    return sites


def self_attentions(unet: nn.Module) -> tuple[Any, ...]:
    """Every self-attention layer: encoder, decoder, then middle, the order in which diffusers registers them."""
    # StyleAligned's `only_self_level` counts layers in this order.
    return tuple(
        module
        for name, module in unet.named_modules()
        if name.rsplit(".", 1)[-1] == "attn1" and not cast(Any, module).is_cross_attention
    )


@contextmanager
def norms_shared(unet: nn.Module, lenders: Lenders) -> Iterator[None]:
    """Group norms see row i of B with row `lenders(B)[i]` appended along the height; the appended rows are cut off."""

    def append(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        (x,) = inputs
        return (torch.cat([x, x.index_select(0, lenders(len(x)).to(x.device))], dim=2),)

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # contiguous: a view would keep the appended rows in memory
        return output[:, :, : output.shape[2] // 2].contiguous()

    with ExitStack() as stack:
        for module in unet.modules():
            if isinstance(module, nn.GroupNorm):
                # `remove` runs even if a forward raises
                stack.callback(module.register_forward_pre_hook(append).remove)
                stack.callback(module.register_forward_hook(cut).remove)
        yield


@contextmanager
def installed(unet: nn.Module, edit: AttentionEdit, sites: tuple[Site, ...]) -> Iterator[None]:
    """Run with `edit` at all layers of `sites`; the former processors return even after an error.

    Raises ValueError for a site that the network lacks.
    """
    layers = decoder_sites(unet)
    missing = [site for site in sites if site not in layers]
    if missing:
        raise ValueError(
            f"sites: {missing} not in this network; it has self-attention at sites {_sites(layers)}"
        )
    chosen = {number: layer for number, layer in layers.items() if number % NUM_SITES in sites}
    with _replaced(chosen, edit):
        yield


def _sites(layers: Iterable[Site]) -> list[Site]:
    return sorted({number % NUM_SITES for number in layers})


@contextmanager
def installed_at_layers(
    unet: nn.Module, edit: AttentionEdit, layers: tuple[int, ...]
) -> Iterator[None]:
    """As `installed`, at `self_attentions(unet)[i]` for each i of `layers`."""
    every = self_attentions(unet)
    with _replaced({layer: every[layer] for layer in layers}, edit):
        yield


@contextmanager
def _replaced(layers: dict[int, Any], edit: AttentionEdit) -> Iterator[None]:
    former = {number: layer.processor for number, layer in layers.items()}
    try:
        for number, layer in layers.items():
            layer.set_processor(EditedProcessor(edit, number))
        yield
    finally:
        for number, processor in former.items():
            layers[number].set_processor(processor)
