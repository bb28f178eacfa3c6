"""Bytes of a style by arithmetic, from the shape of a UNet's decoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylebatch.features.codecs import LATENT_DTYPE, SCALE_SUFFIX, Codec

CODECS = (
    Codec("kv", "float32"),
    Codec("kv", "float16"),
    Codec("x", "float32"),
    Codec("x", "float16"),
    Codec("x8", "float16"),
    Codec("trajectory", "float32"),
)
NUM_TIMESTEPS, NUM_LEVELS = 49, 51
"""Of 50 steps, `start: paper`: evaluations of the reverse; levels that the inversion passes."""


@dataclass(frozen=True)
class Decoder:
    """Self-attention layers of a decoder: (layers, channels, latent cells per side) by level.

    `cells`: of the latent, per side.
    """

    levels: tuple[tuple[int, int, int], ...]
    cells: int
    latent_channels: int = 4

    def style_bytes(self, codec: Codec) -> int:
        """Tensor bytes of one style at 50 steps."""
        features = sum(
            layers * timestep_bytes(codec, (side * side, channels))
            for layers, channels, side in self.levels
        )
        latent = self.latent_channels * self.cells**2 * np.dtype(LATENT_DTYPE).itemsize
        level = np.dtype(np.int64).itemsize
        return NUM_TIMESTEPS * features + NUM_LEVELS * (latent + level)


def timestep_bytes(codec: Codec, shape: tuple[int, int]) -> int:
    """Stored bytes of one layer at one timestep; `shape` (tokens, channels) is that of k, v and x."""
    tokens, channels = shape
    return sum(
        (channels if name.endswith(SCALE_SUFFIX) else tokens * channels) * np.dtype(dtype).itemsize
        for name, dtype in codec.stored_types.items()
    )


SD15 = Decoder(((3, 640, 32), (3, 320, 64)), 64)
"""512 px, sites 6..11 (`up_blocks[2]` and `[3]`), one transformer layer in each."""
SDXL = Decoder(((3 * 10, 1280, 32), (3 * 2, 640, 64)), 128)
"""1024 px, all decoder self-attentions: widths 320, 640, 1280 with 1, 2, 10 transformer layers; three
transformers in each of `up_blocks[0]` and `[1]`; the last decoder block has no attention."""
