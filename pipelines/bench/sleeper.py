"""A worker that sleeps for as long as a denoiser would compute. Imports nothing heavy: each is a process of its own."""

from __future__ import annotations

import os
import socket
import time
from typing import Any


class Sleeper:
    """Stands in for a `ShardActor`. `work`: seconds of every shard at speed 1."""

    def __init__(self, speed: float, delay_s: float, work: tuple[float, ...]) -> None:
        self._speed, self._delay_s, self._work = speed, delay_s, work
        self._ready = 0.0

    def start(self) -> tuple[str, Any]:
        """Be ready after a while, as after loading a model."""
        time.sleep(self._delay_s)
        self._ready = time.monotonic()  # one clock for all processes of a machine
        return "done", {"device": "none", "host": socket.gethostname(), "pid": os.getpid()}

    def render(self, shard: int, _: None = None) -> tuple[str, Any]:
        """Sleep as long as a shard takes; returns when the worker was ready, its speed, and when the shard ended."""
        time.sleep(self._work[shard] / self._speed)
        return "done", {"ready": self._ready, "speed": self._speed, "ended": time.monotonic()}
