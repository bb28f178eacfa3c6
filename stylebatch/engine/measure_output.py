"""Adds measures by a network to a finished output: columns of its records; the shards' pictures are read and not touched.

1. The output is locked, and run.json says what is measured by what: from here on readers know the columns.
2. Each shard whose marker does not say that it was measured so is read, measured and given its new records.
3. What is derived from the records is made anew: errors.parquet, gallery, metadata.jsonl.
Killed anywhere, the same command goes on where it was.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from stylebatch.engine.sight import Sight
from stylebatch.errors import DamagedError, ManifestError
from stylebatch.folder import Folder, Place
from stylebatch.interruption import interruptible
from stylebatch.methods.input_kinds import INPUT_KINDS, MASK, kinds_of
from stylebatch.methods.user_code import UserCodeError
from stylebatch.models.loading import placement
from stylebatch.pixel_memory import Pixels
from stylebatch.progress import Progress
from stylebatch.quality.asked import asked_columns, require_inputs
from stylebatch.quality.classifier_files import facts_of
from stylebatch.reports.committed import (
    Committed,
    CommittedShard,
    damaged,
    read_samples,
    result_member,
)
from stylebatch.reports.pictures import UNDECODABLE, decoded
from stylebatch.reports.report import report
from stylebatch.spec.quality import ASKED, QualitySpec, unknown_measure
from stylebatch.store.ledger import Ledger
from stylebatch.store.measured_columns import digest_of, replace_records, with_values
from stylebatch.store.names import metadata_file
from stylebatch.store.output_record import MeasuredBy, RunRecord, read_run
from stylebatch.store.run_lock import RunLock
from stylebatch.store.sinks import sink_of
from stylebatch.words import counted

KEPT = 256
"""Decoded inputs that are kept: samples of a shard share them."""
SAY_EVERY_S = 10.0


@dataclass
class Measured:
    """What was done. `damaged`: why shards could not be measured; `unseen`: at which the classifier failed; `num_missing`: shards that
    were never committed."""

    folder: Folder
    names: tuple[str, ...]
    num_samples: int = 0
    num_shards: int = 0
    num_before: int = 0
    num_missing: int = 0
    damaged: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 3 if self.damaged or self.unseen or self.num_missing else 0

    def lines(self) -> Iterator[str]:
        """For people."""
        before = f", {counted(self.num_before, 'shard')} before" if self.num_before else ""
        done = f"{counted(self.num_samples, 'sample')} of {counted(self.num_shards, 'shard')}"
        yield f"{self.folder}: {', '.join(self.names)}: measured {done}{before}"
        yield from self.damaged
        if self.damaged:
            yield f"Next: stylebatch repair {self.folder}, then the same command again"
        yield from self.unseen
        if self.unseen:
            yield "Next: mend the classifier, then the same command again"
        if self.num_missing:
            yield (
                f"{counted(self.num_missing, 'shard')} not committed yet. Next: finish the run, then the same command again"
            )


def measure_output(
    output: Place,
    names: Sequence[str],
    *,
    classifier: str = "",
    labels: Mapping[str, str | int] | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Add the measures `names` to the records of `output`. Of samples as they are stored, JPEG and all.

    Raises ManifestError for measures that nobody knows or that cannot be had, OutputLockedError while a run writes there.
    """
    folder, progress = Folder.at(output), progress or Progress()
    record = read_run(folder)
    quality = _quality(folder, record, names, classifier, labels or {})
    if quality is None:
        return Measured(folder, tuple(names), num_before=record.plan.num_shards)
    with interruptible(), RunLock(folder, note=progress.note):
        record, ledger = read_run(folder), Ledger(folder)
        ledger.sweep(record)  # what an earlier start left that was killed
        committed = Committed(folder)
        pictures = _Pictures(committed, quality)
        try:
            device, _ = placement()
            sight = Sight(
                asked_columns(quality.measures), quality, _labels(record, committed), device
            )
        except UserCodeError as error:
            raise ManifestError(f"--classifier: {error}") from error
        pictures.require_stored()
        measured = MeasuredBy.model_validate(facts_of(quality))
        ledger.write(record.model_copy(update={"measured": measured}))
        done = Measured(folder, quality.measures)
        done.num_missing = record.plan.num_shards - len(committed.shards)
        _measure(committed, pictures, sight, digest_of(measured), done, progress)
        report(folder)
    return done


def foresee(
    output: Place, names: Sequence[str], *, classifier: str, labels: Mapping[str, str | int]
) -> str:
    """What `measure_output` would do. Raises what it would raise before it looks at pictures."""
    folder = Folder.at(output)
    record = read_run(folder)
    quality = _quality(folder, record, names, classifier, labels)
    if quality is None:
        return f"{folder}: {', '.join(names)}: measured by the run already"
    RunLock(folder).dead_holder()
    committed = Committed(folder)
    _Pictures(committed, quality).require_stored()
    digest = digest_of(MeasuredBy.model_validate(facts_of(quality)))
    stats = [committed.ledger.recorded(shard.name) for shard in committed.shards]
    left = [one for one in stats if one is not None and one.measured != digest]
    samples = counted(sum(one.num_success for one in left), "sample")
    shards = counted(len(left), "shard")
    return f"{folder}: would measure {', '.join(quality.measures)} of {samples} in {shards}"


def _quality(
    folder: Folder,
    record: RunRecord,
    names: Sequence[str],
    classifier: str,
    labels: Mapping[str, str | int],
) -> QualitySpec | None:
    """What is to be measured, with what was added before; None where the run itself has measured all of it so."""
    for name in names:
        if name not in ASKED:
            raise ManifestError(f"--add: {unknown_measure(name)}")
    if not names:
        raise ManifestError(f"--add: found nothing; accepted: {', '.join(ASKED)}")
    facts = facts_of(
        QualitySpec(
            measures=tuple(dict.fromkeys(names)), classifier=classifier, labels=dict(labels)
        )
    )
    by_run = record.identity.get("quality")
    of_run: list[str] = []
    if isinstance(by_run, dict):
        of_run = [name for name in facts["measures"] if name in by_run.get("measures", [])]
        differs = {key for key in ("classifier", "labels") if by_run.get(key) != facts[key]}
        if of_run and differs:
            raise ManifestError(
                f"--add: {folder} has {', '.join(of_run)} of its run already, by another {' and other '.join(sorted(differs))}; accepted: "
                "measures that it has not"
            )
    wanted = [name for name in facts["measures"] if name not in of_run]
    if not wanted:
        return None
    former = record.measured
    if former is not None:
        is_same = (former.classifier, former.labels) == (facts["classifier"], facts["labels"])
        left = [name for name in former.measures if name not in wanted]
        if left and not is_same:
            every = ",".join(name for name in ASKED if name in {*wanted, *left})
            raise ManifestError(
                f"--add: {folder} has {', '.join(former.measures)} by another classifier or other labels; accepted: those again, or "
                f"all anew by these: --add {every}"
            )
        wanted = [name for name in ASKED if name in {*wanted, *left}]
    return QualitySpec(measures=tuple(wanted), classifier=classifier, labels=dict(labels))


def _labels(record: RunRecord, committed: Committed) -> list[str]:
    """Names of the classes; older outputs do not list them."""
    if record.labels is not None:
        return record.labels
    return sorted({label for shard in committed.read() for label in shard.table["label"].unique().to_pylist()} - {""})  # fmt: skip


class _Pictures:
    """Results and inputs of an output's samples, decoded. Raises ManifestError where what is compared with is not stored."""

    def __init__(self, committed: Committed, quality: QualitySpec) -> None:
        self.committed = committed
        columns: list[str] = next(one.table.column_names for one in committed.read())
        kinds = [kind for kind in kinds_of(columns) if kind != MASK]
        method = str(_method_of(committed.run))
        names = [kind.name for kind in kinds]
        require_inputs(quality.measures, names, "--add", method)
        self.members = {kind.member: kind.name for kind in INPUT_KINDS if kind in kinds}
        self._kept: OrderedDict[str, Pixels] = OrderedDict()
        self._needed = {
            kind
            for one in asked_columns(quality.measures)
            for kind in (one.compared(names) or {}).values()
        }

    def require_stored(self) -> None:
        """Raise ManifestError where samples lack what they are compared with; one sample stands for all."""
        for shard in self.committed.shards:
            with suppress(DamagedError):
                table = self.committed.table(shard)
                if table is None:
                    continue
                success = table.filter(pc.equal(table["status"], "success")).slice(0, 1)
                if next(self.of(shard, {row["key"]: row for row in success.to_pylist()}), None):
                    return

    def of(
        self, shard: CommittedShard, rows: Mapping[str, dict[str, Any]]
    ) -> Iterator[tuple[str, Pixels, dict[str, Pixels]]]:
        """Key, result and inputs by kind. Raises DamagedError for a picture that is not what was committed."""
        output = self.committed.output
        for key, members in read_samples(output, {shard.name: rows}) if rows else ():
            try:
                result = decoded(result_member(members))
                inputs = {
                    kind: self._input(members[name])
                    for name, kind in self.members.items()
                    if name in members and kind in self._needed
                }
            except UNDECODABLE as error:
                payload = sink_of(self.committed.run.output_format).payload(shard.name)
                raise damaged(output, payload, f"{key}: {error}") from None
            lacking = self._needed - inputs.keys()
            if lacking:
                raise ManifestError(
                    f"--add: {output} does not hold the {' and the '.join(sorted(lacking))} of its samples (output.inputs: false); "
                    "accepted: outputs with inputs; a run itself measures with `quality` in its manifest"
                )
            yield key, result, inputs

    def _input(self, data: bytes) -> Pixels:
        name = xxhash.xxh3_128_hexdigest(data)
        if name not in self._kept:
            self._kept[name] = decoded(data)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]


def _method_of(record: RunRecord) -> Any:
    method = record.identity.get("method")
    return method.get("name", "") if isinstance(method, dict) else ""


def _measure(
    committed: Committed,
    pictures: _Pictures,
    sight: Sight,
    measured: str,
    done: Measured,
    progress: Progress,
) -> None:
    """Measure the shards that are not measured so, and give them their records."""
    told = time.monotonic()
    for number, shard in enumerate(committed.shards):
        stats = committed.ledger.recorded(shard.name)
        if stats is None or stats.measured == measured:
            done.num_before += stats is not None
            continue
        try:
            table = committed.table(shard)
            if table is None:
                raise damaged(
                    committed.output,
                    metadata_file(shard.name),
                    "the shard's files are not those of its commit; `stylebatch verify` says which",
                )
            values = _values(pictures, sight, shard, table)
        except DamagedError as error:
            done.damaged.append(str(error))
            continue
        except UserCodeError as error:  # another shard may have no such picture
            done.unseen.append(f"{committed.output}: {shard.name}: not measured: {error}")
            continue
        replace_records(committed.output, shard.name, stats, with_values(table, values), measured)
        done.num_shards += 1
        done.num_samples += shard.stats.num_success
        if time.monotonic() - told > SAY_EVERY_S:
            told = time.monotonic()
            progress.note(f"measured {number + 1:,} of {counted(len(committed.shards), 'shard')}")


def _values(
    pictures: _Pictures, sight: Sight, shard: CommittedShard, table: pa.Table
) -> dict[str, list[float | None]]:
    """Measures by column, null where there is no picture. Raises DamagedError where a picture is missing."""
    success = table.filter(pc.equal(table["status"], "success"))
    rows = {row["key"]: row for row in success.to_pylist()}
    output, sink = pictures.committed.output, sink_of(pictures.committed.run.output_format)
    # an input that changed since the commit decodes as well as any, so the whole payload is checked
    for file, text in sink.problems(output, shard.name, list(rows.values()), shard.stats):
        raise damaged(output, file, text)
    found: dict[str, dict[str, float]] = {}
    for key, result, inputs in pictures.of(shard, rows):
        found[key] = sight.measured(result, inputs, rows[key]["label"])
    if lost := rows.keys() - found.keys():
        raise damaged(
            pictures.committed.output,
            metadata_file(shard.name),
            f"found no files of sample {min(lost)}",
        )
    keys = table["key"].to_pylist()
    return {
        one.column: [found[key][one.column] if key in found else None for key in keys]
        for one in sight.asked
    }
