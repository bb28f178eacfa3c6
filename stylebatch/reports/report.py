"""Sums up an output directory from its records alone, and derives errors.parquet, contact sheet and gallery from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylebatch.reports.contact_sheet import contact_sheet
from stylebatch.reports.gallery import gallery
from stylebatch.reports.prompt_sheet import prompt_sheet
from stylebatch.reports.records import QUALITY, columns_of, committed_shards, read_run, read_tables
from stylebatch.store.commit import atomic_file


@dataclass(frozen=True)
class Report:
    """Totals over the committed shards. `quality` holds means over the successful samples, by column.

    `seconds` adds up the time of the shards, which workers may have spent at once; `bytes` are those of the tars.
    """

    output: Path
    num_planned: int
    num_shards: int
    num_shards_committed: int
    num_success: int
    num_failed: int
    failures: dict[str, int]
    evaluations: int
    seconds: float
    bytes: int
    quality: dict[str, float]
    contact_sheet: Path
    gallery: Path

    def lines(self) -> list[str]:
        """Summary for a terminal, one fact a line."""
        num_missing = self.num_planned - self.num_success - self.num_failed
        rate = f", {self.num_success / self.seconds:.2f} samples/s" if self.seconds > 0 else ""
        lines = [
            f"{self.output}: {self.num_success:,} of {self.num_planned:,} samples",
            f"  shards      {self.num_shards_committed:,} of {self.num_shards:,} committed, {_size(self.bytes)}",
            f"  work        {self.evaluations:,} network evaluations in {_duration(self.seconds)} of worker time{rate}",
        ]
        if num_missing:
            lines.append(f"  missing     {num_missing:,}; run the same manifest again to resume")
        if self.num_failed:
            codes = ", ".join(f"{code} {count:,}" for code, count in self.failures.items())
            lines.append(
                f"  failed      {self.num_failed:,} ({codes}), see {self.output / 'metadata' / 'errors.parquet'}"
            )
        if self.quality:
            means = (
                f"{name} {self.quality[column]:.{digits}f}"
                for column, (name, digits, _) in QUALITY.items()
                if column in self.quality
            )
            lines.append(f"  mean        {', '.join(means)}")
        return [*lines, f"  pictures    {self.contact_sheet}", f"              {self.gallery}"]


def report(output: str | Path) -> Report:
    """Add up the records of `output` and write metadata/errors.parquet, contact_sheet.png and gallery.html.

    Raises ManifestError when `output` holds no run or no committed shard.
    """
    output = Path(output)
    plan, shards = read_run(output).get("plan", {}), committed_shards(output)
    failures, quality = write_errors(output), _mean_quality(output)
    return Report(
        output=output,
        num_planned=int(plan.get("num_pairs", 0)),
        num_shards=int(plan.get("num_shards", 0)),
        num_shards_committed=len(shards),
        num_success=sum(shard.num_success for shard in shards),
        num_failed=sum(shard.num_failed for shard in shards),
        failures=failures,
        evaluations=sum(shard.evaluations for shard in shards),
        seconds=sum(shard.seconds for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        quality=quality,
        contact_sheet=_sheet(output),
        gallery=gallery(output),
    )


def _sheet(output: Path) -> Path:
    return contact_sheet(output) if "content_id" in columns_of(output) else prompt_sheet(output)


def write_errors(output: Path) -> dict[str, int]:
    """Write metadata/errors.parquet: the rows that failed, in key order, none if none; returns their count by code, most first."""
    failed = [
        table.filter(pc.not_equal(table["status"], "success")) for table in read_tables(output)
    ]
    rows = pa.concat_tables(failed)
    with atomic_file(output / "metadata" / "errors.parquet") as file:
        pq.write_table(rows, file, compression="zstd")
    codes = Counter(rows["error_code"].to_pylist())
    return dict(sorted(codes.items(), key=lambda pair: (-pair[1], pair[0])))


def _mean_quality(output: Path) -> dict[str, float]:
    """Means of the quality columns that there are, over the successful samples."""
    counts, totals = Counter[str](), dict.fromkeys(QUALITY, 0.0)
    for table in read_tables(output):
        for name in QUALITY:
            if name in table.column_names:
                counts[name] += len(table) - table[name].null_count
                totals[name] += pc.sum(table[name]).as_py() or 0.0
    return {name: totals[name] / count for name, count in counts.items() if count}


def _size(size_bytes: int) -> str:
    """Decimal units: 999 B, 1.5 kB, 2.0 GB."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _duration(seconds: float) -> str:
    """12.3 s, 4 min 10 s, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )
