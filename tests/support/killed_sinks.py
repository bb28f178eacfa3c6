"""Writes shards of every format, each in a process of its own that is killed at a named point of writing.

`python -m tests.support.killed_sinks FOLDER`: the shard of format F killed at POINT:N lies in `FOLDER/F-POINT-N`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from stylebatch.faults import POINTS, arm
from stylebatch.folder import Folder
from stylebatch.spec.output import OutputFormat
from stylebatch.store.sinks import SINKS, sink_of
from tests.support.sink_records import LABELS, SCHEMA, facts_of, records

FILES_PASSAGES = {"open": 4, "payload": 2, "fsync": 4, "rename": 19}
"""Of the tree of pictures: a picture, and the metadata after 18 of them. A file's shard is met at its first passage."""
CASES = [
    (kind, point, FILES_PASSAGES.get(point.split()[1], 1) if kind == "files" else 1)
    for kind in SINKS
    for point in POINTS
]


def case_folder(folder: Path, kind: str, point: str, passage: int) -> Path:
    return folder / f"{kind}-{point.replace(' ', '_')}-{passage}"


def write(folder: Path, kind: OutputFormat) -> None:
    with sink_of(kind)(Folder.at(folder), "train-00000", SCHEMA, labels=LABELS) as sink:
        for sample in records():
            sink.write(sample)
        sink.commit(facts_of(kind))


def main(folder: Path) -> None:
    """Forks after all was imported and drawn once; Arrow makes its threads anew in a child."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in SINKS:
            write(Path(scratch) / kind, kind)
    for kind, point, passage in CASES:
        child = os.fork()
        if child == 0:
            arm(f"{point}:{passage}")
            write(case_folder(folder, kind, point, passage), kind)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
