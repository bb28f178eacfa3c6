"""What gates made of samples: how many were rejected and why, how many were tried again and with what success."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.reports.reasons import Reasons

REJECTED = "rejected"
"""Status of such samples."""
ATTEMPT = "attempt"
"""Column that tells at which attempt a sample is; it is there where samples may have several."""


@dataclass
class Verdicts:
    """Adds up the rows of shards."""

    num_rejected: int = 0
    num_retried: int = 0
    num_retried_well: int = 0
    reasons: Reasons = field(default_factory=Reasons)

    def add(self, table: pa.Table) -> None:
        rejected = table.filter(pc.equal(table["status"], REJECTED))
        self.num_rejected += len(rejected)
        if len(rejected):
            self.reasons.add(rejected)
        if ATTEMPT in table.column_names:
            again = table.filter(pc.greater(table[ATTEMPT], 1))
            self.num_retried += len(again)
            self.num_retried_well += pc.sum(pc.equal(again["status"], "success")).as_py() or 0
