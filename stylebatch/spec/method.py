"""What methods have in common: a name, and for those that render prompts what the plan asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from stylebatch.spec.section import Section

RECORD_COLUMNS = frozenset(
    (
        *("key", "shard", "id", "prompt", "negative_prompt", "image", "mask", "style", "reference"),
        *("label", "caption", "method", "model", "seed", "width", "height", "original_width"),
        *("original_height", "status", "error_code", "error_message", "sha256", "structure"),
        *("color_distance", "contrast", "name"),
    )
)
"""Columns that every record of prompts may have; no option is named so."""


@dataclass(frozen=True)
class BlockSize:
    """What is rendered at once: `samples` on a canvas of `height` x `width` latent cells.

    `batch`: rows of one network evaluation at most; `native`: cells per side that the network was trained on.
    """

    samples: int
    height: int
    width: int
    batch: int
    native: int


class PromptMethod(Section):
    """Base of methods whose samples are rows with a prompt; fields are the options, `render` is the algorithm.

    `inputs`: images that every row gives (`image`, `mask`). `uses_sets`: rows of one `style` are rendered beside the
    first of them, or beside a `reference` image.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    uses_sets: ClassVar[bool] = False

    steps: int = Field(50, ge=1, le=1000, description="Steps from noise to image, 1 to 1000")
    guidance: float = Field(
        7.5, ge=1.0, le=100.0, description="Classifier-free guidance scale; 1 is none"
    )

    @property
    def rows_per_sample(self) -> int:
        """Network rows of one sample: 2 with guidance."""
        return 1 if self.guidance == 1.0 else 2

    def samples_per_block(self, size: BlockSize) -> int:
        """Samples that are rendered together; `size.samples` is not read."""
        return max(1, size.batch // self.rows_per_sample)

    def evaluations(self, size: BlockSize) -> int:
        """Network rows that a block takes."""
        return size.samples * self.rows_per_sample * self.steps
