"""Measures outputs again and again, each time in a process of its own that is killed at a named point of writing.

`python -m tests.support.killed_measures FOLDER EVERY`: `FOLDER/N` is the output of case N, of every so-manyth case.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from stylebatch.engine.measure_output import measure_output
from stylebatch.faults import arm

NAMES = ["agreement", "feature_style"]
CASES = [
    *(f"{when} rename:{passage}" for passage in range(1, 13) for when in ("before", "after")),
    *(f"{when} {what}:{n}" for what in ("metadata", "marker") for n in (1, 2, 3) for when in ("before", "after")),
]  # fmt: skip


def main(folder: Path, every: int) -> None:
    """Forks after all was imported."""
    torch.set_num_threads(1)
    for number, point in list(enumerate(CASES))[::every]:
        child = os.fork()
        if child == 0:
            arm(point)
            eyes = f"{folder}/eyes.py:mean_colour"
            measure_output(folder / str(number), NAMES, classifier=eyes)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        (folder / f"{number}.status").write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
