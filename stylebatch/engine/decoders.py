"""Threads that decode inputs ahead of need, and that nothing waits for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
GIVEN_UP_AFTER_S = 2.0


class Decoders:
    """A context manager. `submit` runs a load on one of `count` threads.

    A read of a dead network mount never returns. Threads of `ThreadPoolExecutor` would hold the process until it does;
    these are left behind.
    """

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"decode_{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, load: Callable[[], T]) -> Future[T]:
        """The result of `load`, to come."""
        future: Future[T] = Future()
        self._tasks.put(lambda: _run(load, future))
        return future

    def close(self) -> None:
        """End the threads; one that is not through with its load by then is left behind."""
        while True:
            try:
                # loads that have not begun are dropped
                self._tasks.get_nowait()
            except Empty:
                break
        for _ in self._threads:
            self._tasks.put(None)
        until = time.monotonic() + GIVEN_UP_AFTER_S
        for thread in self._threads:
            # one deadline for all: ten dead reads must not take ten times as long
            thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


def _run(load: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(load())
    except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
        future.set_exception(error)
