"""Exports outputs into a new one: choose, lock, copy what remains, derive the reports. Nothing of the outputs is changed.

1. The samples are chosen from the records alone; what is chosen of which bytes is the identity of the export.
2. The directory is locked; run.json is written, or compared with the one that is there (another export is refused).
3. Shards that lack a commit are copied, by the sinks that a run has: the commit marker is written last.
4. Contact sheet, gallery and card follow from the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stylebatch.errors import ManifestError
from stylebatch.export.describing import write_export_card
from stylebatch.export.export_options import ExportOptions
from stylebatch.export.exported_shards import Exported
from stylebatch.export.recording import names_of, place_of, record_of
from stylebatch.export.rendered import Rendered, require_alike
from stylebatch.export.selection import Selection, select
from stylebatch.folder import Folder, Place
from stylebatch.interruption import interruptible
from stylebatch.masking import MASK
from stylebatch.planning.numbering import class_names
from stylebatch.progress import Event, Progress
from stylebatch.reports.report import Report, report
from stylebatch.store.ledger import Ledger
from stylebatch.store.output_record import RunRecord, read_run
from stylebatch.store.run_lock import RunLock
from stylebatch.store.verify import verify
from stylebatch.store.versions import version_of
from stylebatch.words import counted, is_or_are


@dataclass(frozen=True)
class ExportResult:
    """What an export did. `told`: of the choice, for people; `num_resumed_shards` were there before."""

    output: Folder
    num_samples: int
    num_resumed_shards: int
    told: tuple[str, ...]
    report: Report


def export(
    outputs: Sequence[Place],
    output: Place,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
    redo_damaged: bool = False,
) -> ExportResult:
    """Make the output directory `output` of the samples of `outputs` that `options` take, or continue an interrupted export.

    Several outputs are joined: they have the same columns. Raises ManifestError, OutputLockedError, PlanChangedError,
    DamagedError, StorageError (see their exit codes), and Interrupted on SIGINT or SIGTERM, with nothing partial committed.
    """
    options, progress, output = (
        options or ExportOptions(),
        progress or Progress(),
        Folder.at(output),
    )
    with interruptible():
        exported = _chosen(outputs, output, options, progress)
        selection, record = exported.selection, record_of(exported, output, options)
        ledger = Ledger(output)
        # a foreign or damaged directory is refused before anybody waits for its lock
        ledger.former()
        with RunLock(output, note=progress.note):
            # read again: who held the lock until now may have written it
            former = ledger.former()
            record = ledger.admit(record, mending=redo_damaged)
            ledger.sweep(former or record)
            ledger.write(record)
            if redo_damaged:
                _revoke_damaged(ledger, record)
            done = _copy(exported, ledger, record, progress)
            finished = report(output)
            write_export_card(
                exported, record, selection.told, output, version=version_of("stylebatch")
            )
    return ExportResult(output, len(selection), done, selection.told, finished)


def foresee_export(
    outputs: Sequence[Place],
    output: Place,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[str]:
    """What `export` would do, in lines. Raises what it would raise before it writes."""
    options, output = options or ExportOptions(), Folder.at(output)
    exported = _chosen(outputs, output, options, progress or Progress())
    record, ledger = record_of(exported, output, options), Ledger(output)
    RunLock(output).dead_holder()
    admitted = ledger.admit(record)
    yield from exported.selection.told
    there = _committed(ledger, admitted)
    before = f", {counted(len(there), 'shard')} are there" if there else ""
    samples, shards = len(exported.selection), counted(record.plan.num_shards, "shard")
    yield f"{output}: {record.output_format}, {counted(samples, 'sample')} in {shards}{before}"


def _chosen(
    outputs: Sequence[Place], output: Folder, options: ExportOptions, progress: Progress
) -> Exported:
    """What of which outputs is exported. Raises ManifestError."""
    folders = [Folder.at(one) for one in outputs]
    _require_elsewhere(folders, output)
    given = [Rendered.at(folder) for folder in folders]
    require_alike(given)
    exported = _exported(given, select(given, options), options)
    for line in _incomplete(given):
        progress.note(line)
    return exported


def repair_export(output: Place, *, progress: Progress | None = None) -> ExportResult:
    """Make an export what it was again, from the outputs that it was made of; sound shards stay.

    Raises ManifestError where run.json tells of no export, PlanChangedError where those outputs are no longer what they were.
    """
    output = Folder.at(output)
    made = read_run(output).export
    if made is None:
        raise ManifestError(f"{output}: found no export; accepted: what `stylebatch export` made")
    paths = [one.path for one in made.outputs]
    if any(MASK in path for path in paths):
        raise ManifestError(
            f"{output}: run.json does not keep the credentials of {', '.join(paths)}. Next: type the command of the export again"
        )
    options = ExportOptions(
        format=read_run(output).output_format,
        where=made.where,
        drop=tuple(made.drop),
        originals=made.originals,
        balance=made.balance,
        seed=made.seed,
        shard_size=made.shard_size,
        splits=tuple(made.splits),
        annotations=made.annotations,  # type: ignore[arg-type]  # checked there
    )
    return export(paths, output, options, progress=progress, redo_damaged=True)


def _require_elsewhere(given: Sequence[Folder], output: Folder) -> None:
    """Raise ManifestError where the export would be one of the outputs, or lie in one, or one is given twice."""
    places = [place_of(folder) for folder in given]
    for number, (folder, place) in enumerate(zip(given, places, strict=True)):
        if place in places[:number]:
            raise ManifestError(f"{folder}: stands there twice; accepted: each output once")
        # with slashes, or `out-2` would lie in `out`
        if f"{place_of(output)}/".startswith(f"{place}/"):
            raise ManifestError(
                f"--output: {output} lies in {folder}, which is exported; accepted: a directory of its own"
            )


def _incomplete(given: Sequence[Rendered]) -> list[str]:
    return [
        f"{one.folder} has {len(one.shards):,} of {counted(one.run.plan.num_shards, 'shard')}: the others are not exported"
        for one in given
        if len(one.shards) < one.run.plan.num_shards
    ]


def _exported(given: Sequence[Rendered], selection: Selection, options: ExportOptions) -> Exported:
    labels: tuple[str, ...] = ()
    for one in given:
        labels = (*labels, *(name for name in one.run.labels or () if name not in labels))
    return Exported(
        given,
        names_of(given),
        selection,
        options.format or given[0].run.output_format,
        options.shard_size,
        # outputs of earlier versions did not record their classes
        class_names(set(selection.labels), labels),
        has_originals=options.originals > 0,
    )


def _copy(exported: Exported, ledger: Ledger, record: RunRecord, progress: Progress) -> int:
    """Write the shards that lack a commit; returns how many had one."""
    part, there = record.parts[0], _committed(ledger, record)
    left = [number for number in part.shards if part.shard_name(number) not in there]
    if there:
        progress.note(
            f"Resuming {ledger.output}: {len(there):,} of {counted(len(part.shards), 'shard')} {is_or_are(len(there))} committed"
        )
    if not left:
        return len(there)
    total = len(exported.selection)
    todo = sum(len(range(*exported.places(number).indices(total))) for number in left)
    try:
        progress.begin(evaluations=todo, samples=total, samples_done=total - todo)
        for number in left:
            progress.enter_shard(part.shard_name(number))
            stats = exported.write(ledger.output, part, number)
            progress.advance(stats["num_samples"])
            progress.event(Event("committed", "", part.shard_name(number)))
            progress.add_samples(stats["num_samples"])
    finally:
        progress.end()
        # after an interrupt too: what has no marker is nobody's
        ledger.sweep(record)
    return len(there)


def _committed(ledger: Ledger, record: RunRecord) -> set[str]:
    """Names of the shards that have their commit."""
    part = record.parts[0]
    # markers are asked for side by side, since a store takes its time for each
    asked = ledger.of_marked(
        lambda name: ledger.stats(name, part.digest), map(part.shard_name, part.shards)
    )
    return {name for name, stats in asked if stats is not None}


def _revoke_damaged(ledger: Ledger, record: RunRecord) -> None:
    part = record.parts[0]
    for shard in {problem.shard for problem in verify(ledger.output)} - {None}:
        if shard is not None and shard in part.shards:
            ledger.revoke(part.shard_name(shard), executed=[])
