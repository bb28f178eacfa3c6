"""Resolves a run specification into a plan: samples with stable keys, blocks, shards, cost, identity.

Everything that decides pixels or names is fixed here, before any work. A plan of a product is
arithmetic over the lists of contents and styles; it holds no table of pairs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stylebatch.data.grid import Block, Grid, Groups, PairGrid, ProductGrid, spread
from stylebatch.data.sources import ImageRow, PairRow, list_images, list_pairs
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.spec import RunSpec, canonical_json

FORMAT_VERSION = 1
MAX_BLOCK_SIDE = 16


@dataclass(frozen=True)
class Sample:
    """One planned output row."""

    key: str
    content: int
    style: int
    label: str
    caption: str
    seed: int


@dataclass(frozen=True)
class Shard:
    """Unit of scheduling and commit: a whole number of blocks."""

    id: int
    blocks: tuple[Block, ...]

    @property
    def num_samples(self) -> int:
        return sum(len(block.pairs) for block in self.blocks)


@dataclass(frozen=True)
class Plan:
    """What a run does. `identity` is all that affects pixels or names; `digest` is its hash."""

    spec: RunSpec
    size: int
    contents: tuple[ImageRow, ...]
    styles: tuple[ImageRow, ...]
    grid: Grid
    blocks_per_shard: int
    labels: tuple[str, ...]
    has_captions: bool
    model: str
    identity: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @property
    def num_shards(self) -> int:
        return math.ceil(self.grid.num_blocks / self.blocks_per_shard)

    def shard(self, shard_id: int) -> Shard:
        first = shard_id * self.blocks_per_shard
        numbers = range(first, min(first + self.blocks_per_shard, self.grid.num_blocks))
        return Shard(shard_id, tuple(self.grid.block(number) for number in numbers))

    def shard_size(self, shard_id: int) -> int:
        """Samples of a shard, without listing them."""
        first = shard_id * self.blocks_per_shard
        stop = min(first + self.blocks_per_shard, self.grid.num_blocks)
        return self.grid.num_pairs_before(stop) - self.grid.num_pairs_before(first)

    @cached_property
    def shard_digits(self) -> int:
        return max(5, len(str(self.num_shards - 1)))

    def shard_name(self, shard_id: int) -> str:
        """`train-00000`: stem of the shard's files."""
        return f"train-{shard_id:0{self.shard_digits}d}"

    def samples(self, shard: Shard) -> Iterator[tuple[Block, list[Sample]]]:
        """Each block of `shard` with its samples in key order."""
        digits = max(4, len(str(shard.num_samples - 1)))
        index = 0
        for block in shard.blocks:
            samples = []
            for position, (content, style) in enumerate(block.pairs):
                row = self.contents[content]
                samples.append(
                    Sample(
                        key=f"{shard.id:0{self.shard_digits}d}{index:0{digits}d}",
                        content=content,
                        style=style,
                        label=(block.labels[position] if block.labels else "") or row.label,
                        caption=(block.captions[position] if block.captions else "") or row.caption,
                        seed=sample_seed(self.spec.seed, row.id, self.styles[style].id),
                    )
                )
                index += 1
            yield block, samples

    @cached_property
    def evaluations(self) -> int:
        """Network evaluations of the whole run: inversions, and the reverse of every pair."""
        method = self.spec.method
        return (
            method.num_reverse_evaluations * self.grid.num_pairs
            + method.num_inversion_evaluations * self._inversions()
        )

    def _inversions(self) -> int:
        if isinstance(self.grid, ProductGrid):
            held = self.grid.columns.count <= self.num_style_groups_held
            return len(self.contents) + len(self.styles) * (1 if held else self.grid.rows.count)
        blocks = (self.grid.block(number) for number in range(self.grid.num_blocks))
        return sum(len(block.contents) + len(block.styles) for block in blocks)

    @cached_property
    def num_style_groups_held(self) -> int:
        """Block columns of styles whose features fit in memory beside a block's contents, at least 1."""
        rows, columns = self.identity["block"]
        per_group = 2 * columns * self.identity["feature_bytes"]
        room = self.spec.engine.feature_gb * 2**30 - rows * self.identity["feature_bytes"]
        return max(1, int(room // per_group)) if per_group else 1 << 30

    def summary(self) -> dict[str, Any]:
        """Counts and cost as plain values, for `plan --json` and run.json."""
        return {
            "num_contents": len(self.contents),
            "num_styles": len(self.styles),
            "num_pairs": self.grid.num_pairs,
            "num_blocks": self.grid.num_blocks,
            "num_shards": self.num_shards,
            "pairing": self.spec.pairing.mode,
            "block": list(self.identity["block"]),
            "evaluations": self.evaluations,
            "size": self.size,
            "digest": self.digest,
        }


def sample_seed(run_seed: int, content_id: str, style_id: str) -> int:
    """Seed of one sample: 63 bits of sha256 over run seed and ids, independent of order and batch."""
    text = f"{run_seed}\0{content_id}\0{style_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def plan(spec: RunSpec, *, limit: int | None = None) -> Plan:
    """Resolve `spec`. With `limit`, a preview of that many pairs spread over contents and styles.

    Raises ManifestError for sources that hold nothing, a size the model cannot take, lists of
    different length for zip.
    """
    checkpoint = find_checkpoint(spec.model)
    size = _size(spec, checkpoint)
    missing = sorted(set(spec.method.sites) - set(checkpoint.sites))
    if missing:
        raise ManifestError(
            f"method.sites: found {missing}, where this model has no self-attention; accepted: {list(checkpoint.sites)}"
        )
    contents, styles, pairs = _sources(spec)
    if limit is not None:
        if limit < 1:
            raise ManifestError(f"--limit: found {limit}; accepted: 1 or more")
        spec = spec.model_copy(
            update={
                "output": spec.output.model_copy(
                    update={"path": f"{spec.output.path}-preview-{limit}"}
                )
            }
        )
        pairs = _preview(len(contents), len(styles), pairs, limit)
    feature_bytes = _feature_bytes(spec, checkpoint, size)
    rows, columns = _block_sides(len(contents), len(styles), spec, feature_bytes)
    grid: Grid
    if pairs is None:
        grid = ProductGrid(
            Groups.of_at_most(len(contents), rows), Groups.of_at_most(len(styles), columns)
        )
        per_block = math.ceil(len(contents) / grid.rows.count) * math.ceil(
            len(styles) / grid.columns.count
        )
    else:
        grid = PairGrid.cut(
            pairs, max_contents=rows, max_styles=columns, max_pairs=spec.output.shard_size
        )
        per_block = max(1, grid.num_pairs // grid.num_blocks)
    used = {row.label for row in contents} | {pair.label for pair in pairs or ()}
    identity = _identity(spec, checkpoint, size, contents, styles, pairs)
    identity |= {"block": [rows, columns], "feature_bytes": feature_bytes}
    return Plan(
        spec=spec,
        size=size,
        contents=tuple(contents),
        styles=tuple(styles),
        grid=grid,
        blocks_per_shard=max(1, spec.output.shard_size // per_block),
        labels=tuple(sorted(used - {""})),
        has_captions=any(row.caption for row in contents)
        or any(pair.caption for pair in pairs or ()),
        model=identity["model"],
        identity=identity,
    )


def _sources(spec: RunSpec) -> tuple[list[ImageRow], list[ImageRow], tuple[PairRow, ...] | None]:
    if spec.pairing.path is not None:
        contents, styles, pairs = list_pairs(spec.pairing.path)
        return contents, styles, tuple(pairs)
    if spec.contents is None or spec.styles is None:
        raise ManifestError("contents, styles: both are needed unless the pairing is explicit")
    contents, styles = (
        list_images(spec.contents.path, "contents"),
        list_images(spec.styles.path, "styles"),
    )
    if spec.pairing.mode == "product":
        return contents, styles, None
    if len(contents) != len(styles):
        raise ManifestError(
            f"pairing.mode: found zip over {len(contents)} contents and {len(styles)} styles; accepted: as many of one as of the other"
        )
    return contents, styles, tuple(PairRow(i, i) for i in range(len(contents)))


def _preview(
    num_contents: int, num_styles: int, pairs: tuple[PairRow, ...] | None, limit: int
) -> tuple[PairRow, ...]:
    if pairs is None:
        return tuple(PairRow(c, s) for c, s in sorted(spread(num_contents, num_styles, limit)))
    count = min(limit, len(pairs))
    return tuple(pairs[i * len(pairs) // count] for i in range(count))


def _size(spec: RunSpec, checkpoint: Checkpoint) -> int:
    size = spec.image.size or checkpoint.native_size
    if size % checkpoint.size_multiple:
        multiple = checkpoint.size_multiple
        near = max(1, round(size / multiple)) * multiple
        raise ManifestError(
            f"image.size: found {size}; accepted by this model: multiples of {multiple}, such as {near}"
        )
    return size


def _feature_bytes(spec: RunSpec, checkpoint: Checkpoint, size: int) -> int:
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


def _block_sides(
    num_contents: int, num_styles: int, spec: RunSpec, feature_bytes: int
) -> tuple[int, int]:
    """Contents and styles per block: at most 16 each, within a shard and the memory for features."""
    shard_size, budget = spec.output.shard_size, spec.engine.feature_gb * 2**30
    columns = min(MAX_BLOCK_SIDE, num_styles, shard_size)
    rows = min(MAX_BLOCK_SIDE, num_contents, max(1, shard_size // columns))
    while (rows > 1 or columns > 1) and feature_bytes * (rows + 2 * columns) > budget:
        rows, columns = (
            (rows, columns - 1) if columns > 1 and 2 * columns >= rows else (rows - 1, columns)
        )
    return rows, columns


def _identity(
    spec: RunSpec,
    checkpoint: Checkpoint,
    size: int,
    contents: list[ImageRow],
    styles: list[ImageRow],
    pairs: tuple[PairRow, ...] | None,
) -> dict[str, Any]:
    origin = spec.model.name or spec.model.id or "local"
    return {
        "format_version": FORMAT_VERSION,
        "method": spec.method.model_dump(mode="json"),
        "model": origin,
        "model_fingerprint": checkpoint.fingerprint,
        "dtype": spec.model.dtype,
        "image": {"size": size, "mode": spec.image.mode},
        "output": spec.output.model_dump(mode="json", exclude={"path"}),
        "seed": spec.seed,
        "pairing": spec.pairing.mode,
        "batch": spec.engine.batch,
        "num_contents": len(contents),
        "num_styles": len(styles),
        "contents": _digest((row.id, row.label, row.caption) for row in contents),
        "styles": _digest((row.id,) for row in styles),
        "pairs": ""
        if pairs is None
        else _digest((str(p.content), str(p.style), p.label, p.caption) for p in pairs),
    }


def _digest(rows: Iterable[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\0".join(row) + "\n").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
