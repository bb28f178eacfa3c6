"""Memory for the features that a block keeps, and the rows and columns per block that it allows."""

from __future__ import annotations

from typing import NamedTuple

from stylebatch.methods.method import BlockSize, MethodOptions
from stylebatch.methods.stored_bytes import FeatureCodecName
from stylebatch.methods.stored_bytes import stored_bytes as codec_bytes
from stylebatch.planning.batches import value_bytes
from stylebatch.planning.choice import FeatureSources
from stylebatch.spec import RunSpec

MAX_BLOCK_SIDE = 16
MAX_BATCHES = 4
"""Network batches of a block whose method prepares little: a block is lost as a whole when a worker dies."""


HOSTED_TIMESTEPS = 3
"""On the device: the one in use, the next, and the one before until the edits have let go of it."""


class MemoryBytes(NamedTuple):
    """Bytes of the device, and of the machine beside it."""

    device: int
    host: int = 0

    def times(self, count: int) -> MemoryBytes:
        return MemoryBytes(self.device * count, self.host * count)


def content_bytes(
    options: MethodOptions, feature_bytes: int, choice: FeatureSources
) -> MemoryBytes:
    """Memory for the queries of one content; `feature_bytes` are those of all timesteps."""
    steps = timesteps(options)
    if choice.contents == "recomputed":
        return MemoryBytes(feature_bytes // steps)
    if choice.contents == "hosted":
        return MemoryBytes(HOSTED_TIMESTEPS * feature_bytes // steps, feature_bytes)
    return MemoryBytes(feature_bytes)


def stored_bytes(spec: RunSpec, feature_bytes: int, codec: FeatureCodecName) -> int:
    """What a codec keeps of one style's features over all timesteps; `feature_bytes` are those of k, and of v."""
    size = value_bytes(spec)
    # without the scales of x8: identities of plans hold this number
    return codec_bytes(codec, feature_bytes // size, size)


def style_bytes(
    spec: RunSpec, options: MethodOptions, feature_bytes: int, choice: FeatureSources
) -> MemoryBytes:
    """Memory for the features of one style; `feature_bytes` are those of k, and of v."""
    steps = timesteps(options)
    if choice.styles == "recomputed" or choice.codec == "trajectory":
        return MemoryBytes(2 * feature_bytes // steps)
    stored = stored_bytes(spec, feature_bytes, choice.codec)
    if choice.styles == "cached":  # this timestep, projected, and the next
        return MemoryBytes(2 * (stored + feature_bytes) // steps)
    if choice.styles == "hosted":
        on_device = HOSTED_TIMESTEPS * stored + 2 * feature_bytes
        return MemoryBytes(on_device // steps, stored)
    return MemoryBytes(stored)


def feature_room(spec: RunSpec) -> tuple[float, float]:
    """Bytes for features: of the device, and of the machine."""
    return spec.engine.feature_gb * 2**30, spec.engine.host_gb * 2**30


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
    bytes_of: tuple[MemoryBytes, MemoryBytes],
    *,
    is_list: bool,
) -> tuple[int, int]:
    """Rows and columns per block: at most 16 each, within a shard and the memory for features.

    `bytes_of` a row and a column. `is_list`: the cells are listed, so that a block is cut by what these name.
    """
    num_rows, num_columns = counts
    shard_size = spec.output.most_in_a_shard
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
    for room, row_bytes, column_bytes in zip(feature_room(spec), *bytes_of, strict=True):
        while (rows > 1 or columns > 1) and rows * row_bytes + columns * column_bytes > room:
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
