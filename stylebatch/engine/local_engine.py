"""The local engine: shards one after another in this process. The base of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from stylebatch.engine.accounts import Account, Executed, here, render_here
from stylebatch.engine.measure import measure
from stylebatch.engine.queue import ShardQueue
from stylebatch.engine.worker import Worker
from stylebatch.folder import Folder
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.loading import find_device, load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.planning.choice import Measurements
from stylebatch.planning.plan import Plan
from stylebatch.progress import Event, Progress
from stylebatch.spec import EngineSpec

T = TypeVar("T")


class LocalEngine:
    """A context manager."""

    name = "local"

    def __init__(self, spec: EngineSpec, progress: Progress) -> None:
        self.spec = spec
        self.progress = progress
        self._loaded: tuple[ModelSpec, Denoiser] | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on a device of the kind that renders."""
        return function()

    def measure(self, plan: Plan, *, threads: int, batch_gb: float | None) -> Measurements:
        """What decides where the features of `plan` come from, measured on a device that renders."""
        return measure(plan, threads=threads, batch_gb=batch_gb, model=self._model(plan.spec.model))

    def _model(self, spec: ModelSpec) -> Denoiser:
        """The model of this run, loaded once for measuring and for all plans."""
        # generations of an output share the model; sections are frozen, so they compare by value
        if self._loaded is None or self._loaded[0] != spec:
            self._loaded = (spec, load_model(spec, device=find_device(self.spec.device)))
        return self._loaded[1]

    def _announce(self, process: dict[str, Any]) -> None:
        """This process is about to render."""
        self.progress.event(Event("joined", "", "", self.name, process))

    def follow(self) -> Any:
        """Where another process plans and reports: work for it; its result. None where this one leads."""
        return None

    def conclude(self, result: Any) -> None:
        """Tell the processes that follow what the run came to."""

    def render(
        self,
        plan: Plan,
        output: Folder,
        shards: Sequence[int],
        *,
        threads: int,
        executed: Executed | None = None,
    ) -> None:
        """Render and commit `shards` of `plan`. Raises what ends a run; what ends a shard is recorded."""
        queue = ShardQueue(shards, in_flight=1, max_attempts=self.spec.max_attempts)
        account = Account(plan, output, queue, self.progress)
        again = executed or {}
        with Worker(
            plan,
            output,
            threads=threads,
            on_evaluations=self.progress.advance,
            model=self._model(plan.spec.model),
        ) as worker:
            self._announce(here(worker.model.device))
            render_here(account, self.name, lambda shard: worker.render(shard, again.get(shard)))
