"""Peak memory of whole runs, each in a process of its own.

    python -m pipelines.bench.memory MANIFEST.json

runs one manifest (a RunSpec as JSON) and writes the peak resident set in bytes to standard output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipelines.bench import workload
from pipelines.bench.record import BenchmarkError, Figure, Outcome, Size
from pipelines.proofs.proof import peak
from stylebatch.engine.run import run
from stylebatch.spec import RunSpec

MB = 1e6
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc gives freed memory back at once, so that the resident set is what is alive; by default it keeps some of it."""


def memory(size: Size) -> Outcome:
    """64 pairs and 1,024 in blocks of the same shape; 256 and 1,024 in the default blocks."""
    small, large, many = size.of(8, 1), size.of(16, 1), size.of(128, 2)
    sides = {
        "8 x 8": (small, small),
        f"{many} x 8": (many, small),
        "16 x 16": (large, large),
        "32 x 32": (2 * large, 2 * large),
    }
    peaks = {name: _peak(*grid) for name, grid in sides.items()}
    kept = {name: _peak(*sides[name], {}) for name in ("8 x 8", f"{many} x 8")}
    first, flat, block, square = peaks.values()
    return Outcome(
        (
            Figure("peak memory, 1,024 pairs / 64, blocks of 8 x 8", flat / first, "x", 1.1, "<="),
            Figure("peak memory, 1,024 pairs / 256, blocks of 16 x 16", square / block, "x", 1.1, "<="),
            *(Figure(f"peak memory, {name}", peak / MB, "MB") for name, peak in peaks.items()),
            *(Figure(f"the same, {name}, allocator's default", peak / MB, "MB") for name, peak in kept.items()),
        ),
        {"steps": 4, "allocator": AT_ONCE},
    )  # fmt: skip


def _peak(contents: int, styles: int, allocator: Mapping[str, str] = AT_ONCE) -> int:
    """Bytes of a run of `contents` x `styles` pairs, 4 steps."""
    with tempfile.TemporaryDirectory() as folder:
        spec = workload.run_spec(
            Path(folder), contents, styles, method={"steps": 4},
            output={"path": f"{folder}/out", "shard_size": 64 if styles <= 8 else 256},
        )  # fmt: skip
        manifest = Path(folder) / "run.json"
        manifest.write_text(spec.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "pipelines.bench.memory", str(manifest)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | allocator
        )
    if done.returncode:
        raise BenchmarkError(
            f"the run of {contents} x {styles} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    return int(done.stdout.strip().splitlines()[-1])  # progress stands before it


def _main(manifest: str) -> int:
    spec = RunSpec.model_validate_json(Path(manifest).read_text(encoding="utf-8"))
    code = run(spec).exit_code
    # not ru_maxrss: a child's begins at its parent's
    sys.stdout.write(f"{peak()}\n")
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
