"""Network evaluations per image, as the plan counts them, beside the closed form."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from stylebatch.bench import workload
from stylebatch.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.data.plan import plan

REVERSE, INVERSION = 49, 50
"""Evaluations of a pair and of an image at 50 steps, `start: paper`."""
SIDES = (1, 2, 4, 8, 16, 32, 64)
POOL = 16
"""Styles that a block of sampled pairs draws from, and its contents at most."""


def evaluations(size: Size) -> Outcome:
    """Products of n x n, and samples of k styles per content among 64 x 64."""
    figures: list[Figure] = []
    for side in SIDES[: size.of(len(SIDES), 4)]:
        expected = REVERSE + 2 * INVERSION / side
        figures += _planned(f"product {side} x {side}", side, expected)
    side = size.of(64, 16)
    for k in (1, 2, 4):
        expected = REVERSE + INVERSION / k + INVERSION * POOL / (k * min(side, POOL))
        pairing = {"mode": "sample", "per_content": k}
        figures += _planned(
            f"sampled, {k} of {side} styles per content", side, expected, pairing=pairing
        )
    return Outcome(tuple(figures), {"steps": 50, "start": "paper"})


def _planned(label: str, side: int, expected: float, **changes: Any) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        resolved = plan(workload.run_spec(Path(folder), side, side, size=16, **changes))
    found = resolved.evaluations / resolved.grid.num_pairs
    if not math.isclose(found, expected, rel_tol=1e-9):
        raise BenchmarkError(
            f"{label}: the plan counts {found:g} per image, arithmetic {expected:g}"
        )
    return [
        Figure(f"{label}: per image, by the plan", found, "evaluations"),
        Figure(f"{label}: per image, by arithmetic", expected, "evaluations"),
    ]
