"""Plans of runs of prompts: rows in sets, blocks of rows that are rendered together, cost.

A block is one network batch at most. Rows of a set follow one another; each of its blocks repeats the reference, which is
the set's first row or an image.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stylebatch.data.choice import UNKNOWN, Conditions
from stylebatch.data.grid import Block
from stylebatch.data.prompts import PromptRow, list_prompts
from stylebatch.data.shards import (
    FORMAT_VERSION,
    Plan,
    absolute,
    anchored_spec,
    class_names,
    previewed,
    rows_digest,
)
from stylebatch.data.sides import batch_pictures, batch_rows
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.spec import BlockSize, CustomMethod, PromptMethod, RunSpec, StyleAlignedOptions


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Rows `first` to `stop` (exclusive). `reference`: id of the image whose style they take, and `prompt`, what it shows.

    `has_first`: they take the style of their first row.
    """

    name: str
    first: int
    stop: int
    reference: str = ""
    prompt: str = ""
    has_first: bool = False

    @property
    def num_rows(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True)
class SetGrid:
    """Rows cut into blocks. `starts`: first row of each block, then the number of rows; `sets`: of each block."""

    starts: tuple[int, ...]
    sets: tuple[int, ...]

    @classmethod
    def cut(cls, sets: tuple[PromptSet, ...], *, beside: int, most: int) -> SetGrid:
        """Blocks of `beside` rows besides the reference, and of `most` rows, at most."""
        starts: list[int] = []
        of: list[int] = []
        for number, members in enumerate(sets):
            start, size = members.first, min(beside + members.has_first, most)
            while start < members.stop:
                starts.append(start)
                of.append(number)
                start, size = start + size, min(beside, most)
        return cls((*starts, sets[-1].stop), tuple(of))

    @property
    def num_pairs(self) -> int:
        return self.starts[-1]

    @property
    def num_blocks(self) -> int:
        return len(self.sets)

    def block(self, number: int) -> Block:
        rows = tuple(range(self.starts[number], self.starts[number + 1]))
        own = self.sets[number]
        return Block(number, rows, (own,), tuple((row, own) for row in rows))

    def num_pairs_before(self, block: int) -> int:
        return self.starts[block]


@dataclass(frozen=True, kw_only=True)
class PromptPlan(Plan):
    """The plan of rows with prompts. `files`: paths of images by column and id; `size`: width and height in pixels.

    `window`: width and height of a window, or of the samples where there are none.
    """

    rows: tuple[PromptRow, ...]
    sets: tuple[PromptSet, ...]
    blocks: SetGrid
    files: dict[str, dict[str, str]]
    licenses: tuple[str, ...]
    size: tuple[int, int]
    window: tuple[int, int]
    cells: BlockSize
    measured: Conditions

    @property
    def grid(self) -> SetGrid:
        return self.blocks

    @property
    def totals(self) -> tuple[int, int]:
        return len(self.rows), len(self.sets)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.size

    @property
    def samples_per_block(self) -> int:
        return max(1, self.blocks.num_pairs // self.blocks.num_blocks)

    @property
    def input_members(self) -> tuple[str, ...]:
        shown = ("reference",) if self.method.uses_sets else ()
        return tuple(f"{name}.jpg" for name in (*self.method.inputs, *shown))

    @property
    def conditions(self) -> Conditions:
        return self.measured

    @cached_property
    def method(self) -> PromptMethod:
        """The options; a user's method itself."""
        return self.spec.prompt_method

    def seed(self, content: int, style: int) -> int:
        return self.rows[content].seed

    def told(self, content: int) -> tuple[str, str]:
        row = self.rows[content]
        return row.label, row.caption

    def where(self, row: int) -> str:
        """Where a row stands, for people."""
        source = self.spec.prompts
        assert source is not None
        place = "template: combination" if source.path is None else f"{Path(source.path).name}: row"
        return f"{place} {self.rows[row].number}"

    def is_reference(self, row: int, own: int) -> bool:
        """Whether the row is the one whose style its set takes."""
        return self.sets[own].has_first and row == self.sets[own].first

    def block_evaluations(self, number: int) -> int:
        """Network rows of a block, without inversions."""
        block = self.grid.block(number)
        beside = sum(not self.is_reference(row, block.styles[0]) for row in block.contents)
        return self.method.evaluations(replace(self.cells, samples=beside))

    @cached_property
    def inversions(self) -> int:
        """Network rows that invert reference images, each once; a worker that takes over a set inverts again."""
        method = self.method
        if not isinstance(method, StyleAlignedOptions):
            return 0
        return sum(bool(own.reference) for own in self.sets) * method.num_inversion_evaluations

    @cached_property
    def evaluations(self) -> int:
        return self.inversions + sum(map(self.block_evaluations, range(self.grid.num_blocks)))

    def set_of(self, row: int) -> int:
        """The set a row is in."""
        return self.blocks.sets[bisect_right(self.blocks.starts, row) - 1]

    def anchored(self) -> PromptPlan:
        files = {
            name: {id_: str(absolute(path)) for id_, path in paths.items()}
            for name, paths in self.files.items()
        }
        return replace(self, spec=anchored_spec(self.spec), files=files)

    def summary(self) -> dict[str, Any]:
        sets = {"num_sets": len(self.sets)} if self.method.uses_sets else {}
        return {
            "num_prompts": len(self.rows),
            **sets,
            "num_pairs": self.grid.num_pairs,
            "num_blocks": self.grid.num_blocks,
            "num_shards": self.num_shards,
            "batch": self.batch,
            "evaluations": self.evaluations,
            "inversions": self.inversions,
            "width": self.size[0],
            "height": self.size[1],
            "digest": self.digest,
        }

    def lines(self) -> list[str]:
        count, method = len(self.rows), self.method
        sets = f" in {len(self.sets)} sets" if method.uses_sets else ""
        guided = ", 2 rows per step for guidance" if method.rows_per_sample == 2 else ""
        inverted = f", {self.inversions} of them for reference images" if self.inversions else ""
        rows = max(len(self.grid.block(i).contents) for i in range(min(2, self.grid.num_blocks)))
        return [
            f"{self.spec.name}: {count} samples of {self.size[0]} x {self.size[1]} px{sets}",
            f"{self.num_shards} shards of up to {self.shard_size(self.first_shard)} samples, in blocks of up to {rows}",
            f"{self.evaluations} network evaluations ({self.evaluations / count:.1f} per sample{guided}{inverted}) "
            f"with {self.spec.method.name} on model {self.model}",
            f"batches of up to {self.batch} rows",
        ]


def plan_prompts(
    spec: RunSpec, *, limit: int | None = None, conditions: Conditions = UNKNOWN
) -> PromptPlan:
    """Resolve `spec`. With `limit`, a preview of that many rows spread over all, first rows of sets before later ones.

    Raises ManifestError for rows that cannot be, and sizes that the model cannot take.
    """
    checkpoint = find_checkpoint(spec.model, families=("sd", "sdxl"))
    method = spec.prompt_method
    table = list_prompts(spec)
    rows, sets = _in_sets(table.rows, method)
    if limit is not None:
        spec = previewed(spec, limit)
        rows, sets = _in_sets(_spread(rows, sets, limit), method)
    size, window, cells = _sizes(spec, checkpoint, method)
    batch = batch_rows(spec, checkpoint, window, conditions.batch_gb)
    cells = replace(cells, batch=batch)
    pictures = batch_pictures(spec, checkpoint, size, conditions.batch_gb)
    blocks = _blocks(spec, method, sets, cells)
    own = spec.method
    source = {"source": own.source_digest()} if isinstance(own, CustomMethod) else {}
    identity: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "method": {"name": own.name, **method.model_dump(mode="json"), **source},
        "model": spec.model.name or spec.model.id or "local",
        "model_fingerprint": checkpoint.fingerprint,
        "dtype": spec.model.dtype,
        "image": {"width": size[0], "height": size[1], "mode": spec.image.mode},
        "output": spec.output.model_dump(mode="json", exclude={"path"}),
        "seed": spec.seed,
        "num_prompts": len(rows),
        "prompts": rows_digest(row.facts for row in rows),
        "batch": batch,
        **({"pictures": pictures} if pictures < batch else {}),
    }
    return PromptPlan(
        spec=spec,
        batch=batch,
        pictures=pictures,
        labels=class_names({row.label for row in rows}),
        has_captions=True,
        model=identity["model"],
        identity=identity,
        rows=tuple(rows),
        sets=sets,
        blocks=blocks,
        files=table.files,
        licenses=tuple(sorted(table.licenses)),
        size=size,
        window=window,
        cells=cells,
        measured=conditions,
    )


def _in_sets(
    rows: list[PromptRow], method: PromptMethod
) -> tuple[list[PromptRow], tuple[PromptSet, ...]]:
    """Rows with those of one set together, sets in order of appearance; one set where the method makes none."""
    if not method.uses_sets:
        return rows, (PromptSet("", 0, len(rows)),)
    members: dict[str, list[PromptRow]] = {}
    for row in rows:
        members.setdefault(row.style, []).append(row)
    sets: list[PromptSet] = []
    for name, own in members.items():
        first = sets[-1].stop if sets else 0
        facts = own[0].reference, own[0].reference_prompt
        has_first = not own[0].reference
        sets.append(PromptSet(name, first, first + len(own), *facts, has_first=has_first))
    return [row for own in members.values() for row in own], tuple(sets)


def _spread(rows: list[PromptRow], sets: tuple[PromptSet, ...], limit: int) -> list[PromptRow]:
    """`limit` of the rows: evenly spaced, or with several sets the first of each, then the second, ..."""
    count = min(limit, len(rows))
    if len(sets) == 1:
        return [rows[i * len(rows) // count] for i in range(count)]
    order = sorted((row - own.first, row) for own in sets for row in range(own.first, own.stop))
    return [rows[row] for row in sorted(row for _, row in order[:count])]


def _sizes(
    spec: RunSpec, checkpoint: Checkpoint, method: PromptMethod
) -> tuple[tuple[int, int], tuple[int, int], BlockSize]:
    """Width and height of samples and of windows in pixels; the canvas in latent cells."""
    side = spec.image.size or checkpoint.native_size
    size = spec.image.width or side, spec.image.height or side
    factor, multiple = checkpoint.latent_factor, checkpoint.size_multiple
    for name, pixels in zip(("width", "height"), size, strict=True):
        if pixels % multiple:
            near = max(1, round(pixels / multiple)) * multiple
            field = name if getattr(spec.image, name) is not None else "size"
            raise ManifestError(
                f"image.{field}: found {pixels}; accepted by this model: multiples of {multiple}, such as {near}"
            )
    native = checkpoint.native_size // factor
    cells = BlockSize(0, size[1] // factor, size[0] // factor, 0, native)
    windows = getattr(method, "windows", None)
    if windows is None:
        return size, size, cells
    window = windows.side(native)
    if window % (multiple // factor) or windows.stride > window:
        raise ManifestError(
            f"method.windows: found size {window}, stride {windows.stride}; accepted by this model: a size that is a multiple "
            f"of {multiple // factor} latent cells, and a stride up to the size"
        )
    return size, (min(size[0], window * factor), min(size[1], window * factor)), cells


def _blocks(
    spec: RunSpec, method: PromptMethod, sets: tuple[PromptSet, ...], cells: BlockSize
) -> SetGrid:
    """Blocks of one network batch at most, and of a shard."""
    beside = method.samples_per_block(cells)
    if isinstance(method, StyleAlignedOptions) and method.full_attention_share:
        beside = method.samples_per_batch(cells.batch) - 1
        for own in sets:
            if own.num_rows - own.has_first > beside:
                raise ManifestError(
                    f"method.full_attention_share: found set {own.name!r} of {own.num_rows} samples; accepted: up to "
                    f"{beside + own.has_first}, since all of them are one network batch (engine.batch {spec.engine.batch}, "
                    f"batches of {cells.batch} rows, {method.rows_per_sample} rows per sample)"
                )
    return SetGrid.cut(sets, beside=beside, most=spec.output.shard_size)
