"""Network evaluations per image, as the plan counts them, beside the closed form.

Of few pairs among many images the form is the floor: every image inverted once. Blocks may be 5 % above it.
"""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path
from typing import Any

from pipelines.bench import workload
from pipelines.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.data.rows import Cell
from stylebatch.planning.listed_pools import ListedPools
from stylebatch.planning.resolve import plan
from stylebatch.planning.sampled_pools import SampledPools
from stylebatch.spec.pairing import Sampling

REVERSE, INVERSION = 49, 50
"""Evaluations of a pair and of an image at 50 steps, `start: paper`."""
SIDES = (1, 2, 4, 8, 16, 32, 64)
SIDE = 16
"""Contents and styles of a block at most."""
MOST = 1.05
"""Times the floor."""


def evaluations(size: Size) -> Outcome:
    """Products of n x n, samples of k styles per content among n x n, and of thousands; a shuffled list."""
    figures: list[Figure] = []
    for side in SIDES[: size.of(len(SIDES), 4)]:
        expected = REVERSE + 2 * INVERSION / side
        figures += _planned(f"product {side} x {side}", side, expected)
    side = size.of(64, 16)
    for k in (1, 2, 4):
        expected = REVERSE + 2 * INVERSION / k
        pairing = {"mode": "sample", "per_content": k}
        label = f"sampled, {k} of {side} styles per content"
        figures += _planned(label, side, expected, pairing=pairing)
    contents, styles = size.of(20_000, 2000), size.of(3000, 300)
    for k in (1, 2, 4, 8):
        sampled = SampledPools(contents, styles, SIDE, SIDE, Sampling(k, "block", 0))
        figures += _sparse(f"sampled, {k} of {styles} styles for {contents} contents", sampled)
    rows, styles = size.of(1_000_000, 10_000), size.of(1000, 100)
    draw = random.Random(0)
    cells = [Cell(content, draw.randrange(styles)) for content in range(rows)]
    draw.shuffle(cells)
    listed = ListedPools.sort(cells, max_rows=SIDE, max_columns=SIDE, max_cells=1000)
    figures += _sparse(
        f"shuffled list of {rows} contents, each with one of {styles} styles", listed
    )
    return Outcome(tuple(figures), {"steps": 50, "start": "paper"})


def _sparse(label: str, grid: SampledPools | ListedPools) -> list[Figure]:
    """The grid's count and the floor."""
    visits = grid.visits
    found, floor = (
        REVERSE + INVERSION * inversions / grid.num_samples
        for inversions in (
            visits.prepared_rows + visits.prepared_columns,
            grid.num_rows_used + grid.num_columns_used,
        )
    )
    if not floor <= found <= MOST * floor:
        raise BenchmarkError(
            f"{label}: the plan counts {found:g} per image, the floor is {floor:g}"
        )
    return [
        Figure(f"{label}: per image, by the plan", found, "evaluations"),
        Figure(f"{label}: per image, floor", floor, "evaluations"),
    ]


def _planned(label: str, side: int, expected: float, **changes: Any) -> list[Figure]:
    """The plan's count and the closed form's."""
    with tempfile.TemporaryDirectory() as folder:
        resolved = plan(workload.run_spec(Path(folder), side, side, size=16, **changes))
    found = resolved.evaluations / resolved.grid.num_samples
    if not math.isclose(found, expected, rel_tol=1e-9):
        raise BenchmarkError(
            f"{label}: the plan counts {found:g} per image, arithmetic {expected:g}"
        )
    return [
        Figure(f"{label}: per image, by the plan", found, "evaluations"),
        Figure(f"{label}: per image, by arithmetic", expected, "evaluations"),
    ]
