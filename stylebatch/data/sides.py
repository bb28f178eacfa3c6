"""Blocks of contents x styles: how many of each fit into memory, a shard and 16 x 16."""

from __future__ import annotations

from stylebatch.models.checkpoint import Checkpoint
from stylebatch.spec import RunSpec

MAX_BLOCK_SIDE = 16


def feature_bytes(spec: RunSpec, checkpoint: Checkpoint, size: int) -> int:
    """Bytes of one image's queries (keys, values: as much each) over all sites and timesteps."""
    channels = list(reversed(checkpoint.config("unet")["block_out_channels"]))
    top = len(channels) - 1
    cells = size // checkpoint.latent_factor
    elements = sum(
        channels[min(site // 3, top)] * (cells >> (top - min(site // 3, top))) ** 2
        for site in spec.method.sites
    )
    width = 2 if spec.model.dtype in ("float16", "bfloat16") else 4
    return elements * spec.method.num_reverse_evaluations * width if spec.method.inject else 0


def style_bytes(spec: RunSpec, feature_bytes: int) -> int:
    """Memory for the features of one style: `feature_bytes` are those of k, and of v."""
    features, method = spec.features, spec.method
    if features.resolved_source == "recomputed":
        return 2 * feature_bytes // method.num_reverse_evaluations
    width = 2 if spec.model.dtype in ("float16", "bfloat16") else 4
    whole = {"kv": 2 * feature_bytes, "x": feature_bytes, "x8": feature_bytes // width}
    stored = whole[features.resolved_codec]
    if features.resolved_source == "cached":  # this timestep, projected, and the next
        return 2 * (stored + feature_bytes) // method.num_reverse_evaluations
    return stored


def block_sides(
    totals: tuple[int, int], spec: RunSpec, bytes_of: tuple[int, int], *, is_list: bool
) -> tuple[int, int]:
    """Contents and styles per block: at most 16 each, within a shard and the memory for features.

    `is_list`: the pairs are listed, so that a block is cut by what its rows name.
    """
    num_contents, num_styles = totals
    content_bytes, style_bytes = bytes_of
    shard_size, budget = spec.output.shard_size, spec.engine.feature_gb * 2**30
    drawn = spec.pairing.sampling(spec.seed)
    is_sample = spec.pairing.mode == "sample" and not is_list
    columns = min(MAX_BLOCK_SIDE, num_styles, shard_size)
    rows = min(MAX_BLOCK_SIDE, num_contents, shard_size)
    if not is_list:
        pairs_per_content = drawn.per_content if is_sample else columns
        rows = min(rows, max(1, shard_size // pairs_per_content))
    while (rows > 1 or columns > 1) and rows * content_bytes + columns * style_bytes > budget:
        styles_weigh_more = columns * style_bytes >= rows * content_bytes
        rows, columns = (
            (rows, columns - 1)
            if columns > 1 and (styles_weigh_more or rows == 1)
            else (rows - 1, columns)
        )
    if is_sample and drawn.pool == "independent" and columns < num_styles:
        rows = min(rows, max(1, columns // drawn.per_content))
    return rows, columns
