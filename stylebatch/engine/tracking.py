"""Progress that also goes to an experiment tracker (TensorBoard, Weights & Biases), through accelerate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from accelerate.tracking import TensorBoardTracker, WandBTracker

from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.progress import Event, PassedOn, Progress
from stylebatch.spec import RunSpec

INSTALL = {
    "tensorboard": "pip install 'stylebatch[tensorboard]'",
    "wandb": "pip install 'stylebatch[wandb]'",
}


def tracked(progress: Progress, spec: RunSpec, output: Folder) -> Progress:
    """`progress`, or one that logs each commit too, TensorBoard's into `output`/logs.

    Raises ManifestError when the tracker's package is missing. Nothing is written before work begins.
    """
    name = spec.engine.tracker
    if name is None or os.environ.get("RANK", "0") != "0":
        return progress
    if find_spec(name) is None:
        raise ManifestError(f"engine.tracker: {name} is not installed; next: {INSTALL[name]}")
    if name == "wandb":
        return Tracked(progress, lambda: WandBTracker(spec.name))

    if output.local is None:
        raise ManifestError(
            f"engine.tracker: found tensorboard beside the output {output}; accepted: an output on this machine, or wandb"
        )
    folder = output.local / "logs"

    def tensorboard() -> TensorBoardTracker:
        # not before work begins: a refused start must leave a new directory empty
        folder.mkdir(parents=True, exist_ok=True)
        return TensorBoardTracker(spec.name, str(folder))

    return Tracked(progress, tensorboard)


class Tracked(PassedOn):
    """Logs samples, failures and rates against the samples done. `make` gives the tracker."""

    def __init__(self, shown: Progress, make: Callable[[], Any]) -> None:
        super().__init__(shown)
        self.make = make
        self.tracker: Any = None
        self.samples = self.failed = self.evaluations = 0
        self.started = time.monotonic()

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None:
        self.samples, self.started = samples_done, time.monotonic()
        self._before = samples_done
        self.tracker = self.make()
        self.tracker.start()
        super().begin(
            evaluations=evaluations, samples=samples, samples_done=samples_done, unit=unit
        )

    def event(self, event: Event) -> None:
        super().event(event)
        if event.kind != "committed":
            return
        self.samples += event.facts["num_samples"]
        self.failed += event.facts["num_failed"]
        self.evaluations += event.facts["evaluations"]
        elapsed = max(1e-9, time.monotonic() - self.started)
        self.tracker.log(
            {
                "samples": self.samples,
                "failed": self.failed,
                "samples_per_second": (self.samples - self._before) / elapsed,
                "evaluations_per_second": self.evaluations / elapsed,
                "shard_seconds": event.facts["seconds"],
            },
            step=self.samples,
        )

    def end(self) -> None:
        super().end()
        if self.tracker is not None:
            self.tracker.finish()
