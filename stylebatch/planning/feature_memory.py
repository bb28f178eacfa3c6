"""Memory for the features that a block keeps, and the rows and columns per block that it allows."""

from __future__ import annotations

from stylebatch.methods.method import BlockSize, MethodOptions
from stylebatch.methods.stored_bytes import FeatureCodecName
from stylebatch.methods.stored_bytes import stored_bytes as codec_bytes
from stylebatch.planning.batches import value_bytes
from stylebatch.planning.choice import FeatureSources
from stylebatch.spec import RunSpec

MAX_BLOCK_SIDE = 16
MAX_BATCHES = 4
"""Network batches of a block whose method prepares little: a block is lost as a whole when a worker dies."""


def content_bytes(options: MethodOptions, feature_bytes: int, choice: FeatureSources) -> int:
    """Memory for the queries of one content; `feature_bytes` are those of all timesteps."""
    if choice.contents == "recomputed":
        return feature_bytes // timesteps(options)
    return feature_bytes


def stored_bytes(spec: RunSpec, feature_bytes: int, codec: FeatureCodecName) -> int:
    """What a codec keeps of one style's features over all timesteps; `feature_bytes` are those of k, and of v."""
    size = value_bytes(spec)
    # without the scales of x8: identities of plans hold this number
    return codec_bytes(codec, feature_bytes // size, size)


def style_bytes(
    spec: RunSpec, options: MethodOptions, feature_bytes: int, choice: FeatureSources
) -> int:
    """Memory for the features of one style; `feature_bytes` are those of k, and of v."""
    steps = timesteps(options)
    if choice.styles == "recomputed" or choice.codec == "trajectory":
        return 2 * feature_bytes // steps
    stored = stored_bytes(spec, feature_bytes, choice.codec)
    if choice.styles == "cached":  # this timestep, projected, and the next
        return 2 * (stored + feature_bytes) // steps
    return stored


def timesteps(options: MethodOptions) -> int:
    """Timesteps of which features are used: network evaluations of one sample."""
    return options.evaluations(BlockSize(samples=1, height=1, width=1, batch=1, native=1))


def sides_of_few(counts: tuple[int, int], spec: RunSpec, samples: int) -> tuple[int, int]:
    """Rows and columns per block of a method that renders `samples` in a network batch and prepares little.

    With one column a block is a batch; else it has the columns that there are, and rows for some batches.
    """
    num_rows, num_columns = counts
    shard_size = spec.output.most_in_a_shard
    if num_columns == 1:
        return min(num_rows, samples, shard_size), 1
    columns = min(MAX_BLOCK_SIDE, num_columns, shard_size)
    rows = min(MAX_BLOCK_SIDE, num_rows, max(1, MAX_BATCHES * samples // columns))
    return min(rows, max(1, shard_size // columns)), columns


def block_sides(
    counts: tuple[int, int],
    spec: RunSpec,
    bytes_of: tuple[int, int],
    *,
    is_list: bool,
    feature_gb: float | None = None,
) -> tuple[int, int]:
    """Rows and columns per block: at most 16 each, within a shard and the memory for features.

    `bytes_of` a row and a column. `is_list`: the cells are listed, so that a block is cut by what these name.
    """
    num_rows, num_columns = counts
    row_bytes, column_bytes = bytes_of
    shard_size = spec.output.most_in_a_shard
    budget = (spec.engine.feature_gb if feature_gb is None else feature_gb) * 2**30
    drawn = spec.pairing.sampling(spec.seed)
    is_sample = spec.pairing.mode == "sample" and not is_list
    columns = min(MAX_BLOCK_SIDE, num_columns, shard_size)
    rows = min(MAX_BLOCK_SIDE, num_rows, shard_size)
    if not is_list:
        samples_per_row = drawn.per_content if is_sample else columns
        rows = min(rows, max(1, shard_size // samples_per_row))
    # A pool that has not room for k styles makes a row take several blocks: rows go first.
    fewest = min(drawn.per_content, columns) if is_sample and drawn.pool == "block" else 1
    # one at a time from the heavier side, so that blocks stay near to square, which reuses most
    while (rows > 1 or columns > 1) and rows * row_bytes + columns * column_bytes > budget:
        columns_weigh_more = columns > fewest and columns * column_bytes >= rows * row_bytes
        rows, columns = (
            (rows, columns - 1)
            if columns > 1 and (columns_weigh_more or rows == 1)
            else (rows - 1, columns)
        )
    # each row draws from all columns: more rows would ask for more columns than a block holds
    if is_sample and drawn.pool == "independent" and columns < num_columns:
        rows = min(rows, max(1, columns // drawn.per_content))
    return rows, columns
