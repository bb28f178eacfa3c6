"""Draws rows, windows and random numbers of a step, as a pure function of (seed, step, process).

No state is carried from step to step, so a resumed run draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stylebatch.training.spec import TrainSpec, Window


@dataclass(frozen=True)
class Draw:
    """One batch of one process: rows, the window to cut, a seed for everything else.

    Rows 0..pairs-1 borrow from rows pairs..2*pairs-1, which come from the same groups.
    """

    step: int
    window: Window
    rows: tuple[int, ...]
    pairs: int
    seed: int

    def generator(self) -> torch.Generator:
        """A fresh stream of this batch, on the CPU so that every device sees the same numbers."""
        return torch.Generator().manual_seed(self.seed)


class Draws:
    """The batches of process `rank` of `world`; rows are walked in shuffled epochs without repeats."""

    def __init__(
        self,
        spec: TrainSpec,
        rows: Sequence[int],
        groups: Sequence[Sequence[int]] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.spec = spec
        self.rows = np.asarray(rows)
        self.groups = [np.asarray(group) for group in groups if len(group) > 1]
        self.rank, self.world = rank, world
        self._epoch, self._order = -1, self.rows
        # the square root: a group of thousands must not crowd out the small ones
        weights = np.sqrt([len(group) for group in self.groups]) if self.groups else np.zeros(0)
        self.weights = weights / weights.sum() if self.groups else weights

    def at(self, step: int, micro: int) -> Draw:
        """Batch `micro` of optimizer step `step`, both from 0."""
        spec = self.spec
        # The second number keeps streams apart: 1 windows, 2 batches, 3 epochs, 4 crops of latents.
        common = np.random.default_rng(
            [spec.seed, 1, step]
        )  # all processes cut windows of one size
        window = spec.window(step / spec.steps, float(common.random()))
        rng = np.random.default_rng([spec.seed, 2, step, micro, self.rank])
        borrow = spec.unet.borrow
        pairs = 0
        if spec.stage == "unet" and borrow is not None and self.groups:
            pairs = min(round(window.batch * borrow.share), window.batch // 2)
        rows = [*self._pairs(pairs, rng)]
        rows += self._singles(step, micro, window.batch - 2 * pairs)
        return Draw(step, window, tuple(rows), pairs, int(rng.integers(2**62)))

    def between(self, first: int, last: int) -> Iterator[Draw]:
        """Batches of steps first..last-1, accumulation included."""
        for step in range(first, last):
            for micro in range(self.spec.accumulation):
                yield self.at(step, micro)

    def _pairs(self, pairs: int, rng: np.random.Generator) -> list[int]:
        if not pairs:
            return []
        chosen = rng.choice(len(self.groups), pairs, p=self.weights)
        both = [rng.choice(self.groups[group], 2, replace=False) for group in chosen]
        return [int(row) for place in (0, 1) for row in (pair[place] for pair in both)]

    def _singles(self, step: int, micro: int, count: int) -> list[int]:
        """Rows of one batch from the endless sequence of shuffled epochs."""
        # Every batch advances by the largest window's size, so that its position depends on the step alone.
        most = max(window.batch for phase in self.spec.phases for window in phase.windows)
        batch = step * self.spec.accumulation + micro
        start = (batch * self.world + self.rank) * most
        return [self._row(start + index) for index in range(count)]

    def _row(self, position: int) -> int:
        epoch, index = divmod(position, len(self.rows))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.spec.seed, 3, epoch]).permutation(self.rows)
        return int(self._order[index])
