"""Network evaluations per image, as the plan counts them, beside the closed form.

Of sampled pairs the form is a bound: a block takes at most 16 styles, and fewer where each is used several times.
"""

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
            f"sampled, {k} of {side} styles per content",
            side,
            expected,
            pairing=pairing,
            is_bound=True,
        )
    return Outcome(tuple(figures), {"steps": 50, "start": "paper"})


def _planned(
    label: str, side: int, expected: float, *, is_bound: bool = False, **changes: Any
) -> list[Figure]:
    """The plan's count and the closed form's; `is_bound`: the form is what the plan may reach at most."""
    with tempfile.TemporaryDirectory() as folder:
        resolved = plan(workload.run_spec(Path(folder), side, side, size=16, **changes))
    found = resolved.evaluations / resolved.grid.num_pairs
    is_equal = math.isclose(found, expected, rel_tol=1e-9)
    if not is_equal and not (is_bound and REVERSE < found < expected):
        raise BenchmarkError(
            f"{label}: the plan counts {found:g} per image, arithmetic {expected:g}"
        )
    form = "at most, by arithmetic" if is_bound else "by arithmetic"
    return [
        Figure(f"{label}: per image, by the plan", found, "evaluations"),
        Figure(f"{label}: per image, {form}", expected, "evaluations"),
    ]
