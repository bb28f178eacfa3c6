"""The published checkpoints, as they are and with narrow layers."""

from __future__ import annotations

from typing import Any

from stylebatch.models.unet.published import Published, published_checkpoints

PUBLISHED = published_checkpoints()
"""By the names of `spec.MODEL_IDS`."""
_WIDTHS = (
    "block_out_channels",
    "cross_attention_dim",
    "norm_num_groups",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
)


def narrowed(published: Published, divisor: int) -> dict[str, dict[str, Any]]:
    """The same configs with every width divided: as many layers, heads, and channels per group as the original."""

    def divide(value: Any) -> Any:
        return (
            [width // divisor for width in value] if isinstance(value, list) else value // divisor
        )

    return {
        part: {key: divide(value) if key in _WIDTHS else value for key, value in config.items()}
        for part, config in published.configs.items()
    }
