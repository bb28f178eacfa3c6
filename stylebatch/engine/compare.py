"""Renders the variants of a manifest on the same few samples, in one process that loads the model once.

1. Every variant is planned before any is rendered, so that a bad one costs nothing.
2. Each is a preview with a folder of its own within OUTPUT; what an earlier comparison rendered of it is not rendered again.
3. One picture and one table are made of their records (`reports/variant_sheet.py`, `variant_table.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from stylebatch.engine.engines import open_engine
from stylebatch.engine.run import RunResult, run_with
from stylebatch.engine.variants import Variant
from stylebatch.errors import StylebatchError
from stylebatch.folder import Folder
from stylebatch.interruption import interruptible
from stylebatch.manifest import check_inputs
from stylebatch.models.loading import check_model
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import in_splits
from stylebatch.planning.resolve import plan as resolve
from stylebatch.planning.run_inputs import Inputs, list_inputs
from stylebatch.progress import Event, Progress
from stylebatch.reports.our_files import require_ours
from stylebatch.reports.variant_records import RenderedVariant, read_variants
from stylebatch.reports.variant_sheet import draw_variants
from stylebatch.reports.variant_table import FILES, FORMAT, VariantTable
from stylebatch.spec import EngineSpec, RunSpec
from stylebatch.store.ledger import Ledger
from stylebatch.store.previews import preview_in
from stylebatch.store.run_lock import RunLock
from stylebatch.words import counted


@dataclass(frozen=True)
class Comparison:
    """What `compare` made; `exit_code`: 3 where more samples of a variant failed than its manifest allows."""

    output: Folder
    table: VariantTable
    picture: str
    exit_code: int


@dataclass(frozen=True)
class _Planned:
    """`listed`: all inputs; `inputs`: those that the variant shows."""

    variant: Variant
    spec: RunSpec
    listed: Inputs
    inputs: Inputs
    plan: Plan


def compare(
    variants: Sequence[Variant], output: str, *, limit: int, progress: Progress | None = None
) -> Comparison:
    """Render `limit` samples of each variant and write OUTPUT/comparison.png, .json and .csv.

    Raises what `run` raises, with the variant named.
    """
    folder, shown = Folder.at(output), _OneProgress(progress or Progress())
    require_ours(folder, FILES, FORMAT)
    planned = _planned(variants, folder, limit, shown)
    results: list[RunResult] = []
    with (
        interruptible(),
        shown.of([one.plan for one in planned]),
        RunLock(
            folder, note=shown.note
        ),  # until all is drawn, so that nobody cleans a variant away
        open_engine(planned[0].spec.engine, shown) as engine,
    ):
        for one in planned:
            with _naming(one.variant), shown.part(one.plan):
                shown.note(f"variant {one.variant.name}")
                results.append(
                    run_with(engine, one.spec, limit=limit, inputs=one.inputs, progress=shown)
                )
        rendered = [
            RenderedVariant(variant.name, variant.values, result.folder, result.report)
            for variant, result in zip(variants, results, strict=True)
        ]
        records = read_variants(rendered)
        table = VariantTable.of(records)
        table.write(folder)
        picture = draw_variants(folder, records)
    return Comparison(folder, table, picture, max(result.exit_code for result in results))


def foresee(
    variants: Sequence[Variant], output: str, *, limit: int, progress: Progress
) -> Iterator[str]:
    """What `compare` would render, a line for each variant. Raises what it would raise before it renders."""
    folder = Folder.at(output)
    require_ours(folder, FILES, FORMAT)
    for one in _planned(variants, folder, limit, progress):
        with _naming(one.variant):
            place = Folder.at(one.plan.spec.output.path)
            there = preview_in(place)
            if there is None:
                Ledger(place).former()
            samples = counted(one.plan.grid.num_samples, "sample")
            evaluations = counted(round(one.plan.evaluations), "evaluation")
        again = "; one is there, and is continued or replaced" if there else ""
        yield f"{one.variant.name}: {samples}, {evaluations}, in {place}{again}"
    yield f"pictures and measures: {', '.join(map(folder.where, FILES))}"


def _planned(
    variants: Sequence[Variant], folder: Folder, limit: int, progress: Progress
) -> list[_Planned]:
    """Every variant with its own output, on the samples that a preview of the first shows."""
    planned: list[_Planned] = []
    first: Plan | None = None
    for variant in variants:
        with _naming(variant):
            spec = _here(variant, folder)
            check_inputs(spec)
            listed = _listed(spec, planned)
            inputs = in_splits(spec, listed)
            if first is not None and spec.prompts is None:
                # another seed or block would draw other pairs
                inputs = replace(inputs, listed=first.layout.work.listed)
            plan = resolve(spec, limit=limit, inputs=inputs)
            if not spec.model.is_embedded:
                check_model(spec.model, inputs.checkpoint)
        first = first or plan
        planned.append(_Planned(variant, spec, listed, inputs, plan))
    keeps_features = any(one.spec.options.keeps_features for one in planned)
    if keeps_features and any(one.spec.features.cache is None for one in planned):
        progress.note(
            "Each variant inverts its images anew; variants share the inversions of styles with --set features.cache=FOLDER"
        )
    return planned


def _here(variant: Variant, folder: Folder) -> RunSpec:
    """The variant rendered by this process into its own folder, with the inputs beside each result, which the picture shows."""
    spec = variant.spec
    path = f"{folder.shown.rstrip('/')}/{variant.folder}"
    features = spec.features
    if features.cache is not None and features.source == "auto" and spec.options.keeps_features:
        # nothing is measured, so that all variants have the same arithmetic
        features = features.model_copy(update={"source": "cached"})
    engine = EngineSpec.model_validate(
        spec.engine.model_dump(include={"threads", "batch", "batch_gb", "feature_gb", "host_gb"})
        | {"name": "local"}
    )
    output = spec.output.model_copy(update={"path": path, "inputs": True})
    # what gates reject is part of what variants differ in
    changes = {"output": output, "features": features, "engine": engine, "gates": None}
    return spec.model_copy(update=changes)


def _listed(spec: RunSpec, planned: Sequence[_Planned]) -> Inputs:
    """The inputs, listed anew only where another variant that they would be the same for was not."""
    for one in planned:
        if _decides(one.spec) == _decides(spec):
            return one.listed
    return list_inputs(spec)


def _decides(spec: RunSpec) -> tuple[object, ...]:
    """What of the varied parts a listing depends on."""
    return spec.model, spec.image, spec.seed, spec.method.name, type(spec.options)


@contextmanager
def _naming(variant: Variant) -> Iterator[None]:
    """Inside, errors name the variant."""
    try:
        yield
    except StylebatchError as error:
        error.args = (f"variant {variant.name}: {error}", *error.args[1:])
        raise


class _OneProgress(Progress):
    """Shows the work of all variants as one, and each note once: those on inputs are the same for every variant."""

    def __init__(self, shown: Progress) -> None:
        self.shown = shown
        self._noted: set[str] = set()
        self._evaluations = self._samples = 0

    @contextmanager
    def of(self, plans: Sequence[Plan]) -> Iterator[None]:
        """Show the work of these plans inside."""
        self.shown.begin(
            evaluations=sum(plan.evaluations for plan in plans),
            samples=sum(plan.grid.num_samples for plan in plans),
            samples_done=0,
        )
        try:
            yield
        finally:
            self.shown.end()

    @contextmanager
    def part(self, plan: Plan) -> Iterator[None]:
        """Inside, the work of one plan is done: what an earlier comparison did of it counts at the end."""
        evaluations, samples = self._evaluations, self._samples
        yield
        self.advance(max(0, evaluations + plan.evaluations - self._evaluations))
        self.add_samples(max(0, samples + plan.grid.num_samples - self._samples))

    def enter_shard(self, name: str) -> None:
        self.shown.enter_shard(name)

    def advance(self, evaluations: int) -> None:
        self._evaluations += evaluations
        if evaluations:
            self.shown.advance(evaluations)

    def add_samples(self, count: int) -> None:
        self._samples += count
        if count:
            self.shown.add_samples(count)

    def note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.shown.note(text)

    def event(self, event: Event) -> None:
        self.shown.event(event)
