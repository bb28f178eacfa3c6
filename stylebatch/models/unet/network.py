"""The shape of a UNet from its config: levels, layers and attention, reading numbers and lists as diffusers does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stylebatch.models.configs import Fields

POSITIONS, LEVELS = 3, 4
"""Numbered positions per level and levels of the decoder: a site is POSITIONS * level + position."""


def path_of_site(site: int) -> str:
    """What the names of the attention layers at a decoder site begin with."""
    return f"up_blocks.{site // POSITIONS}.attentions.{site % POSITIONS}."


_DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D")
_MIDDLE = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D")
MOST_LAYERS = 100


@dataclass(frozen=True)
class Level:
    """A level of the decoder: channels, heads, and transformer blocks at each of its positions.

    `depths` is empty for a level without attention. `attends_itself`: the first attention of a block is self-attention.
    """

    width: int
    heads: int
    depths: tuple[int, ...]
    attends_itself: bool


@dataclass(frozen=True)
class Network:
    """`widths` and `layers` (of the encoder) by level, the widest latents first; `decoder` deepest level first."""

    trained_cells: tuple[int, int] | None
    """Height and width in latent cells that it was trained on; None if the config has no sample_size."""
    in_channels: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    decoder: tuple[Level, ...]

    @property
    def num_levels(self) -> int:
        return len(self.widths)

    @property
    def sites(self) -> dict[int, tuple[int, int]]:
        """Level and depth of every decoder position with self-attention, by its number."""
        return {
            POSITIONS * number + position: (number, depth)
            for number, level in enumerate(self.decoder[:LEVELS])
            for position, depth in enumerate(level.depths[:POSITIONS])
            if level.attends_itself and depth
        }


def network_of(fields: Fields) -> Network:
    """The network of `unet/config.json`. Raises ManifestError, naming the field."""
    widths = fields.list("block_out_channels")
    num = len(widths)
    widths_found = fields.counts("block_out_channels", None, num)
    blocks = {}
    for name, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        blocks[name] = fields.list(name)
        if len(blocks[name]) != num or any(kind not in known for kind in blocks[name]):
            raise fields.refusal(
                name, f"{num} of {', '.join(known)}, as many as block_out_channels"
            )
    if fields.values.get("mid_block_type", _MIDDLE[0]) not in (*_MIDDLE, None):
        raise fields.refusal("mid_block_type", f"{', '.join(_MIDDLE)}, null")
    layers = fields.counts("layers_per_block", 2, num)
    if max(layers) > MOST_LAYERS:
        raise fields.refusal("layers_per_block", f"up to {MOST_LAYERS}")
    heads = fields.counts("attention_head_dim", 8, num)  # diffusers' misnomer: it counts heads
    fields.none("num_attention_heads", "giving heads by this name, which diffusers refuses too;")
    only_cross = _flags(fields, "only_cross_attention", num)
    depths = _depths(fields, layers)
    decoder = tuple(
        Level(
            widths_found[num - 1 - i],
            heads[num - 1 - i],
            depths[i] if kind == _UP[1] else (),
            not only_cross[num - 1 - i],
        )
        for i, kind in enumerate(blocks["up_block_types"])
    )
    channels = fields.count("in_channels", 4)
    return Network(_trained_cells(fields), channels, widths_found, layers, decoder)


def _trained_cells(fields: Fields) -> tuple[int, int] | None:
    if fields.values.get("sample_size") is None:
        return None
    height, width = fields.counts("sample_size", None, 2)
    return height, width


def _flags(fields: Fields, name: str, num: int) -> list[bool]:
    value = fields.values.get(name)
    if isinstance(value, list):
        if len(value) != num or not all(isinstance(one, bool) for one in value):
            raise fields.refusal(name, f"true or false, or {num} of them")
        return value
    return [fields.flag(name, False)] * num


def _depths(fields: Fields, layers: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Transformer blocks at each position of the decoder, by level, deepest first."""
    name, reverse = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
    num = len(layers)
    _check_depths(fields, name, list(layers))
    if fields.values.get(reverse) is None:
        value = fields.values.get(name)
        if isinstance(value, list) and any(isinstance(one, list) for one in value):
            raise fields.refusal(reverse, f"{num} numbers or lists, since {name} holds lists")
        # the decoder has one position more per level than the encoder
        numbers = fields.counts(name, 1, num)
        return [(numbers[i],) * (layers[i] + 1) for i in reversed(range(num))]
    positions = [count + 1 for count in reversed(layers)]
    levels = fields.list(reverse)
    _check_depths(fields, reverse, positions)
    return [
        tuple(one[:count]) if isinstance(one, list) else (one,) * count
        for one, count in zip(levels, positions, strict=True)
    ]


def _check_depths(fields: Fields, name: str, positions: list[int]) -> None:
    """Refuse the field unless it is a number, or one entry per level: a number, or a list of one per position."""
    value: Any = fields.values.get(name)
    if value is None:
        return
    levels = value if isinstance(value, list) else [value] * len(positions)
    fits = len(levels) == len(positions) and all(
        all(_is_depth(one) for one in level) and len(level) >= count
        if isinstance(level, list)
        else _is_depth(level)
        for level, count in zip(levels, positions, strict=False)
    )
    if not fits:
        raise fields.refusal(
            name, f"a whole number, or {len(positions)} numbers or lists of numbers, one per layer"
        )


def _is_depth(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_LAYERS
