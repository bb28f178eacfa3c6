"""From a specification to its plan: inputs listed, sizes and batches asked of the model's family, blocks laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

from stylebatch.data.rows import with_texts
from stylebatch.data.sources.kinds import name_of
from stylebatch.data.sources.path_items import with_facts
from stylebatch.errors import ManifestError
from stylebatch.methods.method import BlockSize, MethodOptions
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.family import Sizes
from stylebatch.planning.axes import ImageAxis, PromptAxis
from stylebatch.planning.batches import batch_pictures, batch_rows, rows_at_once, value_bytes
from stylebatch.planning.carried import carried_columns, notes_on_carried
from stylebatch.planning.choice import (
    UNKNOWN,
    FeatureChoice,
    FeatureSources,
    Measurements,
    candidates,
    choose,
)
from stylebatch.planning.identity import identity_of, previewed
from stylebatch.planning.layout import Layout
from stylebatch.planning.long_prompts import note_on_long_prompts
from stylebatch.planning.model_notes import (
    note_without_prompts,
    notes_on_embeddings,
    notes_on_loras,
)
from stylebatch.planning.numbering import Numbering, numbering
from stylebatch.planning.picture_sizes import (
    buckets_of,
    check_native,
    fitted_axes,
    largest,
    stretched,
)
from stylebatch.planning.plan import Plan
from stylebatch.planning.preview import previewed_inputs
from stylebatch.planning.run_inputs import Inputs, list_inputs
from stylebatch.planning.sample_bytes import sized_by_bytes
from stylebatch.planning.shard_cuts import with_size
from stylebatch.planning.split_axes import portions_of, shared_out
from stylebatch.planning.work import NOTHING, Extent, Work
from stylebatch.quality.asked import TABLE, require_inputs
from stylebatch.spec import RunSpec


@dataclass(frozen=True)
class Extension:
    """What the generations of a growing output before this one made.

    `former`: what of the inputs is rendered, which these begin with; nothing for the first generation. `labels`: classes in
    use before.
    """

    former: Extent
    first_shard: int
    former_digest: str
    labels: tuple[str, ...]


FIRST = Extension(NOTHING, 0, "", ())


def plan(
    spec: RunSpec,
    *,
    limit: int | None = None,
    choice: FeatureSources | None = None,
    conditions: Measurements = UNKNOWN,
    inputs: Inputs | None = None,
    extension: Extension = FIRST,
) -> Plan:
    """Resolve `spec`. With `limit`, a preview of that many samples spread over classes, rows and columns.

    `inputs`: else listed now; `extension`: where this is a generation of a growing output. `choice` of an earlier start
    goes before the one that `conditions` make cheapest. Raises ManifestError for sources that hold nothing, prompts that
    cannot be, sizes that the model cannot take, lists of different length for zip.
    """
    inputs = inputs or list_inputs(spec)
    checkpoint = inputs.checkpoint or find_checkpoint(spec.model)
    family, options = checkpoint.family, spec.options
    options.check_family(family)
    check_native(spec, options)
    options, spec = _fitted(spec, options, checkpoint)
    _require_free_names(spec, options)
    if spec.quality is not None:
        kinds = [kind.name for kind in options.input_kinds()]
        require_inputs(spec.quality.measures, kinds, "quality.measures", spec.method.name)
    inputs = in_splits(spec, inputs)
    image_size, window, size = _sizes(spec, family.sizes, options)
    sized, told = sized_by_bytes(spec, image_size, len(options.input_members))
    inputs = _fitted_inputs(spec, inputs, image_size, family.sizes.multiple)
    canvas = largest(inputs.axes, image_size)
    size = _on(size, canvas, family.sizes.latent_factor)
    # a network row is a window, not the canvas; there are none where images have sizes of their own
    memory = family.memory(window if canvas == image_size else canvas, value_bytes(spec))
    batch = batch_rows(spec, memory, conditions.batch_gb)
    size = replace(size, batch=batch)
    feature_bytes = options.feature_bytes(memory)
    used = _labels(inputs)  # of all, so that a preview has the numbers of the run
    if limit is not None:
        # chosen after the batch: which samples a preview shows depends on how the run draws its blocks
        spec = previewed(spec, limit)
        is_sample = spec.pairing.mode == "sample"
        first = candidates(spec)[0] if options.keeps_features else None
        whole = _work(sized, inputs, size, feature_bytes, NOTHING)
        drawn = (lambda: Layout.of(whole, first).styles_of) if is_sample else None
        inputs = previewed_inputs(inputs, limit, drawn)
    work = _work(sized, inputs, size, feature_bytes, extension.former)
    _require_sets_that_fit(options, inputs, work)
    layout_of = cache(partial(Layout.of, work))  # that of the choice is wanted again
    chosen = _chosen(work, layout_of, choice, conditions)
    layout, per_shard = with_size(layout_of(chosen.choice if chosen else None))
    whole_memory = family.memory(canvas, value_bytes(spec))
    pictures = batch_pictures(spec, whole_memory, conditions.batch_gb)
    numbers = numbering(
        used,
        given=inputs.classes,
        lists=inputs.class_lists,
        before=extension.labels,
    )
    carried = carried_columns(inputs.axes, inputs.sources, options)
    # the identity has the columns of the records, which the plan knows from its inputs
    made = Plan(
        spec=spec,
        axes=inputs.axes,
        sources=inputs.sources,
        layout=layout,
        image_size=image_size,
        window=window,
        batch=batch,
        batches_at_once=max(1, rows_at_once(spec, memory, conditions.batch_gb) // batch),
        pictures=pictures,
        labels=numbers.names,
        numbering=numbers.words,
        has_captions=_has_captions(inputs),
        identity=identity_of(spec, options, checkpoint, image_size, inputs),
        chosen=chosen,
        conditions=conditions,
        first_shard=extension.first_shard,
        samples_per_shard=per_shard,
        carried=carried,
        notes=(
            *inputs.notes,
            *notes_on_carried(carried, inputs.axes, inputs.sources),
            *told,
            *notes_on_loras(checkpoint),
            *_on_prompts(checkpoint, inputs, spec.method.name),
        ),
    )
    return replace(made, identity=made.identity | _resolved(made, extension, numbers))


def in_splits(spec: RunSpec, inputs: Inputs, former: Sequence[Mapping[str, str]] = ()) -> Inputs:
    """`inputs` shared out among the splits of `spec`, unless they are already. `former`: of each axis, the splits of ids in use."""
    if spec.split is None or inputs.axes[0].splits:
        return inputs
    axes, listed, notes = shared_out(
        spec, inputs.axes, inputs.listed, inputs.set_of, former, inputs.sources
    )
    return replace(inputs, axes=axes, listed=listed, notes=(*inputs.notes, *notes))


def _fitted_inputs(spec: RunSpec, inputs: Inputs, size: tuple[int, int], multiple: int) -> Inputs:
    """With the size that each image is fitted to, and a note on those that change much by it."""
    axes = fitted_axes(inputs.axes, spec.image, size, multiple)
    return replace(inputs, axes=axes, notes=(*inputs.notes, *stretched(axes, multiple)))


def _resolved(plan: Plan, extension: Extension, numbers: Numbering) -> dict[str, Any]:
    """What of a plan's identity follows from its blocks."""
    layout, columns = plan.layout, plan.input_columns
    found: dict[str, Any] = {
        "batch": plan.batch,
        "block": list(layout.sides),
        "output": plan.identity["output"] | {"shard_size": plan.samples_per_shard},
    }
    if plan.pictures < plan.batch:
        found["pictures"] = plan.pictures
    if layout.choice is not None:
        found |= {
            "features": asdict(layout.choice),
            "feature_bytes": layout.work.feature_bytes,
            "style_bytes": sum(layout.column_bytes),
        }
    if columns or plan.has_blends:
        found["columns"] = list(columns)
    if plan.carried:
        found["carried"] = [[one.column, one.kind, one.name] for one in plan.carried]
    if plan.spec.contents is not None and plan.spec.contents.objects is not None:
        found["objects"] = sorted(plan.spec.contents.objects)
    if not numbers.is_plain:
        found["classes"] = list(plan.labels)
    if plan.has_objects and plan.spec.output.format == "files":
        contents = plan.sources.by_field.get("contents")
        found["annotations"] = "coco" if contents is None else name_of(contents)
    if plan.has_segmentation:
        found["segmentation"] = True
    if extension.former_digest:
        found["former"] = {"plan": extension.former_digest, **asdict(extension.former)}
    return found


def _fitted(
    spec: RunSpec, options: MethodOptions, checkpoint: Checkpoint
) -> tuple[MethodOptions, RunSpec]:
    """Options as the network's sites allow, and the specification with them."""
    # the manifest's section changes too, so that the record and the identity have what is used
    fitted = options.fitted_to(checkpoint.sites)
    if fitted is options:
        return options, spec
    return fitted, spec.model_copy(update={"method": fitted})


def _require_free_names(spec: RunSpec, options: MethodOptions) -> None:
    """Raise ManifestError where an option is named as a measure, which is a column of the records too."""
    taken = [m.column for m in TABLE if m.column in type(options).model_fields]
    if taken:
        raise ManifestError(
            f"method: {spec.method.name} has a field {taken[0]!r}, which is a measure of the records; accepted: another name"
        )


def _sizes(
    spec: RunSpec, sizes: Sizes, options: MethodOptions
) -> tuple[tuple[int, int], tuple[int, int], BlockSize]:
    """Width and height of samples and of windows in pixels; the canvas in latent cells."""
    wide, tall = sizes.native_sides if "prompt" in options.axes() else (sizes.native, sizes.native)
    given = spec.image.size
    size = spec.image.width or given or wide, spec.image.height or given or tall
    factor, multiple = sizes.latent_factor, sizes.multiple
    for name, pixels in zip(("width", "height"), size, strict=True):
        if pixels % multiple:
            near = max(1, round(pixels / multiple)) * multiple
            field = name if getattr(spec.image, name) is not None else "size"
            raise ManifestError(
                f"image.{field}: found {pixels}; accepted by this model: multiples of {multiple}, such as {near}"
            )
    native = sizes.native // factor
    cells = BlockSize(0, size[1] // factor, size[0] // factor, 0, native, sizes.latent_channels)
    windows = getattr(options, "windows", None)
    if windows is None:
        return size, size, cells
    window = windows.side(native)
    if window % (multiple // factor) or windows.stride > window:
        raise ManifestError(
            f"method.windows: found size {window}, stride {windows.stride}; accepted by this model: a size that is a multiple "
            f"of {multiple // factor} latent cells, and a stride up to the size"
        )
    return size, (min(size[0], window * factor), min(size[1], window * factor)), cells


def _on(size: BlockSize, canvas: tuple[int, int], factor: int) -> BlockSize:
    """As `size`, on a canvas of so many pixels."""
    return replace(size, width=canvas[0] // factor, height=canvas[1] // factor)


def _work(
    spec: RunSpec,
    inputs: Inputs,
    size: BlockSize,
    feature_bytes: int,
    former: Extent,
) -> Work:
    columns = inputs.axes[1] if len(inputs.axes) > 1 else None
    parts: tuple[tuple[Hashable, ...], ...] = ()
    references: frozenset[int] = frozenset()
    if isinstance(columns, ImageAxis) and inputs.set_of is not None:
        parts = tuple(
            ((item.extra["reference"], item.caption),) if item.extra["reference"] else ()
            for item in columns.items
        )
        starts = dict(
            zip(reversed(inputs.set_of), reversed(range(len(inputs.set_of))), strict=True)
        )
        references = frozenset(row for column, row in starts.items() if not parts[column])
    elif isinstance(columns, ImageAxis) and any(item.parts for item in with_facts(columns.items)):
        parts = tuple(tuple(name for name, _ in item.images()) for item in columns.items)
    return Work(
        spec=spec,
        axes=tuple(axis.name for axis in inputs.axes),
        counts=inputs.counts,
        size=size,
        feature_bytes=feature_bytes,
        listed=inputs.listed,
        set_of=inputs.set_of,
        references=references,
        column_parts=parts,
        buckets=buckets_of(inputs.axes),
        former=former,
        portions=portions_of(inputs.axes),
    )


def _require_sets_that_fit(options: MethodOptions, inputs: Inputs, work: Work) -> None:
    if work.set_of is None:
        return
    beside = Counter(column for row, column in enumerate(work.set_of) if row not in work.references)
    sets = inputs.axes[1]
    assert isinstance(sets, ImageAxis)
    for column, count in beside.items():
        options.check_set(sets.items[column].id, replace(work.size, samples=count))


def _chosen(
    work: Work,
    layout_of: Callable[[FeatureSources], Layout],
    choice: FeatureSources | None,
    conditions: Measurements,
) -> FeatureChoice | None:
    """Where features come from; None for methods that keep none."""
    if not work.options.keeps_features:
        return None
    if choice is not None:
        return FeatureChoice(choice, {}, conditions)
    return choose(work.spec, layout_of, conditions)


def _labels(inputs: Inputs) -> set[str]:
    """Labels of the samples: of cells and prompts, of images where these have none, and of objects."""
    found = {cell.label for cell in with_texts(inputs.listed)}
    of_prompts = [axis.labels for axis in inputs.axes if isinstance(axis, PromptAxis)]
    found = found.union(*of_prompts)
    rows = inputs.axes[0]
    if isinstance(rows, ImageAxis):
        if all("" in labels for labels in of_prompts):
            found |= {item.label for item in with_facts(rows.items)}
        # images and the objects in them have one list of classes
        found |= {region.label for item in with_facts(rows.items) for region in item.regions}
    return found


def _has_captions(inputs: Inputs) -> bool:
    """Whether samples have captions, as those of prompts always do."""
    first = inputs.axes[0]
    if any(isinstance(axis, PromptAxis) for axis in inputs.axes):
        return True
    assert isinstance(first, ImageAxis)
    return any(item.caption for item in with_facts(first.items)) or any(
        cell.caption for cell in with_texts(inputs.listed)
    )


def _on_prompts(checkpoint: Checkpoint, inputs: Inputs, method: str) -> tuple[str, ...]:
    """Notes on texts beyond the text encoder's context, and on textual inversions."""
    axis = next((axis for axis in inputs.axes if isinstance(axis, PromptAxis)), None)
    if axis is None:
        return note_without_prompts(checkpoint, method)
    images = inputs.axes[0]
    items = images.items if isinstance(images, ImageAxis) else ()
    # without the files there is no tokenizer to count by
    long = note_on_long_prompts(checkpoint, axis, items) if checkpoint.is_here else ()
    return (*long, *notes_on_embeddings(checkpoint, axis, items))
