"""`Family`: everything that a plan needs to know of a checkpoint, read from its files without torch.

A family is a folder beside this file and a row of `families.FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from stylebatch.models.learned_tokens import Embedding

NUM_SITES = 12
"""Numbered positions of a decoder; layer b of a position has the number `site + NUM_SITES * b` (models/denoiser.py)."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of pictures and latents. `native_sides`: width and height in pixels that the network was trained on.

    Sides of pictures are multiples of `multiple` pixels; a latent cell is `latent_factor` pixels wide and tall and has
    `latent_channels` numbers.
    """

    native_sides: tuple[int, int]
    multiple: int
    latent_factor: int
    latent_channels: int

    @property
    def native(self) -> int:
        """The shorter of `native_sides`."""
        return min(self.native_sides)


@dataclass(frozen=True)
class SiteShape:
    """One decoder site at some picture size: latent cells per side, channels of its input, heads, attention layers."""

    site: int
    side: int
    channels: int
    heads: int
    layers: int

    @property
    def elements(self) -> int:
        """Numbers of each of x, q, k and v over the site's layers, for one picture and timestep."""
        return self.layers * self.side**2 * self.channels


@dataclass(frozen=True)
class Memory:
    """Bytes for pictures of one size; activations at their peak.

    `row`: of one row of a network evaluation, with fused attention. `picture`: of one picture in the autoencoder.
    `features`, by site: of one image's queries at one timestep; keys, values and a site's input take as much each.
    """

    row: int
    picture: int
    features: Mapping[int, int]


@dataclass(frozen=True)
class About:
    """A description for people. `title`: name of the family, such as Stable Diffusion XL; `layout`: its short name.

    `parameters`: number of weights by part, 0 if files are missing or cannot be read. `published`: names of known
    checkpoints with this network. `doubts`: settings that are possible but rarely right, each with the next step.
    """

    title: str
    layout: str
    predicts: str
    parameters: Mapping[str, int]
    published: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()


class Family(Protocol):
    """A checkpoint as its family reads it. Every member may raise ManifestError, naming file and field.

    A class that derives from it has the members about text, edits and timesteps as those of a family without them.
    """

    @property
    def loader(self) -> str:
        """The module with the network, which imports torch; see `loading.Loader`."""
        ...

    @property
    def takes_edits(self) -> bool:
        """Whether its self-attention can be edited, which StyleID and StyleAligned do."""
        return False

    @property
    def tokenizers(self) -> Mapping[str, str]:
        """Text encoder by tokenizer, both names of parts; together they limit the length of prompts."""
        return {}

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """Textual inversions that the manifest adds."""
        return ()

    @property
    def num_timesteps(self) -> int | None:
        """Number of training timesteps; None for a family whose noise levels have no table."""
        return None

    @property
    def sizes(self) -> Sizes: ...

    def site_shapes(self, size: int) -> tuple[SiteShape, ...]:
        """Sites of self-attention, ascending, for square pictures of `size` pixels; empty if nothing can be edited."""
        return ()

    def memory(self, size: tuple[int, int], value_bytes: int) -> Memory:
        """Memory for pictures of `size` (width and height in pixels); a number of the network takes `value_bytes`."""
        ...

    def check(self) -> None:
        """Refuse a checkpoint that is of another family, incomplete, or of a formulation that is not implemented."""
        _ = self.sizes  # what its config lacks is named there

    def about(self) -> About: ...
