"""The command line in a process of its own, forked from one that has loaded the libraries: a kill costs no start of Python.

What is tested is real: the process dies by SIGKILL where the fault is, and nothing of it lives on.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stylebatch.cli import main
from stylebatch.engine import local_engine
from stylebatch.models.unet import unet_loading

PRELOADED = (local_engine, unet_loading)
"""What a run imports when it begins to render."""


def _run(words: tuple[str, ...], changes: Mapping[str, str], told: tuple[str, str]) -> None:
    """What the process does."""
    for stream, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    os.environ.update(changes)
    raise SystemExit(main(list(words)))


def forked(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """`stylebatch WORDS`, run to its end; `changes` of its environment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        process = context.Process(target=_run, args=(words, changes, (out.name, err.name)))
        process.start()
        process.join(600)
        told = [Path(file.name).read_text("utf-8") for file in (out, err)]
    code = process.exitcode
    assert code is not None, f"stylebatch {' '.join(words)} has not ended: {told[1]}"
    return subprocess.CompletedProcess(words, code, *told)
