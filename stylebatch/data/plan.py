"""Resolves a run specification into a plan: samples with stable keys, blocks, shards, cost, identity.

Everything that decides pixels or names is fixed here, before any work. A plan of a product or of samples
is arithmetic over the lists of contents and styles; it holds no table of pairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from stylebatch.data.blends import blend_names, list_styles
from stylebatch.data.choice import (
    UNKNOWN,
    Choice,
    Chosen,
    Conditions,
    candidates,
    choose,
    needs_measuring,
)
from stylebatch.data.grid import Grid, spread
from stylebatch.data.layout import Layout
from stylebatch.data.masks import list_contents
from stylebatch.data.prompt_plan import plan_prompts
from stylebatch.data.sampling import SampleGrid
from stylebatch.data.shards import (
    FORMAT_VERSION,
    Plan,
    absolute,
    anchored_spec,
    class_names,
    output_path,
    previewed,
    rows_digest,
    sample_seed,
)
from stylebatch.data.sides import batch_pictures, batch_rows, feature_bytes, rows_at_once
from stylebatch.data.sources import ImageRow, PairRow, list_pairs
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.spec import BEYOND_THE_PAPER, RunSpec, StyleIDOptions

__all__ = [
    "Extension",
    "PairPlan",
    "Plan",
    "list_sources",
    "output_path",
    "plan",
    "plan_pairs",
    "sample_seed",
]


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


@dataclass(frozen=True, kw_only=True)
class PairPlan(Plan):
    """The plan of contents x styles."""

    size: int
    contents: tuple[ImageRow, ...]
    styles: tuple[ImageRow, ...]
    layout: Layout
    chosen: Chosen

    @property
    def grid(self) -> Grid:
        return self.layout.grid

    @property
    def totals(self) -> tuple[int, int]:
        return len(self.contents), len(self.styles)

    @property
    def samples_per_block(self) -> int:
        return self.layout.pairs_per_block

    @property
    def image_size(self) -> tuple[int, int]:
        return self.size, self.size

    @property
    def method(self) -> StyleIDOptions:
        return self.spec.styleid

    @property
    def input_members(self) -> tuple[str, ...]:
        return "content.jpg", "style.jpg"

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """As the identity has them: a plan without them keeps its digest."""
        return tuple(self.identity.get("columns", ()))

    @property
    def choice(self) -> Choice:
        return self.chosen.choice

    @property
    def conditions(self) -> Conditions:
        return self.chosen.conditions

    @property
    def reasons(self) -> list[str]:
        return [self.chosen.reason] if len(self.chosen.costs) > 1 else []

    @property
    def cached_styles(self) -> range:
        return range(len(self.styles) if self.choice.styles == "cached" else 0)

    @property
    def num_style_groups_held(self) -> int:
        """Groups of styles whose features a worker keeps."""
        return self.layout.num_style_groups_held

    @property
    def evaluations(self) -> int:
        """Network evaluations of the whole run: inversions, recomputed features, the reverse of every pair.

        Cached styles count as inverted once; those that the cache holds already cost nothing.
        """
        return self.layout.evaluations

    def seed(self, content: int, style: int) -> int:
        return sample_seed(self.spec.seed, self.contents[content].id, self.styles[style].id)

    def told(self, content: int) -> tuple[str, str]:
        row = self.contents[content]
        return row.label, row.caption

    def anchored(self) -> PairPlan:
        contents, styles = (
            tuple(_anchored(row) for row in rows) for rows in (self.contents, self.styles)
        )
        return replace(self, spec=anchored_spec(self.spec), contents=contents, styles=styles)

    def summary(self) -> dict[str, Any]:
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

    def lines(self) -> list[str]:
        grid, (rows, columns) = self.grid, self.layout.sides
        uses = grid.uses_per_style if isinstance(grid, SampleGrid) else None
        drawn = f" (each style {uses[0]} to {uses[1]} times)" if uses else ""
        measured = ", unless a run measures otherwise" if needs_measuring(self.spec) else ""
        return [
            f"{self.spec.name}: {len(self.contents)} contents, {len(self.styles)} styles, "
            f"{self.spec.pairing.mode} pairing{drawn}: {grid.num_pairs} samples of {self.size} px",
            f"{self.num_shards} shards of up to {self.shard_size(self.first_shard)} samples, "
            f"in blocks of up to {rows} contents x {columns} styles",
            f"{self.evaluations} network evaluations ({self.evaluations / grid.num_pairs:.1f} per sample) "
            f"with {self.spec.method.name} on model {self.model}",
            f"features: {self.choice}{measured}; batches of up to {self.batch}",
        ]


def _anchored(row: ImageRow) -> ImageRow:
    parts = tuple(replace(part, path=str(absolute(part.path))) for part in row.parts)
    mask = str(absolute(row.mask)) if row.mask else ""
    path = str(absolute(row.path)) if row.path else ""
    return replace(row, path=path, mask=mask, parts=parts)


def plan(
    spec: RunSpec,
    *,
    limit: int | None = None,
    choice: Choice | None = None,
    conditions: Conditions = UNKNOWN,
) -> Plan:
    """Resolve `spec`, whatever its method; see `plan_pairs` and `plan_prompts`."""
    if spec.prompts is not None:
        return plan_prompts(spec, limit=limit, conditions=conditions)
    return plan_pairs(spec, limit=limit, choice=choice, conditions=conditions)


def plan_pairs(
    spec: RunSpec,
    *,
    limit: int | None = None,
    choice: Choice | None = None,
    conditions: Conditions = UNKNOWN,
    extension: Extension | None = None,
) -> PairPlan:
    """Resolve `spec`. With `limit`, a preview of that many pairs spread over contents and styles.

    `extension`: inputs in place of the sources' own, for a generation of a growing output. `choice` of an earlier
    start goes before the one that `conditions` make cheapest. Raises ManifestError
    for sources that hold nothing, a size the model cannot take, lists of different length for zip.
    """
    checkpoint = find_checkpoint(spec.model, families=("sd", "sdxl"))
    spec = _with_sites(spec, checkpoint)
    size = _size(spec, checkpoint)
    missing = sorted(set(spec.styleid.sites) - set(checkpoint.sites))
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
    pictures = batch_pictures(spec, checkpoint, size, conditions.batch_gb)
    identity = _identity(spec, checkpoint, size, contents, styles, pairs)
    if pictures < batch:
        identity["pictures"] = pictures
    columns = _extra_columns(spec.styleid, contents, styles)
    if columns:
        identity["columns"] = list(columns)
    before: tuple[str, ...] = ()
    if extension is not None and extension.former_digest:
        identity["former"] = {"plan": extension.former_digest, "inputs": list(extension.former)}
        before = extension.labels
    return PairPlan(
        spec=spec,
        size=size,
        contents=tuple(contents),
        styles=tuple(styles),
        layout=layout,
        chosen=chosen,
        batch=batch,
        batches_at_once=max(1, rows_at_once(spec, checkpoint, size, conditions.batch_gb) // batch),
        pictures=pictures,
        labels=class_names(
            {row.label for row in contents} | {pair.label for pair in pairs or ()}, before
        ),
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


def list_sources(
    spec: RunSpec,
) -> tuple[list[ImageRow], list[ImageRow], tuple[PairRow, ...] | None]:
    """Contents, styles, and the pairs where they are listed."""
    if spec.pairing.path is not None:
        contents, styles, pairs = list_pairs(
            spec.pairing.path,
            None if spec.contents is None else list_contents(spec.contents),
            None if spec.styles is None else list_styles(spec.styles.path),
        )
        return contents, styles, tuple(pairs)
    if spec.contents is None or spec.styles is None:
        raise ManifestError("contents, styles: both are needed unless the pairing is explicit")
    contents, styles = (
        list_contents(spec.contents),
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
    preview = previewed(spec, limit)
    if pairs is not None:
        count = min(limit, len(pairs))
        return preview, tuple(pairs[i * len(pairs) // count] for i in range(count))
    whole = Layout.of(spec, totals, None, feature_bytes, candidates(spec)[0]).grid
    walk = whole.spread(limit) if isinstance(whole, SampleGrid) else spread(*totals, limit)
    return preview, tuple(PairRow(content, style) for content, style in sorted(walk))


def _with_sites(spec: RunSpec, checkpoint: Checkpoint) -> RunSpec:
    """On SDXL, which lacks the sites of the defaults, these stand for all that it has."""
    method = spec.styleid
    unchanged = StyleIDOptions(convention=method.convention).sites
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


def _extra_columns(
    method: StyleIDOptions, contents: list[ImageRow], styles: list[ImageRow]
) -> tuple[str, ...]:
    """What the records of this run tell beside the paper's options: each only where something uses it."""
    blended = any(row.parts for row in styles)
    beyond = blended or bool(set(BEYOND_THE_PAPER) & set(method.model_dump()))
    masked = any(row.mask for row in contents)
    return (
        *(BEYOND_THE_PAPER if beyond else ()),
        *(("style_images", "style_weights") if blended else ()),
        *(("mask_id",) if masked else ()),
    )


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
        "contents": rows_digest(
            (row.id, row.label, row.caption, *([row.mask_id] if row.mask else []))
            for row in contents
        ),
        "styles": rows_digest(
            (row.id, *(f"{part.weight!r} {part.id}" for part in row.parts)) for row in styles
        ),
        "pairs": ""
        if pairs is None
        else rows_digest((str(p.content), str(p.style), p.label, p.caption) for p in pairs),
    }
