"""Resolves a run specification into a plan: samples with stable keys, blocks, shards, cost, identity.

Everything that decides pixels or names is fixed here, before any work. A plan of a product or of samples
is arithmetic over the lists of contents and styles; it holds no table of pairs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from stylebatch.data.blends import blend_names, list_styles
from stylebatch.data.choice import UNKNOWN, Choice, Chosen, Conditions, candidates, choose
from stylebatch.data.grid import Block, Grid, spread
from stylebatch.data.layout import Layout
from stylebatch.data.sampling import SampleGrid
from stylebatch.data.sides import batch_rows, feature_bytes
from stylebatch.data.sources import ImageRow, PairRow, list_images, list_pairs
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.spec import RunSpec, canonical_json

FORMAT_VERSION = 1


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
class Extension:
    """A generation of a growing output: its inputs, former ones first, and what the generations before it made.

    `former`: contents and styles whose pairs are there, (0, 0) for the first; `labels`: classes in use before.
    """

    contents: tuple[ImageRow, ...]
    styles: tuple[ImageRow, ...]
    former: tuple[int, int]
    first_shard: int
    former_digest: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a run does. `identity` is all that affects pixels or names; `digest` is its hash.

    `batch`: rows of one network evaluation at most.
    """

    spec: RunSpec
    size: int
    contents: tuple[ImageRow, ...]
    styles: tuple[ImageRow, ...]
    layout: Layout
    chosen: Chosen
    batch: int
    labels: tuple[str, ...]
    has_captions: bool
    model: str
    identity: dict[str, Any]
    first_shard: int = 0

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return self.layout.grid

    @property
    def choice(self) -> Choice:
        """Where features come from."""
        return self.chosen.choice

    @property
    def num_style_groups_held(self) -> int:
        """Groups of styles whose features a worker keeps."""
        return self.layout.num_style_groups_held

    @property
    def blocks_per_shard(self) -> int:
        return max(1, self.spec.output.shard_size // self.layout.pairs_per_block)

    @property
    def num_shards(self) -> int:
        return math.ceil(self.grid.num_blocks / self.blocks_per_shard)

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(self.first_shard, self.first_shard + self.num_shards)

    def shard(self, shard_id: int) -> Shard:
        first = (shard_id - self.first_shard) * self.blocks_per_shard
        numbers = range(first, min(first + self.blocks_per_shard, self.grid.num_blocks))
        return Shard(shard_id, tuple(self.grid.block(number) for number in numbers))

    def shard_size(self, shard_id: int) -> int:
        """Samples of a shard, without listing them."""
        first = (shard_id - self.first_shard) * self.blocks_per_shard
        stop = min(first + self.blocks_per_shard, self.grid.num_blocks)
        return self.grid.num_pairs_before(stop) - self.grid.num_pairs_before(first)

    @cached_property
    def shard_digits(self) -> int:
        return max(5, len(str(self.shards[-1])))

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

    @property
    def evaluations(self) -> int:
        """Network evaluations of the whole run: inversions, recomputed features, the reverse of every pair.

        Cached styles count as inverted once; those that the cache holds already cost nothing.
        """
        return self.layout.evaluations

    def summary(self) -> dict[str, Any]:
        """Counts and cost as plain values, for `plan --json` and run.json."""
        grid = self.grid
        drawn = {"uses_per_style": grid.uses_per_style} if isinstance(grid, SampleGrid) else {}
        return drawn | {
            "num_contents": len(self.contents),
            "num_styles": len(self.styles),
            "num_pairs": self.grid.num_pairs,
            "num_blocks": self.grid.num_blocks,
            "num_shards": self.num_shards,
            "pairing": self.spec.pairing.mode,
            "block": list(self.layout.sides),
            "batch": self.batch,
            "features": asdict(self.choice),
            "evaluations": self.evaluations,
            "size": self.size,
            "digest": self.digest,
        }


def sample_seed(run_seed: int, content_id: str, style_id: str) -> int:
    """Seed of one sample: 63 bits of sha256 over run seed and ids, independent of order and batch."""
    text = f"{run_seed}\0{content_id}\0{style_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def plan(
    spec: RunSpec,
    *,
    limit: int | None = None,
    choice: Choice | None = None,
    conditions: Conditions = UNKNOWN,
    extension: Extension | None = None,
) -> Plan:
    """Resolve `spec`. With `limit`, a preview of that many pairs spread over contents and styles.

    `extension`: inputs in place of the sources' own, for a generation of a growing output. `choice` of an earlier
    start goes before the one that `conditions` make cheapest. Raises ManifestError
    for sources that hold nothing, a size the model cannot take, lists of different length for zip.
    """
    checkpoint = find_checkpoint(spec.model, families=("sd", "sdxl"))
    spec = _with_sites(spec, checkpoint)
    size = _size(spec, checkpoint)
    missing = sorted(set(spec.method.sites) - set(checkpoint.sites))
    if missing:
        raise ManifestError(
            f"method.sites: found {missing}, where this model has no self-attention; accepted: {list(checkpoint.sites)}"
        )
    contents, styles, pairs = (
        list_sources(spec)
        if extension is None
        else (list(extension.contents), list(extension.styles), None)
    )
    former = (0, 0) if extension is None else extension.former
    num_bytes = feature_bytes(spec, checkpoint, size)
    totals = (len(contents), len(styles))
    if limit is not None:
        spec, pairs = _preview(spec, totals, num_bytes, pairs, limit)
    blends = blend_names(styles)
    lay = partial(Layout.of, spec, totals, pairs, num_bytes, former=former, blends=blends)
    chosen = choose(spec, lay, conditions) if choice is None else Chosen(choice, {}, conditions)
    layout = lay(chosen.choice)
    batch = batch_rows(spec, checkpoint, size, conditions.batch_gb)
    identity = _identity(spec, checkpoint, size, contents, styles, pairs)
    before: tuple[str, ...] = ()
    if extension is not None and extension.former_digest:
        identity["former"] = {"plan": extension.former_digest, "inputs": list(extension.former)}
        before = extension.labels
    return Plan(
        spec=spec,
        size=size,
        contents=tuple(contents),
        styles=tuple(styles),
        layout=layout,
        chosen=chosen,
        batch=batch,
        labels=_class_names(contents, pairs or (), before),
        first_shard=0 if extension is None else extension.first_shard,
        has_captions=any(row.caption for row in contents) or any(p.caption for p in pairs or ()),
        model=identity["model"],
        identity=identity
        | {
            "batch": batch,
            "features": asdict(layout.choice),
            "block": list(layout.sides),
            "feature_bytes": num_bytes,
            "style_bytes": layout.style_bytes,
        },
    )


def _class_names(
    contents: Sequence[ImageRow], pairs: Sequence[PairRow], before: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Labels in use, in class order: those `before`, then by number when all are whole numbers, else by name."""
    used = ({row.label for row in contents} | {pair.label for pair in pairs}) - {"", *before}
    numeric = all(label.removeprefix("-").isdecimal() for label in used)
    new = sorted(used, key=lambda label: (int(label) if numeric else 0, label))
    return (*before, *new)


def list_sources(
    spec: RunSpec,
) -> tuple[list[ImageRow], list[ImageRow], tuple[PairRow, ...] | None]:
    """Contents, styles, and the pairs where they are listed."""
    if spec.pairing.path is not None:
        contents, styles, pairs = list_pairs(spec.pairing.path)
        return contents, styles, tuple(pairs)
    if spec.contents is None or spec.styles is None:
        raise ManifestError("contents, styles: both are needed unless the pairing is explicit")
    contents, styles = (
        list_images(spec.contents.path, "contents"),
        list_styles(spec.styles.path),
    )
    if spec.pairing.mode == "sample":
        k = spec.pairing.sampling(spec.seed).per_content
        if k > len(styles):
            raise ManifestError(
                f"pairing.per_content: found {k}; accepted: 1 to {len(styles)}, as many styles as there are"
            )
    if spec.pairing.mode in ("product", "sample"):
        return contents, styles, None
    if len(contents) != len(styles):
        raise ManifestError(
            f"pairing.mode: found zip over {len(contents)} contents and {len(styles)} styles; accepted: as many of one as of the other"
        )
    return contents, styles, tuple(PairRow(i, i) for i in range(len(contents)))


def _preview(
    spec: RunSpec,
    totals: tuple[int, int],
    feature_bytes: int,
    pairs: tuple[PairRow, ...] | None,
    limit: int,
) -> tuple[RunSpec, tuple[PairRow, ...]]:
    """`spec` with an output of its own, and `limit` pairs spread over contents and styles."""
    if limit < 1:
        raise ManifestError(f"--limit: found {limit}; accepted: 1 or more")
    output = Path(spec.output.path)
    output = output if output.name else output.resolve()
    path = str(output.with_name(f"{output.name}-preview-{limit}"))
    preview = spec.model_copy(update={"output": spec.output.model_copy(update={"path": path})})
    if pairs is not None:
        count = min(limit, len(pairs))
        return preview, tuple(pairs[i * len(pairs) // count] for i in range(count))
    whole = Layout.of(spec, totals, None, feature_bytes, candidates(spec)[0]).grid
    walk = whole.spread(limit) if isinstance(whole, SampleGrid) else spread(*totals, limit)
    return preview, tuple(PairRow(content, style) for content, style in sorted(walk))


def _with_sites(spec: RunSpec, checkpoint: Checkpoint) -> RunSpec:
    """On SDXL, which lacks the sites of the defaults, these stand for all that it has."""
    method = spec.method
    unchanged = type(method)(convention=method.convention).sites
    if checkpoint.family == "sd" or method.sites != unchanged:
        return spec
    changed = method.model_copy(update={"sites": checkpoint.sites})
    return spec.model_copy(update={"method": changed})


def _size(spec: RunSpec, checkpoint: Checkpoint) -> int:
    size = spec.image.size or checkpoint.native_size
    if size % checkpoint.size_multiple:
        multiple = checkpoint.size_multiple
        near = max(1, round(size / multiple)) * multiple
        raise ManifestError(
            f"image.size: found {size}; accepted by this model: multiples of {multiple}, such as {near}"
        )
    return size


def _identity(
    spec: RunSpec,
    checkpoint: Checkpoint,
    size: int,
    contents: list[ImageRow],
    styles: list[ImageRow],
    pairs: tuple[PairRow, ...] | None,
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "method": spec.method.model_dump(mode="json"),
        "model": spec.model.name or spec.model.id or "local",
        "model_fingerprint": checkpoint.fingerprint,
        "dtype": spec.model.dtype,
        "image": {"size": size, "mode": spec.image.mode},
        "output": spec.output.model_dump(mode="json", exclude={"path"}),
        "seed": spec.seed,
        "pairing": {"mode": "sample", **asdict(spec.pairing.sampling(spec.seed))}
        if spec.pairing.mode == "sample"
        else spec.pairing.mode,
        "num_contents": len(contents),
        "num_styles": len(styles),
        "contents": _digest(
            (row.id, row.label, row.caption, *([row.mask] if row.mask else [])) for row in contents
        ),
        "styles": _digest(
            (row.id, *(f"{part.weight!r} {part.id}" for part in row.parts)) for row in styles
        ),
        "pairs": ""
        if pairs is None
        else _digest((str(p.content), str(p.style), p.label, p.caption) for p in pairs),
    }


def _digest(rows: Iterable[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\0".join(row) + "\n").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
