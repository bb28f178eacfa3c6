"""Judges the samples of a block, and renders rejected ones again while what they are made of is held.

1. Samples that could be rendered are judged by their measures, as they would be recorded.
2. While fewer of the shard passed than `gates.yield` asks for, the rejected ones are rendered again together, each time as the
   next rung of `gates.retry` says, and judged again.
3. What was rejected to the end is recorded with its last attempt.
A shard is counted by itself, its blocks in order, and which samples are rendered together follows from the plan's own pictures:
so bytes depend neither on engine and order nor on what was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from stylebatch.engine.attempts import Attempt, Tally
from stylebatch.engine.gate import Gate
from stylebatch.engine.renderer import CellIndex, Rendering
from stylebatch.errors import SampleError
from stylebatch.planning.met_styles import MetStyles
from stylebatch.planning.plan import Plan, Sample
from stylebatch.planning.prompts import sample_seed
from stylebatch.spec.gates import SEED, STYLE, changed_options

RowOf = Callable[[Sample, Rendering], dict[str, Any]]
"""The record of a rendered sample with its measures."""


class Retries:
    """The gates of a plan that has some. `row_of`: as the worker records samples."""

    def __init__(self, plan: Plan, row_of: RowOf) -> None:
        assert plan.spec.gates is not None, "a plan without gates tries nothing again"
        self.plan, self.gates, self.row_of = plan, plan.spec.gates, row_of
        self.gate = Gate(plan)
        self._met = MetStyles(plan.layout)
        rungs = self.gates.retry
        self._options = [changed_options(plan.options, rung, "gates.retry") for rung in rungs]

    def of_part(
        self,
        rendering: Rendering,
        cells: Sequence[CellIndex],
        columns: Sequence[int],
        tally: Tally,
    ) -> None:
        """Judge a part of a block that was rendered, which takes its styles from `columns`; add it to the shard's `tally`."""
        counts = Counter(cell for cell in cells if _is_made(rendering, cell))
        for row, column in counts:
            seed = rendering.samples[row, column].seed
            rendering.attempts[row, column] = Attempt(column, seed)
        rejected = self._judged(rendering, list(counts))
        tally.judged += counts.total()
        tally.passed += counts.total() - sum(counts[cell] for cell in rejected)
        for number in range(2, self.gates.num_attempts + 1):
            if not rejected or tally.is_enough(self.gates.yield_):
                return
            options = self._options[min(number - 2, len(self._options) - 1)]
            tried: dict[CellIndex, Attempt] = {}
            for cell in rejected:
                attempt = self._next(rendering, cell, number, columns)
                if attempt is not None:
                    tried[cell] = replace(attempt, options=options)
            made = rendering.again(tried) if tried else []
            failed = set(self._judged(rendering, made))
            passed = [cell for cell in made if cell not in failed]
            tally.passed += sum(counts[cell] for cell in passed)
            rejected = [cell for cell in rejected if cell not in passed]

    def _judged(self, rendering: Rendering, cells: list[CellIndex]) -> list[CellIndex]:
        """Note why samples are rejected; those that are."""
        if not cells:
            return []
        rows = [self.row_of(rendering.samples[cell], rendering) for cell in cells]
        reasons = self.gate.reasons(rows)
        for cell, reason in zip(cells, reasons, strict=True):
            rendering.attempts[cell] = replace(rendering.attempts[cell], reason=reason)
        return [cell for cell, reason in zip(cells, reasons, strict=True) if reason]

    def _next(
        self, rendering: Rendering, cell: CellIndex, number: int, columns: Sequence[int]
    ) -> Attempt | None:
        """Attempt `number` at a sample; None where there is nothing to try."""
        row, column = cell
        # its picture is in all samples of its set
        if self.plan.is_reference(row):
            return None
        rung, last = self.gates.rung(number), rendering.attempts[cell]
        words = [f"{name} {value}" for name, value in rung.items() if name not in (SEED, STYLE)]
        seed = rendering.samples[cell].seed
        if STYLE in rung:
            found = self._other_style(rendering, cell, columns, number)
            if found is None:
                return None
            column, seed = found, self.plan.request(row, found).seed
            words.append(f"style {self.plan.images(1)[column].id}")
        if SEED in rung:
            seed = sample_seed(seed, "attempt", str(number))
            words.append(f"seed {seed}")
        return Attempt(
            column,
            seed,
            number,
            words=", ".join(words),
            rejections=(*last.rejections, last.told),
        )

    def _other_style(
        self, rendering: Rendering, cell: CellIndex, columns: Sequence[int], number: int
    ) -> int | None:
        """A style among `columns` that the content meets nowhere else."""
        row, _ = cell
        taken = rendering.styles_taken.setdefault(row, set(self._met.of(row)))
        others = [
            one for one in columns if one not in taken and one in rendering.columns[one].position
        ]
        if not others:
            return None
        # drawn, so that rejected samples do not all meet the first style of a block
        place = sample_seed(rendering.samples[cell].seed, STYLE, str(number)) % len(others)
        taken.add(others[place])
        return others[place]


def _is_made(rendering: Rendering, cell: CellIndex) -> bool:
    """Whether there is a picture of the sample."""
    found = rendering.pixels.get(cell)
    return found is not None and not isinstance(found, SampleError)
