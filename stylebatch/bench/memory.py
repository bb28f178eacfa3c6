"""Peak memory of whole runs, each in a process of its own.

    python -m stylebatch.bench.memory MANIFEST.json

runs one manifest (a RunSpec as JSON) and writes the peak resident set in bytes to standard output.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from stylebatch.bench import workload
from stylebatch.bench.proof import peak
from stylebatch.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.engine.run import run
from stylebatch.spec import RunSpec

MB = 1e6


def memory(size: Size) -> Outcome:
    """64 pairs, 1,024 with blocks of the same shape, and 1,024 as a square with larger blocks."""
    sides = {
        "8 x 8": (size.of(8, 1), size.of(8, 1)),
        "128 x 8": (size.of(128, 2), size.of(8, 1)),
        "32 x 32": (size.of(32, 2), size.of(32, 2)),
    }
    peaks = {name: _peak(contents, styles) for name, (contents, styles) in sides.items()}
    first = peaks["8 x 8"]
    return Outcome(
        (
            Figure("peak memory, 1,024 pairs / 64, blocks of 8 x 8", peaks["128 x 8"] / first, "x", 1.1, "<="),
            Figure("peak memory, 1,024 pairs (32 x 32, default blocks) / 64", peaks["32 x 32"] / first, "x", 1.1, "<="),
            *(Figure(f"peak memory, {name}", peak / MB, "MB") for name, peak in peaks.items()),
        ),
        {"steps": 4, "shard_size": {"8 x 8": 64, "128 x 8": 64, "32 x 32": 256}},
    )  # fmt: skip


def _peak(contents: int, styles: int) -> int:
    """Bytes of a run of `contents` x `styles` pairs, 4 steps."""
    with tempfile.TemporaryDirectory() as folder:
        spec = workload.run_spec(
            Path(folder), contents, styles, method={"steps": 4},
            output={"path": f"{folder}/out", "shard_size": 64 if styles <= 8 else 256},
        )  # fmt: skip
        manifest = Path(folder) / "run.json"
        manifest.write_text(spec.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "stylebatch.bench.memory", str(manifest)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(
            f"the run of {contents} x {styles} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    return int(done.stdout.strip().splitlines()[-1])


def _main(manifest: str) -> int:
    spec = RunSpec.model_validate_json(Path(manifest).read_text(encoding="utf-8"))
    code = run(spec).exit_code
    sys.stdout.write(f"{peak()}\n")  # not ru_maxrss: that of a child begins at its parent's
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
