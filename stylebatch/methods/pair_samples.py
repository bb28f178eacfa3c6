"""What a user's method of pairs is given of the samples that it renders together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stylebatch.diffusion.noise import draw


@dataclass(frozen=True)
class PairSamples:
    """N pairs. `contents`, `styles`: what `prepare` made of the images of each, (N, ...), by default latents (N, c, h, w).

    `shape`: latent channels, height and width in cells. `masks` (N, 1, h, w) in [0, 1], 1 where a content takes the style, which is
    everywhere where it has no mask. `parts`: of each style, what `prepare` made of its images, with weights that sum to 1; `styles`
    has the first of a blend. Only methods that say `takes_masks`, `takes_blends` meet such contents and styles.
    """

    contents: Tensor
    styles: Tensor
    seeds: tuple[int, ...]
    shape: tuple[int, int, int]
    masks: Tensor
    parts: tuple[tuple[tuple[float, Tensor], ...], ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def select(self, rows: Sequence[int]) -> PairSamples:
        """The pairs with these numbers."""
        # a list selects rows; a tuple would index one dimension each
        places = list(rows)
        return PairSamples(
            contents=self.contents[places],
            styles=self.styles[places],
            seeds=tuple(self.seeds[row] for row in places),
            shape=self.shape,
            masks=self.masks[places],
            parts=tuple(self.parts[row] for row in places),
        )

    def split(self, size: int) -> list[PairSamples]:
        """Parts of at most `size` pairs."""
        rows = range(len(self))
        return [self.select(rows[i : i + size]) for i in range(0, len(self), size)]

    def noise(self) -> Tensor:
        """Standard normal (N, c, h, w), each pair from the stream of its seed."""
        return draw(self.seeds, self.shape)
