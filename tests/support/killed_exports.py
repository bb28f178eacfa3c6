"""Exports an output again and again, each time in a process of its own that is killed at a named point of writing.

`python -m tests.support.killed_exports SOURCE FOLDER EVERY`: the export of case N lies in `FOLDER/N`, of every so-manyth case.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions
from stylebatch.faults import POINTS, arm
from stylebatch.spec.output import OutputFormat

OTHERS = ("after payload", "before rename", "after metadata", "before marker", "after marker")
CASES: list[tuple[OutputFormat, str]] = [
    *(("webdataset", f"{point}:{passage}") for point in POINTS for passage in (1, 3)),
    *(("parquet", f"{point}:2") for point in OTHERS),
    *(("files", f"{point}:2") for point in OTHERS),
]


def options_of(kind: OutputFormat) -> ExportOptions:
    return ExportOptions(format=kind, where="structure > 0.3", originals=0.5, shard_size=6)


def main(source: Path, folder: Path, every: int) -> None:
    """Forks after all was imported and drawn once; Arrow makes its threads anew in a child."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("webdataset", "parquet", "files"):
            export([source], Path(scratch) / kind, options_of(kind))  # type: ignore[arg-type]
    for number, (kind, point) in list(enumerate(CASES))[::every]:
        child = os.fork()
        if child == 0:
            arm(point)
            export([source], folder / str(number), options_of(kind))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        (folder / f"{number}.status").write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
