"""The records of variants of one manifest, side by side: which rows are of one sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stylebatch.folder import Folder
from stylebatch.quality.asked import TABLE
from stylebatch.quality.measures import Measure
from stylebatch.reports.committed import Committed, Row
from stylebatch.reports.report import Report

NAMING = ("content_id", "style_id", "id", "image", "mask_id", "row")
"""Columns that name a sample, whatever the method; the first two of pairs, the next of prompts."""
Name = tuple[object, ...]


@dataclass(frozen=True)
class RenderedVariant:
    """A variant with its output. `values`: its varied fields as they were written."""

    name: str
    values: tuple[tuple[str, str], ...]
    output: Folder
    report: Report


@dataclass(frozen=True)
class VariantRecords:
    """`names`: of the samples, in the order of the first variant; `rows`: by variant, then by name."""

    variants: tuple[RenderedVariant, ...]
    names: tuple[Name, ...]
    rows: tuple[dict[Name, Row], ...]

    @property
    def measures(self) -> list[Measure]:
        """Those that any variant has."""
        columns = {column for rows in self.rows for row in rows.values() for column in row}
        return [measure for measure in TABLE if measure.column in columns]

    def shown(self, name: Name) -> Row:
        """The row of a sample in the first variant that has it."""
        return next(rows[name] for rows in self.rows if name in rows)


def read_variants(variants: Sequence[RenderedVariant]) -> VariantRecords:
    """Rows of all variants. Raises what reading an output raises."""
    rows = tuple(dict(_named(variant.output)) for variant in variants)
    # blocks of another shape give the samples another order
    names = dict.fromkeys(name for one in rows for name in one)
    return VariantRecords(tuple(variants), tuple(names), rows)


def _named(output: Folder) -> Iterator[tuple[Name, Row]]:
    """Every row with the name of its sample; a number tells apart rows of one name, in their order."""
    counts = Counter[Name]()
    for shard in Committed(output).read():
        for row in shard.rows(range(len(shard.table))):
            name = tuple(row[column] for column in NAMING if column in row)
            counts[name] += 1
            yield (*name, counts[name]), row
