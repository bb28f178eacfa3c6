"""Counts what a run reports, for its lock: what `stylebatch status` shows of it and its metrics tell."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Literal

from stylebatch.progress import Event, PassedOn, Progress
from stylebatch.store.underway import MOST_PLACES, Underway, WorkersAt


class Live(PassedOn):
    """`underway` may be asked by another thread."""

    def __init__(self, shown: Progress) -> None:
        super().__init__(shown)
        self._begun = time.monotonic()
        self._rendering: float | None = None
        self._phase: Literal["preparing", "rendering", "reporting"] = "preparing"
        self._before = self._evaluations = self._planned = 0
        self._shard = ""
        self._workers: dict[str, dict[str, Any]] = {}
        self._counts = Counter[str]()

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None:
        self._planned, self._before = evaluations, samples_done
        self._rendering, self._phase = time.monotonic(), "rendering"
        super().begin(
            evaluations=evaluations, samples=samples, samples_done=samples_done, unit=unit
        )

    def enter_shard(self, name: str) -> None:
        self._shard = name
        super().enter_shard(name)

    def advance(self, evaluations: int) -> None:
        self._evaluations += evaluations
        super().advance(evaluations)

    def event(self, event: Event) -> None:
        self._counts[event.kind] += 1
        if event.kind == "joined":
            self._workers[event.worker] = event.facts
        elif event.kind == "lost":
            self._workers.pop(event.worker, None)
        super().event(event)

    def end(self) -> None:
        self._phase, self._shard = "reporting", ""
        self._workers.clear()
        super().end()

    def underway(self) -> Underway:
        """How far the run is now."""
        now = time.monotonic()
        rendering = 0.0 if self._rendering is None else now - self._rendering
        return Underway(
            phase=self._phase,
            run_s=now - self._begun,
            rendering_s=rendering,
            samples_before=self._before,
            evaluations=self._evaluations,
            evaluations_planned=self._planned,
            shard=self._shard[:300],
            workers=_places(list(self._workers.values())),
            workers_lost=self._counts["lost"],
            retries=self._counts["retry"],
        )


def _places(workers: list[dict[str, Any]]) -> list[WorkersAt]:
    """Workers by host and kind of device, most first."""
    counts = Counter(
        (str(one.get("host", ""))[:300], str(one.get("device", ""))[:300].partition(":")[0])
        for one in workers
    )
    named = counts.most_common()
    rest = Counter[str]()
    for (_, device), count in named[MOST_PLACES:]:
        rest[device] += count
    places = [
        WorkersAt(host=host, device=device, count=count)
        for (host, device), count in named[:MOST_PLACES]
    ]
    if rest:
        places.append(WorkersAt(host="", device=", ".join(sorted(rest)), count=rest.total()))
    return places
