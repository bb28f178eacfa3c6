"""The driver's loop with workers that sleep: what SIGTERM leaves undone, and what it does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.bench.ray_scheduling import Tally
from pipelines.bench.sleeper import Sleeper
from stylebatch.engine.drive import ActorSetup, Drive
from stylebatch.engine.queue import ShardQueue
from stylebatch.engine.ray_pool import RayEngine
from stylebatch.errors import Interrupted
from stylebatch.interruption import interruptible
from stylebatch.progress import Progress
from stylebatch.spec import EngineSpec

pytestmark = pytest.mark.filterwarnings("ignore")
NUM_SHARDS = 40


class Notes(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


class Terminated(Tally):
    """Sends this process `signals` when the first shard is done."""

    def __init__(self, signals: list[int]) -> None:
        super().__init__(ShardQueue(range(NUM_SHARDS)))
        self.signals = signals

    def committed(self, worker: str, shard: int, stats: Any) -> None:
        super().committed(worker, shard, stats)
        while self.signals:
            os.kill(os.getpid(), self.signals.pop())


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    spec = EngineSpec(name="ray", workers=2, cpus_per_worker=1, gpus_per_worker=0)
    with RayEngine(spec, Notes()) as engine:
        yield engine


def _run(engine: RayEngine, signals: list[int], *, drain_s: float) -> tuple[int, int]:
    """Shards that were done, and the signal that ended the run."""
    setup = ActorSetup(Sleeper, lambda _: (1.0, 0.0, (2.0,) * NUM_SHARDS), 2)
    books, drive = Terminated(signals), Drive(engine.cluster(1), setup, drain_s=drain_s)
    try:
        with pytest.raises(Interrupted) as ended, interruptible():
            drive.run("render", books)
    finally:
        drive.dismiss()
    assert not drive.workers
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return books.queue.num_done, ended.value.exit_code - 128


def test_sigterm_lets_workers_end_the_shards_they_are_at(engine: RayEngine) -> None:
    done, by = _run(engine, [signal.SIGTERM], drain_s=600.0)
    assert by == signal.SIGTERM
    assert 2 <= done <= 4  # what both were at, not what waits behind it
    assert any("shards in work have 600 s to end" in text for text in engine.progress.said)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("signals", "drain_s"),
    [([signal.SIGTERM], 0.0), ([signal.SIGTERM] * 2, 600.0), ([signal.SIGINT], 600.0)],
)
def test_a_second_signal_or_no_time_ends_them_at_once(
    engine: RayEngine, signals: list[int], drain_s: float
) -> None:
    by = signals[0]
    assert _run(engine, list(signals), drain_s=drain_s) == (1, by)


def test_an_interrupt_that_ray_wraps_is_an_interrupt() -> None:
    with pytest.raises(Interrupted) as ended, interruptible():
        raise SystemError(
            "CoreWorker.wait returned a result with an exception set"
        ) from Interrupted(signal.SIGTERM)
    assert ended.value.exit_code == 143
    with pytest.raises(SystemError), interruptible():
        raise SystemError("another")
