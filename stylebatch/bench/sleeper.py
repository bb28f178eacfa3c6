"""A worker that sleeps for as long as a denoiser would compute. Imports nothing heavy: each is a process of its own."""

from __future__ import annotations

import time
from typing import Any


class Sleeper:
    """Takes the place of a `ShardActor`. `work`: seconds of every shard at speed 1; times are of the machine's clock."""

    def __init__(self, speed: float, delay_s: float, work: tuple[float, ...]) -> None:
        self._speed, self._delay_s, self._work = speed, delay_s, work
        self._ready = 0.0

    def start(self) -> tuple[str, Any]:
        """Be ready after a while, as after loading a model."""
        time.sleep(self._delay_s)
        self._ready = time.monotonic()
        return "done", "sleeper"

    def render(self, shard: int, _: None = None) -> tuple[str, Any]:
        """Sleep through a shard; since when the worker was there, its speed, and when it was through."""
        time.sleep(self._work[shard] / self._speed)
        return "done", {"ready": self._ready, "speed": self._speed, "ended": time.monotonic()}
