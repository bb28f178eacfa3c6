"""Resolves a run specification into a plan: samples with stable keys, blocks, shards, cost, identity.

Everything that decides pixels or names is fixed here, before any work. A plan of a product or of samples is arithmetic over
its axes; it holds no table of samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from stylebatch.data.geometry import Size
from stylebatch.data.rows import UNLISTED, Cell
from stylebatch.data.source_sizes import Sizes
from stylebatch.data.sources.path_items import with_facts
from stylebatch.data.sources.source import Item, Sources
from stylebatch.masking import masked_values
from stylebatch.methods.input_kinds import STYLE
from stylebatch.methods.method import MethodOptions
from stylebatch.planning.axes import Axis, ImageAxis, Request, request_of
from stylebatch.planning.carried import CarriedColumn
from stylebatch.planning.choice import FeatureChoice, FeatureSources, Measurements, needs_measuring
from stylebatch.planning.grid import Block, Grid
from stylebatch.planning.identity import anchored_spec
from stylebatch.planning.input_columns import input_columns
from stylebatch.planning.layout import Layout
from stylebatch.planning.overview import share_of_inversions
from stylebatch.planning.picture_sizes import size_at, size_words, sizes_of_samples
from stylebatch.planning.prompts import PromptRow
from stylebatch.planning.sampling import SampleGrid
from stylebatch.planning.shard_cuts import Shards, counts_by_split, uses_of_styles
from stylebatch.planning.shard_names import FEWEST_DIGITS, ShardName
from stylebatch.planning.style_uses import Spread, styles_per_shard
from stylebatch.planning.work import Extent, without_options
from stylebatch.spec import RunSpec, canonical_json
from stylebatch.words import counted

SHARDS_LOOKED_AT = 50


@dataclass(frozen=True)
class Sample:
    """One planned output row, at `row` and `column` of the axes. `prompt`, `listed`: its row of prompts, or of a list of pairs;
    `place`: where it is asked for, for people, or "".
    """

    key: str
    row: int
    column: int
    label: str
    caption: str
    seed: int
    prompt: PromptRow | None = None
    place: str = ""
    listed: Cell = UNLISTED


@dataclass(frozen=True)
class Shard:
    """Unit of scheduling and commit: a whole number of blocks."""

    id: int
    blocks: tuple[Block, ...]

    @property
    def num_samples(self) -> int:
        return sum(len(block.cells) for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does. `identity` is all that affects pixels or names; `digest` is its hash.

    `axes`: rows, and columns where there are two. `image_size`: width and
    height of the samples in pixels, `window`: of a window, or of the samples where there are none. `batch`: rows of one
    network evaluation at most, and `batches_at_once` how many batches memory for activations allows; `pictures`: those that the
    autoencoder takes at once at most. `samples_per_shard`: as given, or as settled. `carried`: further columns of the inputs.
    `numbering`: why classes have their numbers, "" without any. `notes`: classes and captions of the inputs, what was passed
    over, and what looks odd.
    """

    spec: RunSpec
    axes: tuple[Axis, ...]
    sources: Sources
    layout: Layout
    image_size: tuple[int, int]
    window: tuple[int, int]
    batch: int
    pictures: int
    labels: tuple[str, ...]
    numbering: str
    has_captions: bool
    identity: dict[str, Any]
    chosen: FeatureChoice | None = None
    conditions: Measurements
    first_shard: int = 0
    samples_per_shard: int = 1
    batches_at_once: int = 1
    notes: tuple[str, ...] = ()
    carried: tuple[CarriedColumn, ...] = ()

    # not a field: the class of a user's method may be in no module that another process can import
    @cached_property
    def options(self) -> MethodOptions:
        """Of the method; a method of a user's itself."""
        return self.spec.options

    def __getstate__(self) -> dict[str, Any]:
        return without_options(self)

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return self.layout.grid

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns; one column where there is one axis."""
        return self.layout.work.counts

    @property
    def extent(self) -> Extent:
        """How much of the inputs this plan and those of earlier generations cover."""
        listed = self.layout.work.listed
        return Extent(*self.counts, 0 if listed is None else len(listed))

    def captions_of(self, row: int) -> tuple[str, ...]:
        """All captions of a row's image, where samples draw one of several; else the one that it has."""
        items = self.images(0)
        if not items:
            return ()
        return items[row].captions or tuple(filter(None, (items[row].caption,)))

    @property
    def model(self) -> str:
        return str(self.identity["model"])

    @property
    def choice(self) -> FeatureSources | None:
        """Where features come from, for methods that keep some."""
        return self.layout.choice

    @property
    def reasons(self) -> list[str]:
        """Why features come from there, where there was a choice."""
        return (
            [self.chosen.reason] if self.chosen is not None and len(self.chosen.costs) > 1 else []
        )

    def size_of(self, row: int, column: int) -> Size:
        """Width and height of the sample at this crossing."""
        return size_at(self.axes, (row, column)) or self.image_size

    def sizes_of_inputs(self, axis: int) -> tuple[tuple[tuple[Size, ...], ...], tuple[Sizes, ...]]:
        """Sizes that the images of each item of an axis are fitted to, and those they have; none where all get that of the run."""
        found = self.axes[axis] if axis < len(self.axes) else None
        return (found.sizes, found.originals) if isinstance(found, ImageAxis) else ((), ())

    @cached_property
    def sample_sizes(self) -> tuple[Size, ...]:
        """The sizes of samples, ascending by area; that of the run where all have it."""
        return sizes_of_samples(self.axes, self.image_size)

    def images(self, axis: int) -> Sequence[Item]:
        """The items of an axis of images; none of prompts."""
        found = self.axes[axis] if axis < len(self.axes) else None
        return found.items if isinstance(found, ImageAxis) else ()

    def inputs_of(self, axis: int) -> tuple[str, Sequence[Item]]:
        """Kind of the pictures along an axis, and its items under the names by which errors and records know their files."""
        items = self.images(axis)
        if axis >= len(self.axes):
            return "", ()
        if self.axes[axis].name != "set":
            return self.axes[axis].name, items
        return "reference", tuple(replace(item, id=str(item.extra["reference"])) for item in items)

    @property
    def cached_columns(self) -> range:
        """Columns that are written to a cache before the run."""
        is_cached = self.choice is not None and self.choice.styles == "cached"
        return range(self.counts[1] if is_cached else 0)

    def is_reference(self, row: int) -> bool:
        """Whether the row's picture is the one whose style its set takes."""
        return row in self.layout.work.references

    def reference_of(self, column: int) -> int | None:
        """The row whose style a set takes; None where that is an image."""
        return self._references.get(column)

    @cached_property
    def _references(self) -> dict[int, int]:
        """Row by column."""
        work = self.layout.work
        return {} if work.set_of is None else {work.set_of[row]: row for row in work.references}

    @cached_property
    def has_blends(self) -> bool:
        return any(
            item.parts for axis in range(len(self.axes)) for item in with_facts(self.images(axis))
        )

    @cached_property
    def class_numbers(self) -> dict[str, int]:
        """Numbers of the classes by name."""
        return {name: number for number, name in enumerate(self.labels)}

    @cached_property
    def has_objects(self) -> bool:
        """Whether anything is annotated in the images that the samples keep the structure of."""
        return any(item.regions for item in with_facts(self.images(0)))

    @cached_property
    def has_segmentation(self) -> bool:
        return any(item.segmentation for item in with_facts(self.images(0)))

    @cached_property
    def input_columns(self) -> tuple[str, ...]:
        """Columns of the records about inputs beyond their ids."""
        return input_columns(self.axes, self.options, self.spec)

    @property
    def evaluations(self) -> int:
        """Network rows of the whole run: preparations, recomputed features, samples.

        Cached styles count as inverted once; those that the cache holds already cost nothing.
        """
        return self.layout.evaluations

    def request(self, row: int, column: int) -> Request:
        """What the sample at this crossing asks for."""
        return request_of(self.axes, self.spec.seed, row, column)

    def anchored(self) -> Plan:
        """The plan with absolute paths, for workers with working directories of their own."""
        return replace(self, spec=anchored_spec(self.spec))

    @cached_property
    def digest(self) -> str:
        # without credentials: a rotated key must not make an output another's
        return hashlib.sha256(canonical_json(masked_values(self.identity)).encode()).hexdigest()

    @cached_property
    def cut(self) -> Shards:
        """Which blocks are which shard's."""
        return Shards.of(self.layout, self.samples_per_shard, self.first_shard)

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return self.cut.numbers

    def shard(self, shard_id: int) -> Shard:
        blocks = map(self.grid.block, self.cut.blocks_of(shard_id))
        return Shard(shard_id, tuple(blocks))

    def shard_size(self, shard_id: int) -> int:
        """Samples of a shard, without listing them."""
        blocks = self.cut.blocks_of(shard_id)
        before = self.grid.num_samples_before
        return before(blocks.stop) - before(blocks.start)

    def split_of(self, shard_id: int) -> str:
        """The split that a shard is of; `train` where a run makes none."""
        return self.cut.stretch_of(shard_id).split

    @cached_property
    def shard_digits(self) -> int:
        return max(FEWEST_DIGITS, len(str(self.shards[-1])))

    def shard_name(self, shard_id: int) -> str:
        """`train-00000`: stem of the shard's files."""
        return str(ShardName(self.split_of(shard_id), shard_id, self.shard_digits))

    def samples(self, shard: Shard) -> Iterator[tuple[Block, list[Sample]]]:
        """Each block of `shard` with its samples in key order."""
        # keys of a shard are as long as its last needs, so that they sort as texts
        digits = max(4, len(str(shard.num_samples - 1)))
        index = 0
        for block in shard.blocks:
            samples = []
            for position, (row, column) in enumerate(block.cells):
                request = self.request(row, column)
                listed = block.listed[position] if block.listed else UNLISTED
                samples.append(
                    Sample(
                        key=f"{shard.id:0{self.shard_digits}d}{index:0{digits}d}",
                        row=row,
                        column=column,
                        label=listed.label or request.label,
                        caption=listed.caption or request.caption,
                        seed=request.seed,
                        prompt=request.prompt,
                        place=request.place,
                        listed=listed,
                    )
                )
                index += 1
            yield block, samples

    def summary(self) -> dict[str, Any]:
        """Counts and cost as plain values, for `plan --json` and run.json."""
        grid = self.grid
        styles = self.styles_per_shard
        features: dict[str, Any] = {}
        if self.choice is not None:
            features = {
                "features": asdict(self.choice),
                "fewest_evaluations": self.layout.fewest_evaluations,
                "cached_evaluations": self.layout.cached_evaluations,
            }
        return {
            **uses_of_styles(grid),
            **({} if styles is None else {"styles_per_shard": asdict(styles)}),
            **{f"num_{axis.name}s": len(axis) for axis in self.axes},
            "num_samples": grid.num_samples,
            "num_blocks": grid.num_blocks,
            "num_shards": self.num_shards,
            **counts_by_split(self.layout, self.cut),
            "pairing": self.spec.pairing.mode,
            "block": list(self.layout.sides),
            "batch": self.batch,
            **features,
            "evaluations": self.evaluations,
            "preparations": self.layout.row_evaluations + self.layout.column_evaluations,
            "width": self.image_size[0],
            "height": self.image_size[1],
            **self._sizes(),
            "digest": self.digest,
        }

    @cached_property
    def styles_per_shard(self) -> Spread | None:
        """None where samples have no styles."""
        has_styles = any(axis.name == STYLE.name for axis in self.axes)
        return styles_per_shard(self.grid, self.cut) if has_styles else None

    def _sizes(self) -> dict[str, Any]:
        several = len(self.sample_sizes) > 1
        return {"sizes": [list(size) for size in self.sample_sizes]} if several else {}

    def lines(self) -> list[str]:
        """Counts and cost for a terminal."""
        count = self.grid.num_samples
        prepared = self.layout.row_evaluations + self.layout.column_evaluations
        inverted = f", {prepared} of them to invert images" if prepared else ""
        batches = f"batches of up to {self.batch} rows"
        spread = self.styles_per_shard
        styles = f" with {spread.words(self.num_shards)}" if spread else ""
        if self.choice is not None:
            measured = ", unless a run measures otherwise" if needs_measuring(self.spec) else ""
            batches = f"features: {self.choice}{measured}; {batches}"
        return [
            f"{self.spec.name}: {self._inputs()}: {counted(count, 'sample')} of {size_words(self.sample_sizes)}",
            f"{counted(self.num_shards, 'shard')} of up to {counted(self._most_in_a_shard(), 'sample')}{styles}, "
            f"in blocks of up to {self._block()}",
            f"{counted(self.evaluations, 'network evaluation')} ({self.evaluations / count:.1f} per sample{inverted}) "
            f"with {self.spec.method.name} on model {self.model}",
            *filter(None, [self.options.preset_words]),
            *([] if self.choice is None else [share_of_inversions(self.layout)]),
            *filter(None, (batches, self.numbering, *self.notes)),
        ]

    def _most_in_a_shard(self) -> int:
        """Of the first and the last ones, since a plan may have millions: groups of uneven sizes end with the larger."""
        looked = [*self.shards[:SHARDS_LOOKED_AT], *self.shards[-SHARDS_LOOKED_AT:]]
        return max(map(self.shard_size, looked))

    def _inputs(self) -> str:
        named = ", ".join(counted(len(axis), axis.name) for axis in self.axes)
        if "prompt" in self.options.axes():
            return named
        grid = self.grid
        uses = grid.uses_per_style if isinstance(grid, SampleGrid) else None
        drawn = f" (each style {uses[0]} to {uses[1]} times)" if uses else ""
        return f"{named}, {self.spec.pairing.mode} pairing{drawn}"

    def _block(self) -> str:
        rows, columns = self.layout.sides
        if len(self.axes) == 1:
            return counted(rows, self.axes[0].name)
        if self.layout.work.set_of is not None:
            most = max(len(self.grid.block(i).rows) for i in range(min(2, self.grid.num_blocks)))
            return f"{counted(most, 'prompt')} of a set"
        return " x ".join(
            counted(side, axis.name) for side, axis in zip((rows, columns), self.axes, strict=True)
        )
