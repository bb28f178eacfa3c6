"""What a worker asks of the kind of method it runs: pairs (`pairs.py`) or prompts (`prompts.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from stylebatch.data.grid import Block
from stylebatch.data.images import Pixels
from stylebatch.data.shards import Sample
from stylebatch.errors import SampleError
from stylebatch.methods.pixels import to_pixels
from stylebatch.models.stable_diffusion import StableDiffusion


class Rendering(Protocol):
    """A block as it is made, then asked for its samples on another thread.

    `contents`, `styles`: the part of the block that is made at once, as its ladder has it.
    """

    def make(self, block: Block, contents: tuple[int, ...], styles: tuple[int, ...]) -> None:
        """Add the pictures of a part. Raises what the device raises."""
        ...

    def give_up(
        self,
        block: Block,
        contents: tuple[int, ...],
        styles: tuple[int, ...],
        error: SampleError,
    ) -> None:
        """Note why there are no pictures of a part."""
        ...

    def row(self, sample: Sample) -> dict[str, Any]:
        """Columns that depend on the kind of method; what failed comes with what is known."""
        ...

    def result(self, sample: Sample) -> Pixels | SampleError:
        """The picture, or why there is none."""
        ...

    def measures(self, sample: Sample, pixels: Pixels) -> dict[str, float]:
        """Quality columns."""
        ...

    def inputs(self, sample: Sample) -> dict[str, bytes]:
        """Encoded inputs by member name."""
        ...


class Renderer(Protocol):
    """Keeps what blocks share. All but `Rendering`'s last four run on the worker's rendering thread."""

    def begin(self, samples: Sequence[Sample], batch: int) -> Rendering:
        """A block that is made in network batches of `batch` rows at most."""
        ...

    def prefetch(self, contents: tuple[int, ...], styles: tuple[int, ...]) -> None:
        """Start decoding the inputs of a part that comes next."""
        ...

    def forget(self) -> None:
        """Drop what was kept."""
        ...

    def precompute(self, style: int) -> bool:
        """Write the style of this index to the cache unless it is there; whether it was written.

        Raises SampleError for an image that cannot be used, ValueError where the plan caches no styles.
        """
        ...


def decoded(model: StableDiffusion, latents: Tensor, batch: int) -> list[Pixels | SampleError]:
    """Pictures of clean latents (N, c, h, w), in order."""
    found: list[Pixels | SampleError] = []
    for part in latents.split(batch):
        for image in model.decode(part).cpu():
            if bool(torch.isfinite(image).all()):
                found += to_pixels(image[None])
            else:
                found.append(
                    SampleError(
                        "not_finite",
                        "the model returned NaN or infinity; try model.dtype float32 or bfloat16",
                    )
                )
    return found
