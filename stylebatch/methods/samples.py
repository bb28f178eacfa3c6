"""What a method is given of the rows that it renders together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stylebatch.diffusion.noise import draw
from stylebatch.methods.prompted import Prompts, embedded, in_windows
from stylebatch.models.denoiser import Denoiser


@dataclass(frozen=True)
class Samples:
    """N rows, in order. `shape`: latent channels, height and width in cells.

    `negative`: None for rows without a negative prompt. `images`: by column, (N, 3, H, W) in [-1, 1], a mask (N, 1, H, W) in
    0 to 1 with 1 where the picture is made anew.
    """

    texts: tuple[str, ...]
    negative: tuple[str | None, ...]
    seeds: tuple[int, ...]
    shape: tuple[int, int, int]
    images: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Samples:
        """The rows with these numbers."""
        return Samples(
            tuple(self.texts[row] for row in rows),
            tuple(self.negative[row] for row in rows),
            tuple(self.seeds[row] for row in rows),
            self.shape,
            {name: image[list(rows)] for name, image in self.images.items()},
        )

    def split(self, size: int) -> list[Samples]:
        """Parts of at most `size` rows."""
        rows = range(len(self))
        return [self.select(rows[i : i + size]) for i in range(0, len(self), size)]

    def with_texts(self, texts: Sequence[str]) -> Samples:
        """The same rows with other prompts."""
        return replace(self, texts=tuple(texts))

    def noise(self) -> Tensor:
        """Standard normal (N, c, h, w), each row from the stream of its seed."""
        return draw(self.seeds, self.shape)

    def streams(self) -> list[torch.Generator]:
        """The random stream of each row, after its noise was drawn."""
        streams = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        for stream in streams:
            # a stochastic scheduler goes on where `noise` stopped; its first draw must not be the noise again
            torch.randn(self.shape, generator=stream)
        return streams

    def prompts(self, model: Denoiser, guidance: float) -> Prompts:
        """The texts as conditioning; where a row has no negative prompt, guidance leads away from no prompt."""
        found = embedded(model, self.texts, guidance=guidance)
        if guidance == 1.0 or all(text is None for text in self.negative):
            return found
        given = [text for text in self.negative if text is not None]
        if len(given) == len(self):
            return embedded(model, self.texts, negative=given, guidance=guidance)
        windows = [
            max(model.num_windows(text), 1 if other is None else model.num_windows(other))
            for text, other in zip(self.texts, self.negative, strict=True)
        ]
        # guidance subtracts row by row, so that both sides need contexts of one length
        if max(windows) > 1:
            found = Prompts(in_windows(model.embed, self.texts, windows), found.negative, guidance)
        against = model.embed_nothing()
        of_given = [n for n, text in zip(windows, self.negative, strict=True) if text is not None]
        negatives = in_windows(model.embed_negative, given, of_given)
        place = {
            row: i for i, row in enumerate(r for r, t in enumerate(self.negative) if t is not None)
        }
        negative = against.joined(negatives).select(
            # row 0 is what stands for no prompt
            [1 + place[row] if row in place else 0 for row in range(len(self))]
        )
        return Prompts(found.positive, negative, guidance)
