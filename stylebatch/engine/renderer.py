"""Renders blocks, whatever the method: decodes ahead, prepares rows and columns and keeps what comes back, renders samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from stylebatch.data.image_section import ImageFormat
from stylebatch.data.images import Picture, Pixels, encode
from stylebatch.engine.attempts import Attempt
from stylebatch.engine.axis_inputs import AxisInputs, Group, PictureLoader
from stylebatch.engine.blocks.block_method import BlockMethod, Context, SampleRequest
from stylebatch.engine.blocks.by_method import block_method
from stylebatch.engine.blocks.user_methods import finite_rows, place_of_member
from stylebatch.engine.carried_values import CarriedValues
from stylebatch.engine.decoders import Decoders
from stylebatch.engine.sample_places import places_of
from stylebatch.engine.sight import Sight
from stylebatch.errors import SampleError
from stylebatch.methods.builtin import method_of
from stylebatch.methods.input_kinds import MASK, PADDING, REFERENCE, STYLE
from stylebatch.methods.pixels import finite_pixels
from stylebatch.methods.user import users_of
from stylebatch.models.denoiser import Denoiser
from stylebatch.planning.grid import Block
from stylebatch.planning.plan import Plan, Sample
from stylebatch.quality.looks import look_of
from stylebatch.quality.measures import ROLES, measured
from stylebatch.quality.reduction import Reduction
from stylebatch.store.label_columns import (
    NO_TRANSFORM,
    objects_value,
    transform_value,
)
from stylebatch.store.records import SEGMENTATION, original_columns

CheckFiles = Callable[[Iterable[tuple[str, str]]], None]
"""Takes decoded files by name and xxh3. Raises InputChangedError where one is known with other bytes."""
CellIndex = tuple[int, int]
"""Row and column of a sample."""


class Renderer:
    """Keeps what blocks share. All members run on the worker's rendering thread.

    `pool` decodes ahead; `on_saved` gets the number of evaluations that the plan counts and that were not needed;
    `check_files` gets every file that was decoded; `sight` looks at results, where the plan asks for it.
    """

    sight: Sight | None = None

    def __init__(
        self,
        plan: Plan,
        model: Denoiser,
        pool: Decoders,
        on_saved: Callable[[int], None] | None,
        check_files: CheckFiles,
    ) -> None:
        self.plan, self.model, self.pool = plan, model, pool
        prompts = plan.spec.prompts
        # set both ways: the model may have served another plan before
        model.chunks = prompts is not None and prompts.long_prompts == "chunk"
        self.method: BlockMethod = block_method(Context(plan, model, on_saved))
        self.rows = self._inputs(0, 1, check_files)
        self.columns = self._inputs(1, plan.layout.num_column_groups_held, check_files)
        self.carried = CarriedValues(plan, check_files)

    def _inputs(self, axis: int, capacity: int, check_files: CheckFiles) -> AxisInputs:
        loader = PictureLoader.of(self.plan, axis)

        def check(picture: Picture) -> None:
            check_files((f"{loader.name} {file}", xxh3) for file, xxh3 in picture.files)

        return AxisInputs(loader, capacity=capacity, pool=self.pool, check=check)

    def axis(self, axis: int) -> str:
        """Name of the rows (0) or columns (1); "" for the one column of a method with one axis."""
        axes = self.plan.axes
        return axes[axis].name if axis < len(axes) else ""

    def begin(self, samples: Sequence[Sample], batch: int) -> Rendering:
        """A block that is made in network batches of `batch` rows at most."""
        return Rendering(self, samples, batch)

    def prefetch(self, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
        """Start decoding the inputs of a part that comes next."""
        self.rows.prefetch(rows)
        self.columns.prefetch(columns)

    def forget(self) -> None:
        """Drop what was kept."""
        self.rows.forget()
        self.columns.forget()
        self.method.forget()

    def precompute(self, column: int) -> bool:
        """Write a column to the cache unless it is there; whether it was written.

        Raises SampleError for an image that cannot be used, ValueError where the plan caches nothing.
        """
        loader = self.columns.loader
        picture = self.pool.submit(partial(loader.load, column)).result()
        if picture is not None:
            self.columns.check(picture)
        return self.method.precompute({column: picture}) > 0

    def decode(self, latents: Tensor, batch: int) -> list[Pixels | SampleError]:
        """Pictures of clean latents (N, c, h, w), in order; why there is none where numbers are not finite."""
        found: list[Pixels | SampleError] = []
        # before decoding, since an autoencoder may make a picture of NaN
        are_finite = finite_rows(latents)
        for part in latents.split(batch):
            for image in self.model.decode(part).cpu():
                if not are_finite[len(found)]:
                    found.append(self._not_finite())
                    continue
                pixels = finite_pixels(image)
                found.append(SampleError("not_finite", NOT_FINITE) if pixels is None else pixels)
        return found

    def _not_finite(self) -> SampleError:
        section = self.plan.spec.method
        if users_of(section) is None:
            return SampleError("not_finite", NOT_FINITE)
        place = place_of_member(method_of(section), "render")
        text = f"{place}: method {section.name}: render returned NaN or infinity"
        return SampleError("not_finite", text)


NOT_FINITE = "the model returned NaN or infinity; try model.dtype float32 or bfloat16"


class Rendering:
    """Pictures of a block by row and column, and the groups of inputs they came from.

    It is made on the rendering thread, and then asked for its samples on another. `attempts`: how samples were rendered at last,
    where gates judge them; `styles_taken`: by row, the columns that no attempt may take.
    """

    def __init__(self, renderer: Renderer, samples: Sequence[Sample], batch: int) -> None:
        self.renderer, self.plan, self.batch = renderer, renderer.plan, batch
        self.samples = {(sample.row, sample.column): sample for sample in samples}
        self.rows: dict[int, Group] = {}
        self.columns: dict[int, Group] = {}
        self.pixels: dict[CellIndex, Pixels | SampleError] = {}
        self.references: dict[int, Pixels] = {}
        self.cut: set[CellIndex] = set()
        self.attempts: dict[CellIndex, Attempt] = {}
        self.styles_taken: dict[int, set[int]] = {}
        self._encoded: dict[int, bytes] = {}
        self._reduced: dict[int, Reduction] = {}
        self._measured: dict[str, tuple[Pixels, dict[str, float]]] = {}

    def make(self, block: Block, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
        """Add the pictures of a part of the block. Raises what the device raises."""
        renderer = self.renderer
        one = renderer.rows.group(rows, self._preparing(0))
        other = renderer.columns.group(columns, self._preparing(1))
        self.rows.update(dict.fromkeys(rows, one))
        self.columns.update(dict.fromkeys(columns, other))
        wanted = [
            place
            for place in dict.fromkeys(_wanted(block, rows, columns))
            # a sample with an unusable input is not rendered; `result` says why
            if place[0] in one.position and place[1] in other.position
        ]
        self.cut |= {place for place in wanted if self._is_cut(place)}
        if wanted:
            self._render(wanted, one, other)
            self._look_at(wanted)

    def _preparing(self, axis: int) -> Callable[[dict[int, Picture | None]], Any]:
        name, method = self.renderer.axis(axis), self.renderer.method
        return lambda inputs: method.prepare(name, inputs, self.batch)

    def _is_cut(self, place: CellIndex) -> bool:
        prompt = self.samples[place].prompt
        return prompt is not None and any(map(self.renderer.model.is_cut, prompt.texts))

    def _render(self, wanted: list[CellIndex], rows: Group, columns: Group) -> None:
        method = self.renderer.method
        requests = [self._request(place, rows, columns) for place in wanted]
        made = method.render(requests, rows.prepared, columns.prepared, self.batch)
        reference: Pixels | SampleError | None = None
        if made.reference is not None:
            reference = self.renderer.decode(made.reference, self.batch)[0]
            if isinstance(reference, SampleError):  # what took its style is no better
                self.pixels.update(dict.fromkeys(wanted, reference))
                return
            self.references.update(dict.fromkeys((column for _, column in wanted), reference))
        pixels = iter(self.renderer.decode(made.latents, self.batch) if len(made.latents) else ())
        for place, one in zip(wanted, requests, strict=True):
            found = reference if one.is_reference and reference is not None else next(pixels)
            if not isinstance(found, SampleError):
                found = method.finished(one, found, rows.picture(place[0]))
            self.pixels[place] = found

    def _look_at(self, places: list[CellIndex]) -> None:
        """Show the pictures of these places, and their inputs, to the classifier of the run."""
        sight = self.renderer.sight
        if sight is None:
            return
        images: list[Pixels] = []
        for place in places:
            result = self.pixels[place]
            if not isinstance(result, SampleError):
                sample = self.as_made(self.samples[place])
                images += (result, *self._compared(sample).values())
        sight.look(images)

    def _request(
        self, place: CellIndex, rows: Group, columns: Group, attempt: Attempt | None = None
    ) -> SampleRequest:
        sample, (row, column) = self.samples[place], place
        seed = sample.seed
        if attempt is not None:
            column, seed = attempt.column, attempt.seed
        return SampleRequest(
            rows.position[row],
            columns.position[column],
            seed,
            self.plan.size_of(row, column),
            sample.prompt,
            self.plan.is_reference(row),
        )

    def again(self, attempts: Mapping[CellIndex, Attempt]) -> list[CellIndex]:
        """Render samples of one part once more, all with the same options; those that have a new picture. Raises what the device raises."""
        (row, column), first = next(iter(attempts.items()))
        rows, columns = self.rows[row], self.columns[column]
        method = self.renderer.method.changed(first.options)
        requests = [self._request(p, rows, columns, one) for p, one in attempts.items()]
        made = method.render(requests, rows.prepared, columns.prepared, self.batch)
        found = self.renderer.decode(made.latents, self.batch)
        new = []
        for place, request, pixels in zip(attempts, requests, found, strict=True):
            if isinstance(pixels, SampleError):
                # the picture of the attempt before stays, and what it was rejected for
                told = replace(attempts[place], reason=str(pixels)).told
                former = self.attempts[place]
                self.attempts[place] = replace(former, rejections=(*former.rejections, told))
                continue
            self.pixels[place] = method.finished(request, pixels, rows.picture(place[0]))
            self.attempts[place] = attempts[place]
            new.append(place)
        self._look_at(new)
        return new

    def rejected(self, sample: Sample) -> str:
        """Why the gates reject the sample, "" where they do not."""
        attempt = self.attempts.get((sample.row, sample.column))
        return "" if attempt is None else attempt.reason

    def as_made(self, sample: Sample) -> Sample:
        """The sample with the style and the seed of its last attempt."""
        attempt = self.attempts.get((sample.row, sample.column))
        if attempt is None:
            return sample
        return replace(sample, column=attempt.column, seed=attempt.seed)

    def give_up(
        self,
        block: Block,
        rows: tuple[int, ...],
        columns: tuple[int, ...],
        error: SampleError,
    ) -> None:
        """Note why there are no pictures of a part."""
        self.pixels.update(dict.fromkeys(_wanted(block, rows, columns), error))

    def result(self, sample: Sample) -> Pixels | SampleError:
        """The picture, or why there is none."""
        for groups, index in ((self.rows, sample.row), (self.columns, sample.column)):
            loaded = groups[index].loaded[index] if index in groups else None
            if isinstance(loaded, SampleError):
                where = f"{sample.place}: " if sample.place else ""
                return SampleError(loaded.code, f"{where}{loaded}")
        found = self.pixels.get((sample.row, sample.column))
        assert found is not None, f"{sample.key} was passed over"
        return found

    def _pictures(self, sample: Sample) -> dict[str, Picture]:
        """Pictures of the sample's inputs that could be used, by their kind."""
        axes = (self.rows, sample.row), (self.columns, sample.column)
        inputs = self.renderer.rows, self.renderer.columns
        found = {}
        for axis, (groups, index) in enumerate(axes):
            group = groups.get(index)
            picture = None if group is None else group.picture(index)
            if picture is not None:
                found[inputs[axis].loader.name] = picture
        return found

    def row(self, planned: Sample) -> dict[str, Any]:
        """Columns of the record for the inputs and the options; a failed sample has all values that are known."""
        plan, sample, options = self.plan, self.as_made(planned), self.plan.options
        attempt = self.attempts.get((planned.row, planned.column))
        told: dict[str, Any] = {"attempt": 1, "rejections": ""}
        if attempt is not None:
            options = options.model_copy(update=dict(attempt.options))
            told = {"attempt": attempt.number, "rejections": "; ".join(attempt.rejections)}
        row = {
            **places_of(plan, sample, is_cut=(sample.row, sample.column) in self.cut),
            **options.drawn(sample.seed).record_values(),
        }
        row |= {"seed": sample.seed, **told}
        row |= self.renderer.carried.of(sample)
        # 0 where the picture could not be read: no column is null
        row |= dict.fromkeys((*original_columns(plan.options), *PADDING), 0)
        if plan.is_reference(sample.row):
            row["width"], row["height"] = plan.window
        found = self._pictures(sample)
        picture = found.get("content", found.get("image"))
        if picture is not None:
            row["original_width"] = picture.original_width
            row["original_height"] = picture.original_height
            if picture.transform is not None:
                row |= zip(PADDING, picture.transform.padding, strict=True)
        return row | self._labels(picture)

    def _labels(self, picture: Picture | None) -> dict[str, Any]:
        """Columns of objects and transform, of which a run without labels has none."""
        columns = self.plan.input_columns
        row = {"objects": objects_value((), {}, columns), "transform": NO_TRANSFORM}
        if picture is not None and picture.transform is not None:
            row["objects"] = objects_value(picture.objects, self.plan.class_numbers, columns)
            row["transform"] = transform_value(picture.transform, picture.orientation)
        return row

    def notes(self, sample: Sample) -> tuple[str, ...]:
        """What was odd about its inputs and yet accepted."""
        return tuple(note for one in self._pictures(sample).values() for note in one.notes)

    def measures(self, sample: Sample, pixels: Pixels) -> dict[str, float]:
        """Quality columns."""
        # what was judged is recorded later, and measured once
        known = self._measured.get(sample.key)
        if known is None or known[0] is not pixels:
            known = self._measured[sample.key] = pixels, self._measure(sample, pixels)
        return known[1]

    def _measure(self, sample: Sample, pixels: Pixels) -> dict[str, float]:
        inputs, sight = self._compared(self.as_made(sample)), self.renderer.sight
        found = measured(Reduction(pixels), {k: self._reduction(one) for k, one in inputs.items()})
        return found if sight is None else found | sight.measured(pixels, inputs, sample.label)

    def looks(self, sample: Sample, pixels: Pixels) -> tuple[str, dict[str, str]]:
        """What the result looks like, and the input that gives the structure, by its kind."""
        kept = {kind: one for kind, one in self._pictures(sample).items() if kind in ROLES["kept"]}
        return look_of(Reduction(pixels)), {
            kind: look_of(self._reduction(one.pixels)) for kind, one in kept.items()
        }

    def _compared(self, sample: Sample) -> dict[str, Pixels]:
        """Pictures of the sample's inputs, by kind."""
        inputs = {kind: one.pixels for kind, one in self._pictures(sample).items()}
        if sample.column in self.references:
            inputs[REFERENCE.name] = self.references[sample.column]
        return inputs

    def _reduction(self, pixels: Pixels) -> Reduction:
        """An input as it is measured, reduced once for all samples that are made of it."""
        # by identity: the groups and references of this block keep the arrays alive
        if id(pixels) not in self._reduced:
            self._reduced[id(pixels)] = Reduction(pixels)
        return self._reduced[id(pixels)]

    def inputs(self, sample: Sample) -> dict[str, bytes]:
        """Encoded inputs by member name."""
        sample, found = self.as_made(sample), {}
        for kind in self.plan.options.input_kinds():
            if kind is REFERENCE and sample.column in self.references:
                found[kind.member] = self._rendered_reference(sample.column)
            elif kind in (STYLE, REFERENCE):
                found[kind.member] = self.columns[sample.column].jpeg(sample.column)
            elif kind is MASK:
                found[kind.member] = self.rows[sample.row].mask_jpeg(sample.row)
            else:
                found[kind.member] = self.rows[sample.row].jpeg(sample.row)
        return found

    def label_images(self, sample: Sample) -> dict[str, bytes]:
        """The label image of a sample, where it has one, by member name."""
        found = self.rows[sample.row].picture(sample.row) if sample.row in self.rows else None
        return {SEGMENTATION: found.segmentation} if found and found.segmentation else {}

    def _rendered_reference(self, column: int) -> bytes:
        """A reference that was rendered, encoded once."""
        if column not in self._encoded:
            self._encoded[column] = encode(self.references[column], ImageFormat())
        return self._encoded[column]


def _wanted(block: Block, rows: tuple[int, ...], columns: tuple[int, ...]) -> list[CellIndex]:
    return [place for place in block.cells if place[0] in rows and place[1] in columns]
