"""The command line in a process of its own, forked from one that has loaded the libraries: a kill costs no start of Python.

What is tested is real: the process dies by SIGKILL where the fault is, and nothing of it lives on.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stylebatch.cli import main
from stylebatch.engine import local_engine
from stylebatch.models.unet import unet_loading

PRELOADED = (local_engine, unet_loading)
"""What a run imports when it begins to render."""


def become(environment: Mapping[str, str], folder: str) -> None:
    """Take over variables and working directory: those of the process that forks are of when it was started."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run(
    words: tuple[str, ...], environment: Mapping[str, str], folder: str, told: tuple[str, str]
) -> None:
    """What the process does."""
    for stream, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    become(environment, folder)
    raise SystemExit(main(list(words)))


class Forked:
    """`stylebatch WORDS`, begun; `changes` of its environment."""

    def __init__(self, *words: str, **changes: str) -> None:
        context = _server()
        self.words = words
        self._told = tempfile.NamedTemporaryFile(), tempfile.NamedTemporaryFile()  # noqa: SIM115
        out, err = (file.name for file in self._told)
        self._process = context.Process(
            target=_run, args=(words, dict(os.environ) | changes, os.getcwd(), (out, err))
        )
        self._process.start()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self, within_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Wait for it; its exit code is -9 where it was killed."""
        self._process.join(within_s)
        code = self._process.exitcode
        told = [Path(file.name).read_text("utf-8") for file in self._told]
        assert code is not None, f"stylebatch {' '.join(self.words)} has not ended: {told[1]}"
        for file in self._told:
            file.close()
        return subprocess.CompletedProcess(self.words, code, *told)


def _call(
    function: Callable[..., object],
    values: tuple[object, ...],
    environment: Mapping[str, str],
    at: str,
) -> None:
    become(environment, at)
    function(*values)


def forked_call(function: Callable[..., object], *values: object, at: Path) -> int | None:
    """Call a function of a module in a process of its own, which stands at a folder; its exit code, 1 after an exception."""
    process = _server().Process(target=_call, args=(function, values, dict(os.environ), str(at)))
    process.start()
    process.join(600)
    return process.exitcode


def forked(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return Forked(*words, **changes).end()
