"""The measures of a comparison: means by variant for a terminal and as JSON, every sample as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stylebatch.folder import Folder
from stylebatch.quality.measures import Measure
from stylebatch.reports.committed import Row
from stylebatch.reports.variant_records import VariantRecords
from stylebatch.words import aligned, duration

FORMAT = "stylebatch comparison"
FILES = ("comparison.json", "comparison.csv", "comparison.png")


@dataclass(frozen=True)
class VariantTable:
    """`means` has a mean for each measure and variant, None where no sample has the measure."""

    records: VariantRecords
    measures: tuple[Measure, ...]
    means: tuple[dict[str, float | None], ...]

    @classmethod
    def of(cls, records: VariantRecords) -> VariantTable:
        measures = tuple(records.measures)
        means = tuple(
            {m.column: _mean(list(rows.values()), m.column) for m in measures}
            for rows in records.rows
        )
        return cls(records, measures, means)

    def lines(self) -> list[str]:
        """For a terminal."""
        heads = ["variant", *(m.name for m in self.measures), "failed", "evaluations", "time"]
        rows = [heads]
        for variant, means in zip(self.records.variants, self.means, strict=True):
            found = ((m, means[m.column]) for m in self.measures)
            shown = ["-" if value is None else m.shown(value) for m, value in found]
            report = variant.report
            work = [str(report.num_failed), f"{report.evaluations:,}", duration(report.seconds)]
            rows.append([variant.name, *shown, *work])
        return aligned(rows)

    def document(self) -> dict[str, Any]:
        """As comparison.json holds it."""
        variants = []
        for variant, means in zip(self.records.variants, self.means, strict=True):
            report = variant.report
            variants.append(
                {
                    "name": variant.name,
                    "values": dict(variant.values),
                    "output": str(variant.output),
                    "num_success": report.num_success,
                    "num_failed": report.num_failed,
                    "evaluations": report.evaluations,
                    "seconds": round(report.seconds, 3),
                    "means": means,
                }
            )
        return {"format": FORMAT, "num_samples": len(self.records.names), "variants": variants}

    def write(self, folder: Folder) -> None:
        """Write comparison.json and comparison.csv."""
        text = json.dumps(self.document(), indent=1, ensure_ascii=False, allow_nan=False)
        # first: it says whose the other files are
        folder.write("comparison.json", f"{text}\n".encode("utf-8", "backslashreplace"))
        folder.write("comparison.csv", self._csv().encode("utf-8", "backslashreplace"))

    def _csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        fields = [field for field, _ in self.records.variants[0].values]
        columns = [
            c for c in _TOLD if any(c in row for rows in self.records.rows for row in rows.values())
        ]
        measures = [m.column for m in self.measures]
        writer.writerow(["variant", *fields, *columns, *measures])
        writer.writerows(self._cells(columns, measures))
        return buffer.getvalue()

    def _cells(self, columns: Sequence[str], measures: Sequence[str]) -> Iterator[list[Any]]:
        for variant, rows in zip(self.records.variants, self.records.rows, strict=True):
            for name in self.records.names:
                row = rows.get(name)
                if row is not None:
                    told = [row.get(column, "") for column in (*columns, *measures)]
                    yield [variant.name, *(value for _, value in variant.values), *told]


_TOLD = (
    *("key", "content_id", "style_id", "id", "prompt", "image", "label", "seed"),
    *("status", "error_code", "error_message"),
)
"""Columns that the CSV has beside measures, where records have them."""


def _mean(rows: Sequence[Row], column: str) -> float | None:
    found = [row[column] for row in rows if row.get(column) is not None]
    return sum(found) / len(found) if found else None
