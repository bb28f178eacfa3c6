"""Blocks of contents x styles: how many of each fit into memory, a shard and 16 x 16; rows of one evaluation."""

from __future__ import annotations

import math

from stylebatch.data.choice import Choice
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.spec import RunSpec

MAX_BLOCK_SIDE = 16
DEFAULT_BATCH_GB = 4.0
WORKSPACE = 1.25
"""Over the tensors that live at the peak: workspaces of kernels and what the allocator cannot use. Measured with random weights
at full size: 1.00 to 1.15 (docs/models.md)."""
IN_TRANSFORMER = 21
"""Planes that live in a transformer block when its feed-forward multiplies by its gate: 8 channels' worth of projection, 4 of the gate,
4 of the product, 5 of inputs that are added later."""


def value_bytes(spec: RunSpec) -> int:
    """Bytes of one number of the network, as far as the manifest tells."""
    return 2 if spec.model.dtype in ("float16", "bfloat16") else 4


def feature_bytes(spec: RunSpec, checkpoint: Checkpoint, size: int) -> int:
    """Bytes of one image's queries (keys, values: as much each) over all sites and timesteps."""
    channels: list[int] = list(reversed(checkpoint.config("unet")["block_out_channels"]))
    top = len(channels) - 1
    cells = size // checkpoint.latent_factor
    depths = _transformer_depths(checkpoint, len(channels))
    elements = sum(
        depths[min(site // 3, top)]
        * channels[min(site // 3, top)]
        * (cells >> (top - min(site // 3, top))) ** 2
        for site in spec.styleid.sites
    )
    steps = spec.styleid.num_reverse_evaluations if spec.styleid.inject else 0
    return elements * steps * value_bytes(spec)


def _transformer_depths(checkpoint: Checkpoint, num_levels: int) -> list[int]:
    """Self-attention layers at each site, by level of the decoder, deepest first."""
    unet = checkpoint.config("unet")
    depths: int | list[int] = (
        unet.get("reverse_transformer_layers_per_block")
        or unet.get("transformer_layers_per_block")
        or 1
    )
    if isinstance(depths, int):
        return [depths] * num_levels
    return depths if unet.get("reverse_transformer_layers_per_block") else depths[::-1]


def row_bytes(spec: RunSpec, checkpoint: Checkpoint, size: int | tuple[int, int]) -> int:
    """Bytes of activations that one row of a network evaluation needs at its peak, with fused attention."""
    return activation_bytes(checkpoint, size, value_bytes(spec))


def activation_bytes(checkpoint: Checkpoint, size: int | tuple[int, int], value_bytes: int) -> int:
    """As `row_bytes`, for numbers of `value_bytes`; `size`: of a square, or width and height, in pixels.

    The peak is in the decoder, at the first position of a level: the encoder's outputs that this level and those above still
    need, what came from the level below, and either a transformer block or the first convolutions over both joined.
    """
    unet = checkpoint.config("unet")
    widths: list[int] = unet["block_out_channels"]
    attends = ["CrossAttn" in kind for kind in reversed(unet["up_block_types"])]
    wide, tall = (side // checkpoint.latent_factor for side in _sides(size))
    planes = [(wide >> level) * (tall >> level) for level in range(len(widths))]
    skips, peak = widths[0] * planes[0], 0
    for level, (width, plane) in enumerate(zip(widths, planes, strict=True)):
        skips += int(unet.get("layers_per_block", 2)) * width * plane
        skips += widths[level - 1] * plane if level else 0
        below = widths[min(level + 1, len(widths) - 1)]
        inside = max(3 * (below + width), IN_TRANSFORMER * width if attends[level] else 0)
        peak = max(peak, skips + (below + inside) * plane)
    return int(WORKSPACE * peak * value_bytes)


def picture_bytes(checkpoint: Checkpoint, size: int | tuple[int, int], value_bytes: int) -> int:
    """Bytes of activations that the autoencoder needs for one picture at its peak, which is at full size: where the decoder still
    has the width of the level below, or the encoder adds up. SDXL's is float32 unless its config says otherwise.
    """
    vae = checkpoint.config("vae")
    widths: list[int] = vae["block_out_channels"]
    if checkpoint.family == "sdxl" and vae.get("force_upcast", True):
        value_bytes = 4
    sides = _sides(size)
    if "tiling" in checkpoint.vae_passes:
        tile = int(vae.get("sample_size", 512))
        sides = min(sides[0], tile), min(sides[1], tile)
    planes = max(3 * widths[min(1, len(widths) - 1)], 5 * widths[0])
    return int(WORKSPACE * planes * math.prod(sides) * value_bytes)


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def batch_rows(
    spec: RunSpec,
    checkpoint: Checkpoint,
    size: int | tuple[int, int],
    batch_gb: float | None = None,
) -> int:
    """Rows of one network evaluation: at most `engine.batch`, within the memory for activations.

    `batch_gb`: GiB where the manifest names none.
    """
    return max(1, min(spec.engine.batch, rows_at_once(spec, checkpoint, size, batch_gb)))


def rows_at_once(
    spec: RunSpec,
    checkpoint: Checkpoint,
    size: int | tuple[int, int],
    batch_gb: float | None = None,
) -> int:
    """Rows whose activations fit in memory; `batch_gb` as in `batch_rows`."""
    return int(_budget(spec, batch_gb) // row_bytes(spec, checkpoint, size))


def batch_pictures(
    spec: RunSpec,
    checkpoint: Checkpoint,
    size: int | tuple[int, int],
    batch_gb: float | None = None,
) -> int:
    """Pictures that the autoencoder encodes or decodes at once, within the same memory; as `batch_rows`."""
    one = picture_bytes(checkpoint, size, value_bytes(spec))
    return max(1, min(spec.engine.batch, int(_budget(spec, batch_gb) // one)))


def _budget(spec: RunSpec, batch_gb: float | None) -> float:
    """Bytes for activations."""
    return (spec.engine.batch_gb or batch_gb or DEFAULT_BATCH_GB) * 2**30


def content_bytes(spec: RunSpec, feature_bytes: int, choice: Choice) -> int:
    """Memory for the queries of one content; `feature_bytes` are those of all timesteps."""
    if choice.contents == "recomputed":
        return feature_bytes // spec.styleid.num_reverse_evaluations
    return feature_bytes


def stored_bytes(spec: RunSpec, feature_bytes: int, choice: Choice) -> int:
    """What the codec keeps of one style over all timesteps; `feature_bytes` are those of k, and of v."""
    whole = {"kv": 2 * feature_bytes, "x": feature_bytes, "x8": feature_bytes // value_bytes(spec)}
    return whole[choice.codec]


def style_bytes(spec: RunSpec, feature_bytes: int, choice: Choice) -> int:
    """Memory for the features of one style; `feature_bytes` are those of k, and of v."""
    steps = spec.styleid.num_reverse_evaluations
    stored = stored_bytes(spec, feature_bytes, choice)
    if choice.styles == "recomputed":
        return 2 * feature_bytes // steps
    if choice.styles == "cached":  # this timestep, projected, and the next
        return 2 * (stored + feature_bytes) // steps
    return stored


def block_sides(
    totals: tuple[int, int],
    spec: RunSpec,
    bytes_of: tuple[int, int],
    *,
    is_list: bool,
    feature_gb: float | None = None,
) -> tuple[int, int]:
    """Contents and styles per block: at most 16 each, within a shard and the memory for features.

    `bytes_of` a content and a style. `is_list`: the pairs are listed, so that a block is cut by what its rows name.
    """
    num_contents, num_styles = totals
    content_bytes, style_bytes = bytes_of
    shard_size = spec.output.shard_size
    budget = (spec.engine.feature_gb if feature_gb is None else feature_gb) * 2**30
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
