"""Sums up an output from its records alone, and derives errors.parquet, contact sheet and gallery from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylebatch.folder import Folder, Place
from stylebatch.methods.input_kinds import STYLE
from stylebatch.planning.shard_names import parsed_name
from stylebatch.planning.style_uses import Spread
from stylebatch.quality.asked import TABLE
from stylebatch.reports.committed import Committed, ShardRows
from stylebatch.reports.contact_sheet import Limits, SheetRows, write_sheet
from stylebatch.reports.duplicates import Duplicates, LooksOfShards
from stylebatch.reports.gallery import GalleryRows, write_gallery
from stylebatch.reports.pictures import load_pictures
from stylebatch.reports.reasons import Reason, Reasons
from stylebatch.reports.verdicts import REJECTED, Verdicts
from stylebatch.spec.splits import in_order
from stylebatch.store.output_record import ShardStats
from stylebatch.store.records import IS_ORIGINAL
from stylebatch.store.sinks import sink_of
from stylebatch.words import counted, duration, size

MAX_REASONS = 5


@dataclass(frozen=True)
class Report:
    """Totals over the committed shards. `quality` holds means over the successful samples, by column; `splits` counts these.

    `num_rejected`: samples that the gates reject, for `rejections`; `num_retried`: those that had further attempts, and
    `num_retried_well` of them passed.
    `seconds` adds up the time of the shards, which workers may have spent at once, `forecast_s` is what was expected of the whole
    run; `bytes` are those of the payload.
    """

    output: Folder
    num_planned: int
    num_shards: int
    num_shards_committed: int
    num_success: int
    num_failed: int
    num_rejected: int
    num_retried: int
    num_retried_well: int
    reasons: tuple[Reason, ...]
    rejections: tuple[Reason, ...]
    duplicates: Duplicates
    evaluations: int
    seconds: float
    forecast_s: float | None
    bytes: int
    quality: dict[str, float]
    splits: dict[str, int]
    styles_per_shard: Spread | None
    contact_sheet: str
    gallery: str

    @property
    def failures(self) -> dict[str, int]:
        """Samples that failed, by code, most first."""
        counts: Counter[str] = Counter()
        for reason in self.reasons:
            counts[reason.code] += reason.num_samples
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def lines(self, *, is_live: bool = False) -> list[str]:
        """Summary for a terminal, one fact a line; `is_live`: a run is writing what is missing."""
        num_missing = self.num_planned - self.num_success - self.num_failed - self.num_rejected
        rate = f", {self.num_success / self.seconds:.2f} samples/s" if self.seconds > 0 else ""
        lines = [
            f"{self.output}: {self.num_success:,} of {counted(self.num_planned, 'sample')}",
            f"  shards      {self.num_shards_committed:,} of {self.num_shards:,} committed, {size(self.bytes)}",
        ]
        if self.evaluations:  # an export has none
            lines.append(
                f"  work        {counted(self.evaluations, 'network evaluation')} in {duration(self.seconds)} of worker time{rate}"
            )
        if self.forecast_s is not None:
            took = "" if num_missing else _compared(self.seconds, self.forecast_s)
            lines.append(f"  expected    {duration(self.forecast_s)} of worker time{took}")
        if len(self.splits) > 1:
            named = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
            lines.append(f"  splits      {named}")
        if self.styles_per_shard is not None:
            lines.append(f"  styles      {self.styles_per_shard.words()} in a shard")
        if num_missing:
            step = "a run is at it" if is_live else "run the same manifest again to resume"
            lines.append(f"  missing     {num_missing:,}; {step}")
        if self.num_failed:
            codes = ", ".join(f"{code} {count:,}" for code, count in self.failures.items())
            lines.append(
                f"  failed      {self.num_failed:,} ({codes}), see {self.output.where('metadata/errors.parquet')}"
            )
            lines += [f"    {reason.line()}" for reason in self.reasons[:MAX_REASONS]]
            if len(self.reasons) > MAX_REASONS:
                lines.append(f"    and {counted(len(self.reasons) - MAX_REASONS, 'other reason')}")
        lines += [*self._of_gates(), *self.duplicates.lines()]
        if self.quality:
            means = (
                f"{measure.name} {measure.shown(self.quality[measure.column])} {measure.unit}".rstrip()
                for measure in TABLE
                if measure.column in self.quality
            )
            lines.append(f"  mean        {', '.join(means)}")
        return [*lines, f"  pictures    {self.contact_sheet}", f"              {self.gallery}"]

    @property
    def verdict(self) -> str:
        """What became of the samples that gates judged, in a sentence."""
        total, retried = self.num_success + self.num_rejected, ""
        if self.num_retried:
            retried = f"; {counted(self.num_retried, 'sample')} had further attempts, of which {self.num_retried_well:,} passed"
        return f"Of {counted(total, 'sample')} {self.num_rejected:,} were rejected{retried}."

    def _of_gates(self) -> Iterator[str]:
        if self.num_rejected:
            share = self.num_rejected / (self.num_success + self.num_rejected)
            yield f"  rejected    {self.num_rejected:,} ({share:.1%}), see {self.output.where('metadata/errors.parquet')}"
            yield from (f"    {one.line()}" for one in self.rejections[:MAX_REASONS])
        if self.num_retried:
            yield (
                f"  tried again {counted(self.num_retried, 'sample')}, of which {self.num_retried_well:,} passed"
            )


def _compared(seconds: float, forecast_s: float) -> str:
    """`, and it took 12% more`, `, and it took 5.6 times as long`."""
    if not forecast_s:
        return ""
    share = seconds / forecast_s
    if not 0.5 < share < 2:
        return f", and it took {share:.2g} times as long"
    return f", and it took {abs(share - 1):.0%} {'more' if share >= 1 else 'less'}"


WRITTEN = ("metadata/errors.parquet", "contact_sheet.png", "gallery.html")


def foresee(output: Place) -> str:
    """Of how many samples a report would tell. Raises as `report`."""
    committed = Committed(Folder.at(output))
    shards = counted(len(committed.shards), "shard")
    return f"{committed.output}: {counted(committed.num_samples, 'sample')} of {shards}"


def report(output: Place, *, stats: Mapping[str, ShardStats] | None = None) -> Report:
    """Add up the records of `output` and write metadata/errors.parquet, contact_sheet.png and gallery.html.

    So is what its format has beside the shards. `stats`: of all commit markers, where they were read already. Raises
    ManifestError when `output` holds no run or no committed shard.
    """
    output = Folder.at(output)
    committed = Committed(output, stats)
    sheet_rows = SheetRows(committed.num_samples, Limits())
    gallery_rows = GalleryRows(committed.num_success)
    looks = LooksOfShards()
    with (
        output.writing("metadata/errors.parquet") as file,
        closing(Totals(file)) as totals,
        sink_of(committed.run.output_format).finishing(output) as finish,
    ):
        for shard in committed.read():
            totals.add(shard)
            sheet_rows.add(shard)
            gallery_rows.add(shard)
            looks.add(shard)
            finish(shard.table)
    sheet = sheet_rows.sheet()
    # one pass over the tars for both pages, at the larger of the two sizes
    pictures = load_pictures(output, [*sheet.wanted(), *gallery_rows.wanted()])
    return Report(
        output=output,
        num_planned=committed.run.plan.num_samples,
        num_shards=committed.run.plan.num_shards,
        num_shards_committed=totals.num_shards,
        num_success=totals.num_success,
        num_failed=totals.num_failed,
        num_rejected=totals.gates.num_rejected,
        num_retried=totals.gates.num_retried,
        num_retried_well=totals.gates.num_retried_well,
        reasons=totals.reasons.sorted(),
        rejections=totals.gates.reasons.sorted(),
        duplicates=looks.duplicates(),
        evaluations=totals.evaluations,
        seconds=totals.seconds,
        forecast_s=committed.run.resolved.forecast_s,
        bytes=totals.bytes,
        quality=totals.quality,
        splits={split: totals.splits[split] for split in in_order(set(totals.splits))},
        styles_per_shard=Spread.of(totals.styles) if totals.styles else None,
        contact_sheet=write_sheet(output, sheet, pictures),
        gallery=write_gallery(committed, gallery_rows, pictures),
    )


@dataclass
class Totals:
    """Adds up shards, and writes the rows that failed or were rejected, in key order, to `file` as Parquet: none if none did."""

    file: IO[bytes]
    num_shards: int = 0
    num_success: int = 0
    num_failed: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    bytes: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    gates: Verdicts = field(default_factory=Verdicts)

    def __post_init__(self) -> None:
        self._writer: pq.ParquetWriter | None = None
        self._counts = Counter[str]()
        self._sums = {measure.column: 0.0 for measure in TABLE}
        self.splits = Counter[str]()
        self.styles: list[int] = []

    def add(self, shard: ShardRows) -> None:
        stats, table = shard.shard.stats, shard.table
        self.num_shards += 1
        self.num_success += stats.num_success
        name = parsed_name(shard.shard.name)
        if name is not None and stats.num_success:
            self.splits[name.split] += stats.num_success
        self.num_failed += stats.num_failed
        self.evaluations += stats.evaluations
        self.seconds += stats.seconds
        self.bytes += stats.bytes
        self._add_failed(table.filter(pc.not_equal(table["status"], "success")))
        self.gates.add(table)
        # of samples that are no part of the dataset no mean is told
        table = table.filter(pc.not_equal(table["status"], REJECTED))
        if IS_ORIGINAL in table.column_names:  # nothing was rendered that could be measured
            table = table.filter(pc.invert(table[IS_ORIGINAL]))
        if STYLE.column in table.column_names and stats.num_success:
            rendered = table.filter(pc.equal(table["status"], "success"))
            styles = pc.count_distinct(rendered[STYLE.column]).as_py()
            self.styles += [styles] if styles else []
        for column in (measure.column for measure in TABLE):
            if column in table.column_names:
                self._counts[column] += len(table) - table[column].null_count
                # the sum of no values is null
                self._sums[column] += pc.sum(table[column]).as_py() or 0.0

    def _add_failed(self, failed: pa.Table) -> None:
        # opened by the first shard even when nothing failed: an empty file with the columns says so
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.file, failed.schema, compression="zstd")
        if len(failed):
            self._writer.write_table(failed)
            self.reasons.add(failed.filter(pc.not_equal(failed["status"], REJECTED)))

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()

    @property
    def quality(self) -> dict[str, float]:
        """Means of the measures that there are, by column."""
        return {name: self._sums[name] / count for name, count in self._counts.items() if count}
