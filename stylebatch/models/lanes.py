"""Evaluations side by side on a CPU, each on a thread with its share of the cores.

Within one evaluation of a small network the cores wait for each other after every operation; across evaluations they never do
(docs/benchmarks.md, "Lanes").
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """At most `count` at a time, which share `threads` cores; with one lane everything runs on the caller's thread.

    The caller's thread is expected to have `threads` threads itself.
    """

    def __init__(self, count: int = 1, threads: int = 1) -> None:
        self.count, self.threads = max(1, min(count, threads)), threads
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="lane")
        self._here = threading.local()

    def num_parts(self, rows: int, batch: int | None = None) -> int:
        """Into how many evaluations of at most `batch` rows to cut `rows`, so that each lane has one; 1 within a lane."""
        if getattr(self._here, "is_lane", False):
            return 1
        needed = -(-rows // (batch or max(1, rows)))
        return min(rows, -(-needed // self.count) * self.count)

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in order, computed in inference mode. Raises what `function` raised first, after the others have ended."""
        found: list[R] = []
        # the rest, fewer than the lanes, is a group by itself and shares all cores
        whole = len(items) - len(items) % self.count
        for group in (items[:whole], items[whole:]):
            side_by_side = min(self.count, len(group))
            if side_by_side < 2:
                with torch.inference_mode():
                    found += [function(item) for item in group]
                continue
            share = self.threads // side_by_side
            # settings of torch that the caller made hold in the lanes as well
            runs = [contextvars.copy_context().run for _ in group]
            futures = [
                self._pool.submit(run, self._alone, function, item, share)
                for run, item in zip(runs, group, strict=True)
            ]
            # first all, then results: an error must not leave others computing on a model that is taken down
            wait(futures)
            found += [future.result() for future in futures]
        return found

    def _alone(self, function: Callable[[T], R], item: T, threads: int) -> R:
        torch.set_num_threads(threads)  # of this thread only
        self._here.is_lane = True
        with torch.inference_mode():
            return function(item)
