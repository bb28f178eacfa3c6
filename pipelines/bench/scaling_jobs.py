"""Jobs of real size as their plans, and what their shards cost a machine: seconds by a profile, images inverted again, bytes."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.bench.gpu_lab import write_configs
from pipelines.bench.simulated_cluster import Cost, Phase
from pipelines.proofs.published import PUBLISHED
from stylebatch.data.sources.source import Sources
from stylebatch.methods.method import BlockSize
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.family import Memory
from stylebatch.planning.batches import batch_pictures, batch_rows
from stylebatch.planning.choice import UNKNOWN, choose
from stylebatch.planning.forecast import row_seconds
from stylebatch.planning.grid import ProductGrid
from stylebatch.planning.layout import Layout
from stylebatch.planning.plan import Plan
from stylebatch.planning.profiles import Profile
from stylebatch.planning.sample_bytes import sample_bytes
from stylebatch.planning.shard_cuts import with_size
from stylebatch.planning.work import Work
from stylebatch.spec import RunSpec

SIDE = 512
BATCH_GB = 40.0
"""For activations: half of a GPU's memory of 80 GB."""
INPUT_BYTES = 110_000
"""Of a picture that is read: the mean of ImageNet's."""
DEVICE = Profile(
    model="sd15", fingerprint="", device="cuda", name="assumed", dtype="float16", threads=1, size=SIDE,
    row_s={1: 1 / 60, 8: 1 / 140, 16: 1 / 150},
    related_row_s={1: 1 / 60, 8: 1 / 140, 16: 1 / 150}, encode_s=0.012, decode_s=0.02, sample_s=0.006, load_s=20.0,
    measured="",
)  # fmt: skip
"""150 network rows a second is the published figure of an A100 for SD 1.5 at 512 px; the rest is assumed."""


def sd15_memory() -> Memory:
    """Of SD 1.5 at 512 px in float16, from its published configs."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(write_configs(PUBLISHED["sd15"], Path(folder)))
        return checkpoint.family.memory((SIDE, SIDE), 2)


def planned(counts: tuple[int, int], **manifest: Any) -> Plan:
    """The plan of a manifest for SD 1.5 over so many rows and columns, whose files are not looked at."""
    spec = RunSpec.model_validate(
        {"model": {"name": "sd15", "dtype": "float16"}, "output": {"path": "out"}} | manifest
    )
    memory, options = sd15_memory(), spec.options
    batch, cells = batch_rows(spec, memory, BATCH_GB), SIDE // 8
    work = Work(
        spec=spec,
        axes=options.axes(),
        counts=counts,
        size=BlockSize(0, cells, cells, batch, cells, 4),
        feature_bytes=options.feature_bytes(memory),
    )
    chosen = choose(spec, partial(Layout.of, work), UNKNOWN) if options.keeps_features else None
    layout, per_shard = with_size(Layout.of(work, chosen.choice if chosen else None))
    return Plan(
        spec=spec, axes=(), sources=Sources({}), layout=layout, image_size=(SIDE, SIDE), window=(SIDE, SIDE),
        batch=batch, pictures=batch_pictures(spec, memory, BATCH_GB), labels=(), numbering="", has_captions=False, identity={},
        chosen=chosen, conditions=UNKNOWN, samples_per_shard=per_shard,
    )  # fmt: skip


class Outline(NamedTuple):
    """A block by what a worker keeps of it: a name and the number of its rows, and of its columns; samples."""

    rows: int
    num_rows: int
    columns: int
    num_columns: int
    samples: int


class Rendering:
    """The shards of a plan. A machine keeps one group of rows, and as many of columns as the plan says."""

    def __init__(self, plan: Plan, profile: Profile = DEVICE) -> None:
        self.plan, self.profile, self.numbers = plan, profile, plan.shards
        layout, self.options = plan.layout, plan.options
        self.row_s = row_seconds(plan, profile)
        self.is_cached = layout.choice is not None and layout.choice.styles == "cached"
        self.prepares = [layout.prepare_evaluations(axis) for axis in (0, 1)]
        axes = layout.work.axes
        self.has_pictures = [axis < len(axes) and axes[axis] != "prompt" for axis in (0, 1)]
        self.stored_bytes = layout.column_stored_bytes
        self.each = sample_bytes(plan.spec.output, (SIDE, SIDE), len(plan.options.input_members))

    @cached_property
    def outlines(self) -> Sequence[Outline]:
        """Of all blocks, in order."""
        grid = self.plan.grid
        if isinstance(grid, ProductGrid):
            return _OfProduct(grid)
        names: dict[tuple[int, ...], int] = {}
        found = []
        for block in map(grid.block, range(grid.num_blocks)):
            columns = names.setdefault(block.columns, len(names))
            found.append(
                Outline(
                    block.rows[0], len(block.rows), columns, len(block.columns), len(block.cells)
                )
            )
        return found

    @cached_property
    def _alone(self) -> list[Cost]:
        """Of each shard where one worker renders all of them in order, which is what the plan counts."""
        kept: dict[str, Any] = {}
        return [self._alone_cost(number, kept) for number in self.numbers]

    def _alone_cost(self, number: int, kept: dict[str, Any]) -> Cost:
        outlines = [self.outlines[block] for block in self.plan.cut.blocks_of(number)]
        columns = sum(one.num_columns for one in outlines)
        rows = sum(one.num_rows for one in outlines)
        pictures = rows * self.has_pictures[0] + columns * self.has_pictures[1]
        return Cost(
            sum(self._block_s(outline, kept) for outline in outlines),
            read_bytes=pictures * INPUT_BYTES + columns * self.stored_bytes,
            written_bytes=sum(one.samples for one in outlines) * self.each,
        )

    def cost(self, number: int, kept: dict[str, Any]) -> Cost:
        """Of a shard after those that `kept` remembers."""
        alone = self._alone[number - self.numbers.start]
        blocks = self.plan.cut.blocks_of(number)
        follows = kept.get("last") == blocks.start - 1
        kept["last"] = blocks.stop - 1
        last = self.outlines[blocks.stop - 1]
        if follows and self.plan.layout.num_column_groups_held == 1:
            # as with one worker, who keeps the groups of the last block
            kept["rows"] = OrderedDict({last.rows: None})
            kept["columns"] = OrderedDict({last.columns: None})
            return alone
        seconds = sum(self._block_s(self.outlines[block], kept) for block in blocks)
        return replace(alone, again_s=seconds - alone.useful_s)

    def _block_s(self, outline: Outline, kept: dict[str, Any]) -> float:
        """Seconds of a device for a block."""
        profile, layout = self.profile, self.plan.layout
        inverted_rows, inverted_columns = self._prepared(outline, kept)
        encoded = inverted_rows + (0 if self.is_cached else inverted_columns)
        rows = inverted_rows * self.prepares[0]
        rows += 0 if self.is_cached else inverted_columns * self.prepares[1]
        rows += self.options.evaluations(self._sized(outline.samples))
        if layout.choice is not None:
            again = outline.num_rows * (layout.choice.contents == "recomputed")
            again += outline.num_columns * (layout.choice.styles == "recomputed")
            rows += again * self.options.evaluations(self._sized(1))
        pictures = outline.samples * (profile.decode_s + profile.sample_s)
        return rows * self.row_s + encoded * profile.encode_s + pictures

    def _sized(self, samples: int) -> BlockSize:
        size = self.plan.layout.work.size
        return BlockSize(samples, size.height, size.width, size.batch, size.native, size.channels)

    def _prepared(self, outline: Outline, kept: dict[str, Any]) -> tuple[int, int]:
        """How many rows and columns must be prepared, which are kept then."""
        missing = [0, 0]
        capacities = (1, self.plan.layout.num_column_groups_held)
        for axis, (group, count) in enumerate((outline[:2], outline[2:4])):
            if not self.has_pictures[axis]:
                continue
            held = kept.setdefault(("rows", "columns")[axis], OrderedDict())
            missing[axis] = 0 if group in held else count
            held[group] = None
            held.move_to_end(group)
            if len(held) > capacities[axis]:
                held.popitem(last=False)
        return missing[0], missing[1]


class _OfProduct(Sequence[Outline]):
    """Of a product's blocks, by arithmetic."""

    def __init__(self, grid: ProductGrid) -> None:
        self.grid = grid

    def __len__(self) -> int:
        return self.grid.num_blocks

    def __getitem__(self, number: Any) -> Any:
        rows, columns = self.grid.rows, self.grid.columns
        row, column = divmod(number, columns.count)
        num_rows = rows.start(row + 1) - rows.start(row)
        num_columns = columns.start(column + 1) - columns.start(column)
        return Outline(row, num_rows, column, num_columns, num_rows * num_columns)


class Precomputing:
    """The styles of a cache, inverted one at a time and written."""

    def __init__(self, rendering: Rendering) -> None:
        self.numbers = rendering.plan.cached_columns
        seconds = rendering.prepares[1] * rendering.profile.row_seconds(1)
        self.each = Cost(
            seconds + rendering.profile.encode_s,
            read_bytes=INPUT_BYTES,
            written_bytes=rendering.stored_bytes,
        )

    def cost(self, number: int, kept: dict[str, Any]) -> Cost:
        return self.each


def phases(rendering: Rendering) -> list[Phase]:
    """What a run goes through."""
    return [Precomputing(rendering), rendering] if rendering.is_cached else [rendering]
